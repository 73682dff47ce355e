"""How fast does `inkdigits predict --out` read, beside decoding alone, and in how much memory?

Rate: pictures in a TAR archive are read by `predict --out`, and only decoded by Pillow in as many
processes, in turns. A short and a long run are timed; the rate is that of the pictures which the
long run has more, so the start is not counted.

Memory: the peak resident memory of all processes for an array of few rows and of many, sampled
every 20 ms. Pages that processes share count once per process.

Ray: a cluster of three nodes on this machine reads a ZIP and a TAR archive, --long pictures in all.
The command is killed and resumed, then a process that reads and a node are killed. The table must
be, byte for byte, that of a run without Ray.

    python benchmarks/bulk.py --data data [--only rate|memory|ray] [--json benchmarks/bulk.json]
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from results import fail, options, write
from service import tree
from serving import canvas_png

from inkdigits.settings import available_cores

GROWTH_LIMIT_MB = 16
"""What an allocator keeps varies by about as much."""
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def grey_png(ink: np.ndarray, size: int) -> bytes:
    """Return a digit as a grey PNG, light on dark."""
    buffer = io.BytesIO()
    Image.fromarray(ink).resize((size, size), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


FORMS: dict[str, Callable[[np.ndarray], bytes]] = {
    "280x280 RGBA, opaque": lambda ink: canvas_png(ink, transparent=False),
    "280x280 RGBA, transparent": lambda ink: canvas_png(ink, transparent=True),
    "280x280 grey": lambda ink: grey_png(ink, 280),
    "28x28 grey": lambda ink: grey_png(ink, 28),
}


def write_archive(path: Path, form: str, inks: np.ndarray, number: int) -> None:
    """Write so many pictures; the digits repeat if there are fewer."""
    encoded = [FORMS[form](ink) for ink in inks[:number]]
    with tarfile.open(path, "w") as archive:
        for i in range(number):
            content = encoded[i % len(encoded)]
            member = tarfile.TarInfo(f"{i:08}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def decode(job: tuple[Path, list[tuple[int, int]]]) -> int:
    """Decode the pictures at these offsets, of these sizes, and return how many there are."""
    path, extents = job
    with path.open("rb") as file:
        for offset, size in extents:
            file.seek(offset)
            Image.open(io.BytesIO(file.read(size))).load()
    return len(extents)


def decode_all(path: Path, workers: int) -> None:
    """Decode an archive with Pillow in so many processes, 512 pictures at a time."""
    with tarfile.open(path) as archive:
        extents = [(member.offset_data, member.size) for member in archive]
    jobs = [(path, extents[start : start + 512]) for start in range(0, len(extents), 512)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        print(sum(pool.imap_unordered(decode, jobs)), "decoded")


def seconds_of(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def rates(folder: Path, form: str, inks: np.ndarray, chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the pictures per second of both, as medians over the rounds."""
    workers, numbers = ("--workers", str(chosen.workers)), (chosen.short, chosen.long)
    archives = [folder / f"{number}.tar" for number in numbers]
    for path, number in zip(archives, numbers, strict=True):
        write_archive(path, form, inks, number)
    predict = [sys.executable, "-m", "inkdigits", "predict", "--out", str(folder / "out.csv")]
    commands = {"predict": predict, "pillow": [sys.executable, __file__, "--decode"]}
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(chosen.rounds):
        for name, command in commands.items():
            short, long = (seconds_of([*command, str(path), *workers]) for path in archives)
            found[name].append((chosen.long - chosen.short) / (long - short))
    medians = {name: statistics.median(values) for name, values in found.items()}
    share = medians["predict"] / medians["pillow"]
    return {"form": form, "pictures_per_second": medians, "share": share, "all": found}


