"""How fast `inkdigits predict --out` reads, against decoding alone, and the memory it takes.

Rate: the same encoded pictures, in a TAR archive, are (a) read by `inkdigits predict --out`, (b)
only decoded by Pillow (`Image.open`, `load`), and (c) only decoded by our own `read_grey`; (b) and
(c) in as many processes, from the same archive, by the same shards. They take turns. Their start
isn't counted: the rate is that at which a long run's pictures beyond a short run's take the seconds
beyond the short run's. The share that is asked for is (a) of (b), decoding as everybody has it.
`most` is the share that could be reached if nothing were done but decoding, by the faster of the
two, and the network, whose own rate is measured first; where it is below the share that is asked
for, the picture decodes in too little time beside the network's, and missing it isn't an error.

Memory: the peak of the parent's and the workers' resident sets together, sampled every 20 ms, for
an array of few rows and of many. Each sample counts private and shared pages alike, so libraries
that the processes share count once for each.

    python benchmarks/bulk.py --data data [--only rate|memory] [--json benchmarks/bulk.json]
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import inkdigits
from inkdigits.batch.archives import Extent
from inkdigits.batch.shards import ArchiveShard, Shard
from inkdigits.batch.sources import open_sources
from inkdigits.batch.workers import BATCH_PICTURES
from inkdigits.evaluation.environment import hardware, versions
from inkdigits.ink.decode import read_grey
from inkdigits.ink.normalize import INK_SIZE
from inkdigits.settings import available_cores

NEEDED_SHARE = 0.8  # of the rate of decoding alone
# Many rows may take this much more than few, in MB: what an allocator keeps varies by that much.
ALLOWED_GROWTH = 16

# The first two are what a page's canvas sends.
FORMS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "280x280 RGBA, opaque": lambda ink: opaque(enlarged(ink)),
    "280x280 RGBA, transparent": lambda ink: transparent(enlarged(ink)),
    "280x280 grey": lambda ink: enlarged(ink),
    "28x28 grey": lambda ink: ink,
}


def enlarged(ink: Image.Image) -> Image.Image:
    return ink.resize((280, 280), Image.Resampling.BICUBIC)


def opaque(ink: Image.Image) -> Image.Image:
    shade = ink.point(lambda value: 255 - value)
    return Image.merge("RGBA", (shade, shade, shade, Image.new("L", ink.size, 255)))


def transparent(ink: Image.Image) -> Image.Image:
    black = Image.new("L", ink.size, 0)
    return Image.merge("RGBA", (black, black, black, ink))


def write_archive(path: Path, form: str, inks: np.ndarray, number: int) -> None:
    """``number`` pictures; each of ``inks`` comes again as often as is needed."""
    encoded = []
    for ink in inks[:number]:
        buffer = io.BytesIO()
        FORMS[form](Image.fromarray(ink)).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    with tarfile.open(path, "w") as archive:
        for i in range(number):
            content = encoded[i % len(encoded)]
            member = tarfile.TarInfo(f"{i:08}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_array(path: Path, inks: np.ndarray, number: int) -> None:
    """``number`` pictures as (N, 28, 28), written by a mapping and never held."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (number, 28, 28))
    for start in range(0, number, len(inks)):
        array[start : start + len(inks)] = inks[: number - start]
    array.flush()


def by_pillow(content: bytes) -> object:
    return Image.open(io.BytesIO(content)).load()


DECODERS: dict[str, Callable[[bytes], object]] = {"pillow": by_pillow, "own": read_grey}


def decode(name: str, shard: Shard) -> int:
    """Decode a shard's pictures and do nothing with them; returns how many."""
    assert isinstance(shard, ArchiveShard)
    with shard.archive.open("rb") as file:
        for _, where in shard.entries:
            assert isinstance(where, Extent)
            DECODERS[name](where.read(file))
    return len(shard.entries)


def decode_all(path: Path, name: str, workers: int) -> None:
    """What a run without a reader would be: the same shards, in as many processes."""
    (source,) = open_sources([path])
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        print(sum(pool.imap_unordered(partial(decode, name), source.shards())), "decoded")


