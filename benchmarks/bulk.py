"""Does `inkdigits predict --out` read each picture once, in memory that does not grow?

An array of --many rows is read once, and once more by commands that are killed twice, with all
their processes, and resumed. The two tables must be the same byte for byte. The peak resident
memory of all processes is compared with that of an array of --few rows; it is sampled every 0.1 s,
and pages that processes share count once per process.

    python benchmarks/bulk.py --data data [--json benchmarks/bulk.json]
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from results import fail, options, write
from service import tree

from inkdigits.batch.sources import SHARD_PICTURES, Source, shards_of
from inkdigits.settings import available_cores

GROWTH_LIMIT = 0.10  # share of the memory by which an allocator's remains may differ
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def digits_of(data: Path) -> np.ndarray:
    """Return the first digits of MNIST's training files, as (5120, 28, 28)."""
    shards = shards_of([Source(next(data.rglob("train-images-idx3-ubyte*")))])
    digits = (one for shard in islice(shards, 10) for one in shard.pictures())
    return np.stack(list(digits))


def predict(*arguments: object) -> subprocess.Popen[bytes]:
    """Start a run as the leader of a process group."""
    command = [sys.executable, "-m", "inkdigits", "predict", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def finished(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for a run, and return its seconds and the peak memory of its processes."""
    began, peak = time.perf_counter(), 0
    while process.poll() is None:
        # A process may end in between.
        with suppress(FileNotFoundError, ProcessLookupError):
            files = [Path(f"/proc/{pid}/statm") for pid in tree(process.pid)]
            peak = max(peak, sum(int(path.read_text().split()[1]) for path in files))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"predict ended with exit status {process.returncode}")
    return {"peak_mb": round(peak * PAGE_MB, 1), "seconds": round(time.perf_counter() - began, 1)}


def parts_until(process: subprocess.Popen[bytes], out: Path, number: float) -> None:
    """Wait until a run has so many parts."""
    folder = out.with_name(f"{out.name}.parts")
    while process.poll() is None and len(list(folder.glob("*.part"))) < number:
        time.sleep(0.1)
    if process.poll() is not None:
        raise SystemExit(f"predict ended with {process.returncode} before {number} parts")


def local(folder: Path, inks: np.ndarray, few: int, many: int) -> dict[str, Any]:
    """Read an array at once and in three attempts; compare tables, and memory with a small one."""
    small, large = folder / "small.npy", folder / "large.npy"
    np.save(small, np.resize(inks, (few, 28, 28)))
    np.save(large, np.resize(inks, (many, 28, 28)))
    once, thrice = folder / "once.parquet", folder / "thrice.parquet"
    runs = [{"rows": few} | finished(predict(small, "--out", folder / "small.parquet"))]
    runs += [{"rows": many} | finished(predict(large, "--out", once))]
    for share in (0.3, 0.6):
        run = predict(large, "--out", thrice)
        parts_until(run, thrice, share * many / SHARD_PICTURES)
        os.killpg(run.pid, signal.SIGKILL)  # with its processes, as a power failure would
        run.wait()
    finished(predict(large, "--out", thrice))
    growth = round(runs[1]["peak_mb"] / runs[0]["peak_mb"] - 1, 4)
    same = once.read_bytes() == thrice.read_bytes()
    return {"runs": runs, "growth": growth, "kills": 2, "same": same}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--few", type=int, default=10_000, help="rows of the small array")
    parser.add_argument("--many", type=int, default=1_000_000, help="rows of the large array")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = local(Path(folder), digits_of(chosen.data), chosen.few, chosen.many)
    result = {"local": found, "workers": available_cores()}
    print(json.dumps(result, indent=2))
    write(chosen.json, result)
    fail(["the tables differ"] * (not found["same"]))
    fail([f"memory grew by {found['growth']:.1%}"] * (found["growth"] > GROWTH_LIMIT))


if __name__ == "__main__":
    main()