def memory(folder: Path, inks: np.ndarray, number: int, workers: int) -> dict[str, Any]:
    """Return the peak memory of a run over an array of so many rows."""
    path, out = folder / f"{number}.npy", folder / "out.parquet"
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (number, 28, 28))
    for start in range(0, number, len(inks)):
        array[start : start + len(inks)] = inks[: number - start]
    array.flush()
    command = [sys.executable, "-m", "inkdigits", "predict", str(path), "--out", str(out)]
    began, peak = time.perf_counter(), 0.0
    process = subprocess.Popen([*command, "--workers", str(workers)], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        total = 0
        for pid in tree(process.pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        peak = max(peak, total * PAGE_MB)
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"predict ended with exit status {process.returncode}")
    seconds = time.perf_counter() - began
    path.unlink()
    return {"rows": number, "peak_mb": round(peak, 1), "seconds": round(seconds, 1)}


def parts_until(process: subprocess.Popen[bytes], out: Path, number: int) -> None:
    """Wait until a run has so many parts."""
    folder = out.with_name(f"{out.name}.parts")
    while process.poll() is None and len(list(folder.glob("*.part"))) < number:
        time.sleep(0.05)
    if process.poll() is not None:
        raise SystemExit(f"predict ended with {process.returncode} before {number} parts")


def on_ray(folder: Path, inks: np.ndarray, number: int) -> dict[str, Any]:
    """Read on a cluster whose parts are killed, and without one; compare the tables."""
    from ray.cluster_utils import Cluster

    write_archive(folder / "a.tar", "28x28 grey", inks, number // 2)
    with tarfile.open(folder / "a.tar") as tar, zipfile.ZipFile(folder / "b.zip", "w") as archive:
        for member in tar:
            archive.writestr(member.name, tar.extractfile(member).read())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    here, there = folder / "here.parquet", folder / "there.parquet"
    predict = [sys.executable, "-m", "inkdigits", "predict", f"{folder}/a.tar", f"{folder}/b.zip"]
    command = [*predict, "--out", str(there), "--engine", "ray", "--address", cluster.address]
    shards = number // 512
    driver = subprocess.Popen(command)
    parts_until(driver, there, shards // 5)
    driver.kill()
    driver.wait()
    began = time.perf_counter()
    driver = subprocess.Popen([*command, "--resume"])
    parts_until(driver, there, 2 * shards // 5)
    readers = (
        pid
        for pid in tree(os.getpid())
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_call")
    )
    os.kill(next(readers), signal.SIGKILL)
    parts_until(driver, there, 3 * shards // 5)
    cluster.remove_node(nodes[0], allow_graceful=False)
    if driver.wait():
        raise SystemExit(f"predict --engine ray ended with {driver.returncode}")
    seconds = time.perf_counter() - began
    cluster.shutdown()
    subprocess.run([*predict, "--out", str(here)], check=True)
    same = here.read_bytes() == there.read_bytes()
    return {"pictures": number, "same": same, "seconds": round(seconds, 1)}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--workers", type=int, default=available_cores())
    parser.add_argument("--short", type=int, default=2000, help="pictures of the short run")
    parser.add_argument("--long", type=int, default=20_000, help="pictures of the long run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--forms", nargs="*", default=list(FORMS), metavar="FORM")
    parser.add_argument("--few", type=int, default=10_000, help="rows of the small array")
    parser.add_argument("--many", type=int, default=1_000_000, help="rows of the large array")
    parser.add_argument(
        "--only", choices=("rate", "memory", "ray"), help="one measurement; ray only by name"
    )
    parser.add_argument("--decode", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.decode:
        decode_all(chosen.decode, chosen.workers)
        return
    from inkdigits.data.mnist import load_splits  # It imports torch, which decoding does not need.

    inks = load_splits(chosen.data, by="pictures").validation.inks.numpy()
    # A part that is not measured keeps its last figures.
    result = json.loads(chosen.json.read_text()) if chosen.json and chosen.json.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        if chosen.only == "ray":
            result["ray"] = on_ray(Path(folder), inks, chosen.long)
        if chosen.only in ("rate", None):
            result["rate"] = [rates(Path(folder), form, inks, chosen) for form in chosen.forms]
        if chosen.only in ("memory", None):
            rows = (chosen.few, chosen.many)
            runs = [memory(Path(folder), inks, number, chosen.workers) for number in rows]
            growth = round(runs[1]["peak_mb"] - runs[0]["peak_mb"], 1)
            result["memory"] = {"runs": runs, "growth_mb": growth}
    result |= {"workers": chosen.workers, "pictures": [chosen.short, chosen.long]}
    print(json.dumps(result, indent=2))
    write(chosen.json, result)
    growth = result.get("memory", {}).get("growth_mb", 0)
    fail(["the table read on Ray is another"] * (not result.get("ray", {}).get("same", True)))
    fail([f"memory grew by {growth} MB with the rows"] * (growth > GROWTH_LIMIT_MB))


if __name__ == "__main__":
    main()
