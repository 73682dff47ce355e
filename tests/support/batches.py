"""Sources of very many pictures, and what a batch run makes of them."""

import io
import tarfile
import zipfile
from pathlib import Path

from support.pictures import encoded, seven

from inkdigits.batch.shards import SCHEMA
from inkdigits.batch.sources import Source, shards_of
from inkdigits.ink.decode import Limits

PICTURE = encoded(seven(40, 4))
SMALL = Limits(max_bytes=5000, max_pixels=10_000)


def everything(*paths):
    """(name, picture or error) of all pictures, in order."""
    return [
        pair
        for shard in shards_of(map(Source, paths))
        for pair in zip(shard.names, shard.pictures(), strict=True)
    ]


def names(found, source):
    return [name.removeprefix(f"{source}#") for name, _ in found]


def zipped(path, members, **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path, members, mode="w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def packed(folder, members) -> list[Path]:
    """Write an archive of each kind, and return their paths."""
    return [
        zipped(folder / "a.zip", members, compression=zipfile.ZIP_DEFLATED),
        tarred(folder / "a.tar", members),
        tarred(folder / "a.tgz", members, "w:gz"),
    ]


def part(*names, error=None):
    columns = {name: [None] * len(names) for name in SCHEMA}
    return columns | {"source": list(names), "error": [error] * len(names)}