def network(pictures: int) -> float:
    """Seconds that the network alone takes for so many pictures, in batches as bulk has them."""
    batch = np.zeros((BATCH_PICTURES, 1, INK_SIZE, INK_SIZE), np.float32)
    reader = inkdigits.load(threads=1)
    reader.logits(batch)
    began = time.perf_counter()
    for _ in range(-(-pictures // BATCH_PICTURES)):
        reader.logits(batch)
    return time.perf_counter() - began


def network_rate(workers: int, pictures: int) -> float:
    """Pictures a second that the network alone reads, a process a worker."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return sum(pictures / seconds for seconds in pool.map(network, [pictures] * workers, 1))


def timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def rates(folder: Path, form: str, inks: np.ndarray, options: Any) -> dict[str, Any]:
    """Pictures a second of both, medians over the rounds."""
    archives = {}
    for number in (options.short, options.long):
        archives[number] = folder / f"{number}.tar"
        write_archive(archives[number], form, inks, number)
    workers = str(options.workers)
    commands: dict[str, Any] = {
        "predict": lambda path: [
            *(sys.executable, "-m", "inkdigits", "predict", str(path)),
            *("--out", str(folder / "out.csv"), "--workers", workers),
        ],
    }
    for decoder in DECODERS:
        commands[decoder] = lambda path, decoder=decoder: [
            *(sys.executable, __file__, "--decode", str(path)),
            *("--decoder", decoder, "--workers", workers),
        ]
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            short, long = (timed(command(archives[n])) for n in (options.short, options.long))
            found[name].append((options.long - options.short) / (long - short))
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {
        "form": form,
        "pictures_per_second": medians,
        "all": found,
        "share": medians["predict"] / medians["pillow"],
    }


def resident(pid: int) -> Iterator[int]:
    """Bytes resident of a process and all below it."""
    try:
        yield int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from resident(int(child))
    except (FileNotFoundError, ProcessLookupError):
        return  # it has just ended


def memory(folder: Path, inks: np.ndarray, number: int, workers: int) -> dict[str, Any]:
    """Peak memory of a run over an array, in MB, and how long it took."""
    path = folder / f"{number}.npy"
    write_array(path, inks, number)
    out = folder / "out.parquet"
    command = [sys.executable, "-m", "inkdigits", "predict", str(path)]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--out", str(out), "--workers", str(workers)], stdout=subprocess.DEVNULL
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(resident(process.pid)))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"predict ended with exit code {process.returncode}")
    seconds = time.perf_counter() - began
    path.unlink()
    return {
        "rows": number,
        "peak_mb": round(peak / 1e6, 1),
        "seconds": round(seconds, 1),
        "result_mb": round(out.stat().st_size / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--workers", type=int, default=available_cores())
    parser.add_argument("--short", type=int, default=2000, help="pictures of the short run")
    parser.add_argument("--long", type=int, default=20_000, help="pictures of the long run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--forms", nargs="*", default=list(FORMS), metavar="FORM")
    parser.add_argument("--few", type=int, default=10_000, help="rows of the small array")
    parser.add_argument("--many", type=int, default=1_000_000, help="rows of the large array")
    parser.add_argument("--only", choices=("rate", "memory"), help="one of the two measurements")
    parser.add_argument("--beside", help="what else the machine was doing, for the report")
    parser.add_argument("--json", type=Path, help="file for the figures; keeps those not asked for")
    parser.add_argument("--decode", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--decoder", choices=list(DECODERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decode:
        decode_all(options.decode, options.decoder, options.workers)
        return

    from inkdigits.data.mnist import (
        load_splits,  # imports torch, which decoding processes don't need
    )

    inks = load_splits(options.data).validation.inks.numpy()
    result: dict[str, Any] = {}
    if options.only != "memory":
        result["rate"] = measured_rates(inks, options)
    if options.only != "rate":
        result["memory"] = measured_memory(inks, options)
    if options.json:
        if options.json.is_file():
            # What wasn't measured this time stays: rates need a quiet machine, memory doesn't.
            result = json.loads(options.json.read_text()) | result
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    missed = [
        row["form"]
        for row in result.get("rate", {}).get("forms", ())
        if row["share"] < NEEDED_SHARE <= row["most"]
    ]
    growth = result.get("memory", {}).get("growth_mb", 0)
    if missed or growth > ALLOWED_GROWTH:
        raise SystemExit(f"missed: {missed}, memory {growth:+.1f} MB")


def measured_rates(inks: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    alone = network_rate(options.workers, options.short)
    print(f"the network alone: {alone:,.0f} pictures a second")
    head = f"{'predict':>9} {'Pillow':>9} {'own':>9} {'share':>6} {'most':>6}"
    print(f"{'PNG, pictures a second':<26} {head}", flush=True)
    forms = []
    for form in options.forms:
        with tempfile.TemporaryDirectory() as folder:
            row = rates(Path(folder), form, inks, options)
        read, pillow, own = row["pictures_per_second"].values()
        row["most"] = 1 / (1 / max(pillow, own) + 1 / alone) / pillow
        print(
            f"{form:<26} {read:>9,.0f} {pillow:>9,.0f} {own:>9,.0f} "
            f"{row['share']:>6.0%} {row['most']:>6.0%}",
            flush=True,
        )
        forms.append(row)
    return {
        "workers": options.workers,
        "pictures": [options.short, options.long],
        "rounds": options.rounds,
        "network_per_second": alone,
        "forms": forms,
        **circumstances(options),
    }


def measured_memory(inks: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    print(f"{'rows':>10}  peak MB  seconds")
    runs = []
    for number in (options.few, options.many):
        with tempfile.TemporaryDirectory() as folder:
            row = memory(Path(folder), inks, number, options.workers)
        print(f"{number:>10,}  {row['peak_mb']:>7.1f}  {row['seconds']:>7.1f}", flush=True)
        runs.append(row)
    growth = round(runs[1]["peak_mb"] - runs[0]["peak_mb"], 1)
    print(f"memory {growth:+.1f} MB, allowed {ALLOWED_GROWTH:+}")
    return {
        "workers": options.workers,
        "runs": runs,
        "growth_mb": growth,
        **circumstances(options),
    }


def circumstances(options: argparse.Namespace) -> dict[str, Any]:
    return {"beside": options.beside, "hardware": hardware(), "versions": versions()}


if __name__ == "__main__":
    main()
