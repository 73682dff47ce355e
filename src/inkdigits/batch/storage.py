"""Files on this machine and in object stores: what a batch run needs of both.

A local file is a ``pathlib.Path``. A URL such as ``s3://bucket/key`` is a ``upath.UPath``: fsspec
behind the interface of pathlib, with ``fs`` for the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from inkdigits.errors import BackendUnavailableError, BatchError, InkdigitsError
from inkdigits.model.artifact import open_atomically

AT_ONCE: Final = 32  # requests: an object store answers one in some 20 ms
READ_AHEAD: Final = 2**20  # bytes; fsspec's own are more than a shard

_MULTIPART_BYTES: Final = 8 * 2**20  # of a result that is sent to a store while it is written
# What libraries raise: no credentials, no network, a lost cluster or process.
_ERRORS: Final = (
    ("builtins", "OSError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("aiohttp", "ClientError"),
    ("ray.exceptions", "RayError"),
    ("concurrent.futures.process", "BrokenProcessPool"),
)


def as_path(text: str) -> Any:
    """Return the path of a path or a URL; BackendUnavailableError without the URL's library.

    >>> as_path("a.png"), as_path("file:///data/a.png")
    (PosixPath('a.png'), PosixPath('/data/a.png'))
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme == "file":
        return Path(rest or text)
    try:
        from upath import UPath

        UPath(text).fs  # noqa: B018
    except (ImportError, ValueError) as error:
        need = f"{text} needs the library of such URLs ({error})"
        raise BackendUnavailableError.without("cloud", need) from error
    return UPath(text)


@contextmanager
def open_new(path: Any) -> Iterator[IO[bytes]]:
    """Open a file for writing that is there only once it is whole; an exception discards it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, open_new(Path(folder) / "a.bin") as file:
    ...     file.write(b"abc")
    3
    """
    if isinstance(path, Path):
        with open_atomically(path) as file:
            yield file
    else:
        with path.fs.transaction, path.open("wb", _MULTIPART_BYTES) as file:
            yield file


@contextmanager
def told_as_batch_errors() -> Iterator[None]:
    """Raise a BatchError for what a file, an object store or a cluster raises.

    >>> with told_as_batch_errors():
    ...     pass
    """
    try:
        yield
    except InkdigitsError:
        raise  # Some are OSErrors too.
    except tuple(getattr(sys.modules[m], n) for m, n in _ERRORS if m in sys.modules) as error:
        if getattr(error, "filename", None):
            raise BatchError(f"{error.filename} cannot be used: {error.strerror}") from error
        raise BatchError(
            f"a disk, object store, cluster or process cannot be used: {error}. Check the network "
            "and the credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
