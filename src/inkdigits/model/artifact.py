"""The artifact: weights, preprocessing version, temperature, policy and provenance in one file.

It is an ONNX model with the rest as metadata, closed by a seal: its last bytes are one more
metadata entry, the SHA-256 of every byte before them. Protocol Buffers read a repeated field in
any number of pieces, so the sealed file is plain ONNX, and checking it needs no ONNX library. All
of it loads together or not at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from inkdigits.decision.policy import METHOD, DecisionPolicy
from inkdigits.errors import (
    ArtifactCorruptError,
    ArtifactNotFoundError,
    ArtifactVersionError,
    ConfigError,
)
from inkdigits.ink.normalize import MEAN, PREPROCESSING_VERSION, STD

ARTIFACT_VERSION = 4
ARTIFACT_NAME = "mnist_classifier.onnx"
# Networks that come beside the default one, in files of their names.
BUNDLED = ("MNISTClassifier",)
MARGIN = 6.0
"""Difference between the two highest logits below which ink is read again, shifted.

Temperature and thresholds are fitted to the averaged logits.
"""
INT8_MODEL = "int8_model"
"""An entry that an artifact may have: the network in int8, as another ONNX model in base64."""
SEGMENTER = "segmenter"
"""The entry of the network that finds ink, as another ONNX model in base64."""
LINE_READER = "line_reader"
"""The entry of the network that reads lines of digits, likewise."""
# Tag of ModelProto.metadata_props (field 14) and the length of the entry {"sha256": 64 digits}.
_SEAL_HEAD = b"\x72\x4a\x0a\x06sha256\x12\x40"
_SEAL_LENGTH = len(_SEAL_HEAD) + 64
_METADATA_FIELD = 14


@dataclass(frozen=True, slots=True)
class ArtifactMetadata:
    """What an artifact says of itself; its fields are the names of the ONNX properties.

    Of the scoring, the preprocessing and its mean and deviation no others are supported.
    """

    model_version: str  # changes whenever predictions may
    architecture: str  # the class of the network
    temperature: float  # divides the logits; above 0
    policy: DecisionPolicy
    novelty_method: str = METHOD
    second_look_margin: float = MARGIN  # of test-time augmentation; 0 never augments
    preprocessing_version: int = PREPROCESSING_VERSION
    mean: float = MEAN
    std: float = STD
    labels: tuple[int, ...] = tuple(range(10))  # what index i of the logits means
    artifact_version: int = ARTIFACT_VERSION
    provenance: Mapping[str, Any] = field(default_factory=dict)  # data, seed, versions, metrics

    def to_properties(self) -> dict[str, str]:
        """Return ONNX properties: one JSON value per field."""
        return {name: json.dumps(value, sort_keys=True) for name, value in asdict(self).items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> ArtifactMetadata:
        """Read ONNX properties back, and check them.

        Raises:
            ArtifactVersionError: made for another artifact, preprocessing or scoring version.
            ArtifactCorruptError: a field is missing or invalid.
        """
        # An artifact of another version has other fields, so its version is checked first.
        found = properties.get("artifact_version")
        if found is not None and found != str(ARTIFACT_VERSION):
            raise ArtifactVersionError(
                f"the artifact is of version {found}; this Inkdigits reads version "
                f"{ARTIFACT_VERSION}. Export or train it again."
            )
        missing = [f.name for f in fields(cls) if f.name not in properties]
        if missing:
            raise ArtifactCorruptError(f"the artifact's metadata lacks {', '.join(missing)}")
        try:
            values = {f.name: json.loads(properties[f.name]) for f in fields(cls)}
            values["policy"] = DecisionPolicy.from_dict(values["policy"])
            values["labels"] = tuple(values["labels"])
            metadata = cls(**values)
        except (json.JSONDecodeError, TypeError, AttributeError, ConfigError) as error:
            raise ArtifactCorruptError(f"the artifact's metadata is invalid: {error}") from error
        metadata._check()
        return metadata

    def _check(self) -> None:
        made_for = (self.preprocessing_version, self.mean, self.std)
        if made_for != (PREPROCESSING_VERSION, MEAN, STD):
            raise ArtifactVersionError(
                f"the artifact was made for preprocessing version {self.preprocessing_version} "
                f"(mean {self.mean}, std {self.std}); this Inkdigits has version "
                f"{PREPROCESSING_VERSION} (mean {MEAN}, std {STD}). Export or train it again."
            )
        if self.novelty_method != METHOD:
            raise ArtifactVersionError(
                f"the artifact scores novelty by {self.novelty_method!r}; this Inkdigits supports "
                f"{METHOD!r} alone. Train it again."
            )
        if self.labels != tuple(range(10)):
            raise ArtifactCorruptError(f"the artifact's labels are {self.labels}, not 0 to 9")
        if not (isinstance(self.temperature, float) and 0 < self.temperature < float("inf")):
            raise ArtifactCorruptError(
                f"the artifact's temperature is {self.temperature}; it must be above 0"
            )
        margin = self.second_look_margin
        if not (isinstance(margin, float) and 0 <= margin < float("inf")):
            raise ArtifactCorruptError(
                f"the artifact's second_look_margin is {margin}; it must be 0 or more"
            )


def shipped_artifact() -> Path:
    """Return the path of the artifact that comes with the package.

    >>> shipped_artifact().name
    'mnist_classifier.onnx'
    """
    return Path(str(files("inkdigits") / "weights" / ARTIFACT_NAME))


def shipped_version() -> str:
    """Return the version of the artifact that comes with the package, from its run.json.

    >>> shipped_version().rpartition("-")[0]
    'mnist-classifier'
    """
    run = json.loads(shipped_artifact().with_name("run.json").read_text(encoding="utf-8"))
    return str(run["model_version"])


def seal(model: bytes) -> bytes:
    """Return an ONNX model with its SHA-256 appended as a metadata entry.

    >>> seal(b"model")[:5], len(seal(b"model"))
    (b'model', 81)
    """
    return model + _SEAL_HEAD + hashlib.sha256(model).hexdigest().encode()


def artifact_path(path: str | os.PathLike[str] | None = None) -> Path:
    """Return where an artifact is: None is the shipped one, and a name one that comes beside it.

    >>> artifact_path("MNISTClassifier").name, artifact_path("models/current").name
    ('MNISTClassifier.onnx', 'current')
    """
    if path is None:
        return shipped_artifact()
    if str(path) in BUNDLED and not Path(path).exists():
        return shipped_artifact().with_name(f"{path}.onnx")
    return Path(path)


def read_artifact(path: str | os.PathLike[str] | None = None) -> bytes:
    """Return the sealed ONNX model, whose every byte has been checked.

    Args:
        path: the file, or a folder that has it under its usual name, such as ``models/current``;
            None is the artifact that comes with the package, and a name of ``BUNDLED`` one that
            comes beside it.

    Raises:
        ArtifactNotFoundError: there is no such file.
        ArtifactCorruptError: it is truncated, altered or no artifact.

    >>> seal(read_artifact()[:-76]) == read_artifact()
    True
    """
    source = artifact_path(path)
    if source.is_dir():
        source /= ARTIFACT_NAME
    try:
        content = source.read_bytes()
    except FileNotFoundError as error:
        raise ArtifactNotFoundError(
            f"there is no artifact at {source}. Check the path in --model, MODEL_PATH or --run; "
            "without them, Inkdigits uses the shipped model."
        ) from error
    except OSError as error:
        raise ArtifactCorruptError(f"{source} cannot be read: {error.strerror}") from error
    model, found = content[:-_SEAL_LENGTH], content[-_SEAL_LENGTH:]
    if not found.startswith(_SEAL_HEAD) or not model:
        raise ArtifactCorruptError(
            f"{source} ({len(content):,} bytes) is truncated or not an Inkdigits artifact: "
            "it does not end in a seal"
        )
    if seal(model) != content:
        raise ArtifactCorruptError(
            f"{source} was altered: its SHA-256 is {hashlib.sha256(model).hexdigest()}, "
            f"its seal says {found[len(_SEAL_HEAD) :].decode('ascii', 'replace')}"
        )
    return content


def network_in(properties: Mapping[str, str], name: str) -> bytes:
    """Return the ONNX model that an entry of an artifact holds, such as SEGMENTER.

    Raises:
        ArtifactCorruptError: there is none, or it is not base64.

    >>> network_in({"segmenter": "b25ueA=="}, SEGMENTER)
    b'onnx'
    """
    try:
        return base64.b64decode(properties[name], validate=True)
    except (KeyError, ValueError) as error:
        raise ArtifactCorruptError(f"the artifact has no sound {name}; train it again") from error


def read_network(name: str, path: str | os.PathLike[str] | None = None) -> bytes:
    """Return a network beside the classifier, as an ONNX model, of an artifact or the shipped one.

    ``name`` is SEGMENTER or LINE_READER. Errors are those of ``read_artifact`` and ``network_in``.

    >>> len(read_network(SEGMENTER)) > 1_000_000
    True
    """
    return network_in(_divided(read_artifact(path))[1], name)


def read_metadata(artifact: bytes) -> ArtifactMetadata:
    """Return what a sealed artifact says of itself.

    Raises:
        ArtifactVersionError: made for another artifact, preprocessing or scoring version.
        ArtifactCorruptError: a field is missing or invalid.

    >>> read_metadata(read_artifact()).architecture
    'DigitNet'
    """
    return ArtifactMetadata.from_properties(_divided(artifact)[1])


def with_metadata(
    artifact: bytes,
    metadata: ArtifactMetadata,
    networks: Mapping[str, bytes] = MappingProxyType({}),
    *,
    renew: bool = False,
) -> bytes:
    """Return the same network with other metadata, sealed again.

    Args:
        artifact: sealed.
        metadata: in place of the artifact's own.
        networks: ONNX models that replace those of entries: INT8_MODEL, SEGMENTER, LINE_READER.
        renew: give it a version made of all that answers depend on; otherwise the metadata's.

    >>> artifact = read_artifact()
    >>> with_provenance(artifact, {"n": 1}) == artifact
    False
    """
    model, properties = _divided(artifact)
    properties |= metadata.to_properties()
    for name, network in networks.items():
        properties[name] = base64.b64encode(network).decode("ascii")
    if renew:
        settings = replace(metadata, model_version="", provenance={}).to_properties()
        content = hashlib.sha256(model)
        for name in (INT8_MODEL, SEGMENTER, LINE_READER):
            content.update(properties.get(name, "").encode())
        content.update(repr(sorted(settings.items())).encode())
        version = f"mnist-classifier-{content.hexdigest()[:12]}"
        properties |= replace(metadata, model_version=version).to_properties()
    entries = (_field(1, key) + _field(2, value) for key, value in sorted(properties.items()))
    return seal(model + b"".join(_field(_METADATA_FIELD, entry) for entry in entries))


def with_provenance(artifact: bytes, provenance: Mapping[str, Any]) -> bytes:
    """Return the same artifact with another provenance, such as scores measured through it.

    >>> with_provenance(read_artifact(), {"test": "none"}) == read_artifact()
    False
    """
    return with_metadata(artifact, replace(read_metadata(artifact), provenance=dict(provenance)))


def _divided(artifact: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the ONNX model without its metadata, and the metadata without the seal."""
    rest, properties = [], {}
    for number, start, content, end in _fields(artifact):
        if number != _METADATA_FIELD:
            rest.append(artifact[start:end])
            continue
        whole = artifact[content:end]
        entry = {number: whole[first:last] for number, _, first, last in _fields(whole)}
        properties[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
    properties.pop("sha256", None)
    return b"".join(rest), properties


def _fields(message: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield each field's number, and where the field, its content and the next field begin.

    The wire format of Protocol Buffers (protobuf.dev, "Encoding"). A length-delimited field has a
    content of its own; others begin where they are.
    """
    position = 0
    try:
        while position < len(message):
            start = position
            tag, position = _varint(message, position)
            content = position
            if tag & 7 == 2:
                length, content = _varint(message, position)
                position = content + length
            elif tag & 7 == 0:
                _, position = _varint(message, position)
            else:
                position += {1: 8, 5: 4}[tag & 7]
            yield tag >> 3, start, content, position
    except (IndexError, KeyError) as error:
        raise ArtifactCorruptError("the artifact is not an ONNX model") from error


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Return a number, and where the next begins."""
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _field(number: int, content: str | bytes) -> bytes:
    """Return a length-delimited field with a number below 16."""
    data = content.encode() if isinstance(content, str) else content
    length, head = len(data), bytearray([number << 3 | 2])
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*head, length]) + data


@contextmanager
def open_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that has its name only once it is written whole.

    Until then it has a temporary name in the same folder, and an exception deletes it. Missing
    folders are made. The content is on the disk before the file has its name.

    Raises:
        OSError: the folder or the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open_atomically(Path(folder) / "a.bin") as file:
    ...         _ = file.write(b"abc")
    ...     os.listdir(folder)
    ['a.bin']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; see ``open_atomically``.

    Raises:
        OSError: the folder or the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "new" / "a.bin", b"abc")
    ...     (Path(folder) / "new" / "a.bin").read_bytes()
    b'abc'
    """
    with open_atomically(path) as file:
        file.write(content)
