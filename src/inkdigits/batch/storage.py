"""Files on this machine and in object stores: what a batch run needs of both.

A local file is a ``pathlib.Path``. A URL such as ``s3://bucket/key`` is a ``upath.UPath``: fsspec
behind the interface of pathlib, with ``fs`` for what pathlib has no word for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from inkdigits.errors import BackendUnavailableError, BatchError, InkdigitsError
from inkdigits.model.artifact import open_atomically

# What libraries raise: no credentials, no network, a lost cluster.
_ERRORS: Final = (
    ("builtins", "OSError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("aiohttp", "ClientError"),
    ("ray.exceptions", "RayError"),
)
# A result is sent to an object store in parts of this many bytes, while it is written.
_MULTIPART_BYTES: Final = 8 * 2**20


def as_path(text: str) -> Path:
    """Return the path that a path or a URL names.

    Raises:
        BackendUnavailableError: the library of that kind of URL is not installed.

    >>> as_path("a.png"), as_path("file:///data/a.png")
    (PosixPath('a.png'), PosixPath('/data/a.png'))
    """
    scheme, separator, rest = text.partition("://")
    if not separator or scheme == "file":
        return Path(rest or text)
    try:
        from upath import UPath

        path = UPath(text)
        _ = path.fs
    except (ImportError, ValueError) as error:
        need = f"{text} needs the library of such URLs ({error})"
        raise BackendUnavailableError.without("cloud", need) from error
    return cast(Path, path)


def filesystem(path: Path) -> Any:
    """Return the fsspec file system of a path, or None for a local file.

    >>> filesystem(Path("a.png"))
    """
    return getattr(path, "fs", None)


def read_range(path: Path, start: int, size: int) -> bytes:
    """Return so many bytes of a file from ``start``, or fewer at its end.

    >>> read_range(Path(__file__), 3, 5)
    b'Files'
    """
    store = filesystem(path)
    if store is None:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)
    place = cast(Any, path).path
    return cast(bytes, store.cat_file(place, start=start, end=start + size)) if size else b""


@contextmanager
def open_new(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that is there only once it is whole; an exception discards it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open_new(Path(folder) / "a.bin") as file:
    ...         _ = file.write(b"abc")
    ...     (Path(folder) / "a.bin").read_bytes()
    b'abc'
    """
    store = filesystem(path)
    if store is None:
        with open_atomically(path) as file:
            yield file
        return
    with store.transaction, cast(Any, path).open("wb", block_size=_MULTIPART_BYTES) as file:
        yield file


@contextmanager
def told_as_batch_errors() -> Iterator[None]:
    """Raise a BatchError for what the library of an object store or a cluster raises.

    >>> with told_as_batch_errors():
    ...     pass
    """
    try:
        yield
    except InkdigitsError:
        raise  # Some are OSErrors too.
    except tuple(getattr(sys.modules[m], n) for m, n in _ERRORS if m in sys.modules) as error:
        if getattr(error, "filename", None):
            raise  # It is of a local file, and says so.
        raise BatchError(
            f"the object store or cluster cannot be used: {error}. Check the network and the "
            "credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
