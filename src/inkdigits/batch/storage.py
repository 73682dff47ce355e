"""Files on this machine and in object stores: what a batch run needs of both.

A local file is a ``pathlib.Path``. A URL such as ``s3://bucket/key`` is a ``upath.UPath``: fsspec
behind the interface of pathlib, with ``fs`` for what pathlib has no word for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
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
# Bytes that are read ahead of a part of an object; its library's own 50 MB are more than a shard.
_AHEAD: Final = 2**20
# A result is sent to an object store in parts of this many bytes, while it is written.
_MULTIPART_BYTES: Final = 8 * 2**20


def as_path(text: str) -> Path:
    """Return the path of a path or a URL; BackendUnavailableError without the URL's library.

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


def filesystem(path: object) -> Any:
    """Return the fsspec file system of a path, or None for a local file.

    >>> filesystem(Path("a.png"))
    """
    return getattr(path, "fs", None)


def open_file(path: Any) -> IO[bytes]:
    """Open a file for reading.

    >>> with open_file(Path(__file__)) as file:
    ...     file.read(8)
    b'\"\"\"Files'
    """
    store = filesystem(path)
    file = store.open(path.path, block_size=_AHEAD) if store else path.open("rb")
    return cast(IO[bytes], file)


def contents(paths: Sequence[Any]) -> list[Any]:
    """Return the bytes of files of one place; those of an object store are fetched all at once.

    FileNotFoundError stands in the place of an object that is not there.

    >>> contents([Path(__file__)])[0][:8]
    b'\"\"\"Files'
    """
    store = filesystem(paths[0])
    if store is None:
        return [path.read_bytes() for path in paths]
    found = store.cat_ranges([path.path for path in paths], None, None, on_error="return")
    for one in found:
        if isinstance(one, Exception) and not isinstance(one, FileNotFoundError):
            raise one
    return cast(list[Any], found)


@contextmanager
def open_new(path: Any) -> Iterator[IO[bytes]]:
    """Open a file for writing that is there only once it is whole; an exception discards it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, open_new(Path(folder) / "a.bin") as file:
    ...     file.write(b"abc")
    3
    """
    store = filesystem(path)
    if store is None:
        with open_atomically(path) as file:
            yield file
        return
    with store.transaction, path.open("wb", block_size=_MULTIPART_BYTES) as file:
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
            f"a disk, object store or cluster cannot be used: {error}. Check the network and the "
            "credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
