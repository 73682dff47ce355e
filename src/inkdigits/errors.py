"""Every error that Inkdigits raises on purpose, as one tree. No error here knows HTTP.

InkdigitsError
├── ConfigError                      a setting has an invalid value
│   └── HintError                        what is said of a number or a region is invalid
├── ImageError                       a picture cannot be read
│   ├── UnreadableImageError             the bytes are not a picture that can be decoded
│   │   ├── InvalidBase64Error               the text is not base64
│   │   └── InvalidDataUrlError              a data URL, but not of a base64 picture
│   ├── UnsupportedImageError            a picture, but of an unsupported format or mode
│   └── ImageTooLargeError               over the limit in bytes or in pixels
├── ArtifactError                    a model file cannot be used
│   ├── ArtifactNotFoundError            there is no such file
│   ├── ArtifactCorruptError             truncated, altered, or not an Inkdigits artifact
│   ├── ArtifactVersionError             made for another preprocessing or artifact version
│   └── RegistryError                    a folder of models has no such version, or cannot change
├── InferenceError                   ONNX Runtime failed on a picture
├── BackendUnavailableError          the requested device or its library is not installed
├── DataError                        a data set is missing or invalid
│   └── NoThresholdError                 no threshold meets the risk on these pictures
├── TrainingError                    a training run cannot start or resume
├── BatchError                       a batch run cannot start or resume
├── StoreError                       the prediction log cannot do what was asked
│   ├── RecordError                      a record or a feedback has an invalid value
│   ├── QueryError                       an invalid filter, cursor or limit
│   ├── RecordNotFoundError              no such record, or it belongs to somebody else
│   ├── StoreUnavailableError            the database is unavailable; the call may work later
│   ├── SchemaVersionError               the database was made by a newer Inkdigits
│   └── OutboxError                      the outbox cannot be written or read
├── ServiceError                     the service cannot answer this request now, or ever
│   ├── NotReadyError                    the reader has not read its warm-up picture
│   ├── OverloadedError                  the request has waited until its deadline
│   ├── DeadlineExceededError            the picture arrived after the deadline
│   ├── ClientDisconnectedError          the client has closed its connection
│   ├── UnknownHostError                 the Host is not one of the service's names
│   ├── ForeignOriginError               a page of another origin sent the request
│   ├── KeyRequiredError                 the request brings no API key that is known
│   ├── TooManyRequestsError             the client is over its rate limit
│   ├── UnknownModelError                no model of that name or version
│   └── UndescribedRouteError            a route is missing from the OpenAPI document
├── InvalidRequestError              a request does not carry what it should
│   ├── EmptyBodyError                   there is no body
│   ├── IncompleteBodyError              the body ends before its announced length
│   ├── BodyTooLargeError                the body is over the limit in bytes
│   │   └── DecompressedTooLargeError        … once it is decompressed
│   ├── BodyEncodingError                a compressed body cannot be decompressed
│   ├── UnsupportedEncodingError         an unsupported Content-Encoding
│   ├── UnsupportedMediaTypeError        an unsupported Content-Type
│   ├── InvalidJsonError                 the body is not JSON
│   ├── MissingFieldError                the field with the picture is missing
│   ├── WrongShapeError                  the JSON or the form has another shape
│   ├── InvalidRiskError                 the risk is not between 0 and 1
│   ├── InvalidTensorError               a tensor that the protocol or the model does not allow
│   └── TooManyPicturesError             more pictures than one request may carry
└── ClientError                      a service did not answer this client as it asked
    ├── RequestDeniedError               the service denied the request
    └── ServiceUnavailableError          no answer after all attempts
"""

from __future__ import annotations


class InkdigitsError(Exception):
    """Base of every error that Inkdigits raises on purpose."""


class ConfigError(InkdigitsError, ValueError):
    """A setting has an invalid value; the message names the setting and the value."""


class HintError(ConfigError):
    """A hint for reading a number is invalid, or a region is outside its picture."""


class ImageError(InkdigitsError, ValueError):
    """A picture cannot be read."""


class UnreadableImageError(ImageError):
    """The bytes are not a picture that can be decoded: empty, truncated or something else."""


class InvalidBase64Error(UnreadableImageError):
    """The text is not base64."""


class InvalidDataUrlError(UnreadableImageError):
    """The text is a data URL, but not of a base64 picture."""


class UnsupportedImageError(ImageError):
    """A picture of an unsupported format, or an array of an unsupported shape."""


class ImageTooLargeError(ImageError):
    """A picture over the limit in bytes or in pixels; it was not decoded."""


class ArtifactError(InkdigitsError):
    """A model artifact cannot be used; nothing is loaded in its place."""


class ArtifactNotFoundError(ArtifactError, FileNotFoundError):
    """There is no artifact at the path."""


class ArtifactCorruptError(ArtifactError):
    """The artifact is truncated, altered, or not an Inkdigits artifact."""


class ArtifactVersionError(ArtifactError):
    """The artifact was made for another artifact format or preprocessing version."""


class RegistryError(ArtifactError):
    """A folder of models has no such version, or ``current`` cannot or must not change."""


