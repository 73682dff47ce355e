"""What can go wrong, as one tree; no error here knows HTTP.

InkdigitsError
├── ConfigError              a setting has a value it can't have
├── ImageError               a picture can't be read
│   ├── UnreadableImageError     the bytes aren't a picture that can be decoded
│   ├── UnsupportedImageError    a picture, but in a format or mode that isn't taken
│   └── ImageTooLargeError       over the limit in bytes or in pixels
├── ArtifactError            a model file can't be used
│   ├── ArtifactNotFoundError    there is no such file
│   ├── ArtifactCorruptError     truncated, altered, or not one of ours
│   └── ArtifactVersionError     made for another preprocessing or artifact version
├── BackendUnavailableError  the asked-for device or its library isn't here
├── DataError                a data set is missing, or isn't what it should be
├── TrainingError            a training run can't start or go on
├── BulkError                a bulk reading can't start or go on
└── StoreError               the prediction log can't do what was asked
    ├── RecordError              a record or a feedback has a value that it can't have
    ├── QueryError               a filter, a cursor or a limit that can't be used
    ├── RecordNotFoundError      there is no such record, or it belongs to somebody else
    ├── StoreUnavailableError    the database can't be reached, or refuses; later it may not
    ├── SchemaVersionError       the database was made by a newer Inkdigits
    └── SpoolError               the spool can't be written or read
        └── SpoolFullError           it is at its limit: the record was kept nowhere
"""


class InkdigitsError(Exception):
    """Base of every error that Inkdigits raises on purpose."""


class ConfigError(InkdigitsError, ValueError):
    """A setting has a value that it can't have; the message names both."""


class ImageError(InkdigitsError, ValueError):
    """A picture can't be read."""


class UnreadableImageError(ImageError):
    """The bytes are not a picture that can be decoded: empty, truncated or something else."""


class UnsupportedImageError(ImageError):
    """A picture, but of a format or an array of a shape that isn't taken."""


class ImageTooLargeError(ImageError):
    """A picture over the limit in bytes or in pixels; it was not decoded."""


class ArtifactError(InkdigitsError):
    """A model artifact can't be used; nothing is loaded in its place."""


class ArtifactNotFoundError(ArtifactError, FileNotFoundError):
    """There is no artifact at the path."""


class ArtifactCorruptError(ArtifactError):
    """The artifact is truncated, altered, or not an Inkdigits artifact."""


class ArtifactVersionError(ArtifactError):
    """The artifact was made for another artifact format or preprocessing version."""


class BackendUnavailableError(InkdigitsError, RuntimeError):
    """The asked-for device, or the library that drives it, isn't on this machine."""


class DataError(InkdigitsError):
    """A data set is missing, or isn't what it should be."""


class TrainingError(InkdigitsError):
    """A training run can't start or go on."""


class BulkError(InkdigitsError):
    """A bulk reading can't start or go on."""


class StoreError(InkdigitsError):
    """The prediction log can't do what was asked."""


class RecordError(StoreError, ValueError):
    """A record or a feedback has a value that it can't have; the message names both."""


class QueryError(StoreError, ValueError):
    """A filter, a cursor or a limit that can't be used; the message names it."""


class RecordNotFoundError(StoreError, LookupError):
    """There is no such record, or it belongs to somebody else."""


class StoreUnavailableError(StoreError):
    """The database can't be reached or refuses; the same call may work later."""


class SchemaVersionError(StoreError):
    """The database was made by a newer Inkdigits than this one."""


class SpoolError(StoreError):
    """The spool can't be written or read."""


class SpoolFullError(SpoolError):
    """The spool is at its limit; the record was kept nowhere."""