class InferenceError(InkdigitsError, RuntimeError):
    """The library that runs the network failed on a picture; the message is the library's."""


class BackendUnavailableError(InkdigitsError, RuntimeError):
    """The requested device, or the library that drives it, is not on this machine."""

    @classmethod
    def without(cls, extra: str, need: str) -> BackendUnavailableError:
        """Return the error of a missing extra, with what this checkout or package has to run.

        >>> str(BackendUnavailableError.without("train", "This needs torch"))[:51]
        'This needs torch, which is not installed; run pip i'
        """
        from pathlib import Path

        is_checkout = (Path(__file__).parents[2] / "pyproject.toml").is_file()
        package = f"-e '.[{extra}]'" if is_checkout else f"'inkdigits[{extra}]'"
        return cls(f"{need}, which is not installed; run pip install {package}")


class DataError(InkdigitsError):
    """A data set is missing or invalid."""


class NoThresholdError(DataError):
    """No threshold of the sequence meets the risk on these pictures; the message says why."""


class TrainingError(InkdigitsError):
    """A training run cannot start or resume."""


class BatchError(InkdigitsError):
    """A batch run cannot start or resume."""


class StoreError(InkdigitsError):
    """The prediction log cannot do what was asked."""


class RecordError(StoreError, ValueError):
    """A record or a feedback has an invalid value; the message names the field and the value."""


class QueryError(StoreError, ValueError):
    """A filter, a cursor or a limit is invalid; the message names it."""


class RecordNotFoundError(StoreError, LookupError):
    """There is no such record, or it belongs to somebody else."""


class StoreUnavailableError(StoreError):
    """The database is unavailable; the same call may work later."""


class SchemaVersionError(StoreError):
    """The database was made by a newer Inkdigits than this one, or by an unreleased one."""


class OutboxError(StoreError):
    """The outbox cannot be written or read: its disk is full, fails or is locked."""


class ServiceError(InkdigitsError):
    """The service cannot answer this request, now or ever."""


class NotReadyError(ServiceError):
    """The reader has not read its warm-up picture yet, so it is given no other."""


class OverloadedError(ServiceError):
    """The request has waited behind others until its deadline."""


class DeadlineExceededError(ServiceError):
    """The picture arrived after the deadline of its request."""


class ClientDisconnectedError(ServiceError):
    """The client has closed its connection, so nobody waits for the answer."""


class UnknownHostError(ServiceError):
    """The request's Host is not one of the names of the service."""


class ForeignOriginError(ServiceError):
    """A page of another origin sent a request that changes something."""


class KeyRequiredError(ServiceError):
    """The service requires an API key, and the request brings none that is known."""


class TooManyRequestsError(ServiceError):
    """The client is over its rate limit.

    Attributes:
        retry_after: whole seconds until the client may ask again, at least 1.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many requests; ask again in {retry_after} s.")
        self.retry_after = retry_after


class UnknownModelError(ServiceError, LookupError):
    """There is no model of that name or version."""


class UndescribedRouteError(ServiceError, LookupError):
    """A route is missing from the OpenAPI document: a defect of this package."""


class InvalidRequestError(InkdigitsError, ValueError):
    """A request does not carry what it should."""


class EmptyBodyError(InvalidRequestError):
    """There is no body."""


class IncompleteBodyError(InvalidRequestError):
    """The body ends before its announced length: the client disconnected or stopped sending."""


class BodyTooLargeError(InvalidRequestError):
    """The body is over the limit in bytes."""


class DecompressedTooLargeError(BodyTooLargeError):
    """The body is over the limit once it is decompressed."""


class BodyEncodingError(InvalidRequestError):
    """A compressed body cannot be decompressed: truncated, damaged or something else."""


class UnsupportedEncodingError(InvalidRequestError):
    """The body has an unsupported Content-Encoding."""


class UnsupportedMediaTypeError(InvalidRequestError):
    """The body has an unsupported Content-Type."""


class InvalidJsonError(InvalidRequestError):
    """The body is not JSON."""


class MissingFieldError(InvalidRequestError):
    """The field that should hold the picture is missing."""


class WrongShapeError(InvalidRequestError):
    """The JSON or the form has another shape than the supported one."""


class InvalidRiskError(InvalidRequestError):
    """The stated risk is not between 0 and 1."""


class InvalidTensorError(InvalidRequestError):
    """A tensor that the protocol or the model does not allow; the message says where."""


class TooManyPicturesError(InvalidRequestError):
    """The request carries more pictures than one request may."""


class ClientError(InkdigitsError):
    """A service did not answer this client as it asked."""


class RequestDeniedError(ClientError):
    """The service denied the request.

    Attributes:
        status: the HTTP status.
        code: the error's code, listed in ``docs/api.md``; "unknown" where something else answered.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ServiceUnavailableError(ClientError):
    """The service is unreachable, overloaded or cannot answer, after all attempts.

    Attributes:
        retry_after: seconds after which the service wants to be asked again; None where it does
            not say, infinite where repeating the request will not help.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
