"""Does `inkdigits predict --out` read each picture once, in memory that does not grow?

Local: an array of --many rows is read once from start to end, and once more by commands that are
killed twice, with all their processes, and resumed. The two tables must be the same byte for byte.
The peak resident memory of all processes is compared with that of an array of --few rows; it is
sampled every 0.1 s, and pages that processes share count once per process.

Ray: a cluster of three nodes on this machine reads a ZIP and a TAR archive and a Parquet table,
--pictures in all. The command is killed and resumed, then a process that reads and a node are
killed. The table must be, byte for byte, that of a run without Ray.

    python benchmarks/bulk.py --data data [--only local|ray] [--json benchmarks/bulk.json]
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from results import fail, options, write
from service import tree

from inkdigits.batch.sources import SHARD_PICTURES, open_sources
from inkdigits.settings import available_cores

GROWTH_LIMIT = 0.10
"""Share of the memory by which an allocator's remains may differ."""
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def digits_of(data: Path) -> np.ndarray:
    """Return the first digits of MNIST's training files, as (5120, 28, 28)."""
    (source,) = open_sources([next(data.rglob("train-images-idx3-ubyte*"))])
    digits = (one for shard in islice(source.shards(), 10) for one in shard.pictures())
    return np.stack(list(digits))


def predict(*arguments: object) -> subprocess.Popen[bytes]:
    """Start a run as the leader of a process group."""
    command = [sys.executable, "-m", "inkdigits", "predict", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def finished(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for a run, and return its seconds and the peak memory of its processes."""
    began, peak = time.perf_counter(), 0.0
    while process.poll() is None:
        total = 0
        for pid in tree(process.pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        peak = max(peak, total * PAGE_MB)
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"predict ended with exit status {process.returncode}")
    seconds = time.perf_counter() - began
    return {"peak_mb": round(peak, 1), "seconds": round(seconds, 1)}


def parts_until(process: subprocess.Popen[bytes], out: Path, number: float) -> None:
    """Wait until a run has so many parts."""
    folder = out.with_name(f"{out.name}.parts")
    while process.poll() is None and len(list(folder.glob("*.part"))) < number:
        time.sleep(0.1)
    if process.poll() is not None:
        raise SystemExit(f"predict ended with {process.returncode} before {number} parts")


def killed(process: subprocess.Popen[bytes]) -> None:
    """Kill a run and its processes, as a power failure would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_array(path: Path, inks: np.ndarray, number: int) -> Path:
    """Write so many rows; the digits repeat if there are fewer."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (number, 28, 28))
    for start in range(0, number, len(inks)):
        array[start : start + len(inks)] = inks[: number - start]
    array.flush()
    return path


def local(folder: Path, inks: np.ndarray, few: int, many: int) -> dict[str, Any]:
    """Read an array at once and in three attempts; compare tables, and memory with a small one."""
    small, large = (write_array(folder / f"{n}.npy", inks, n) for n in (few, many))
    once, thrice = folder / "once.parquet", folder / "thrice.parquet"
    runs = [{"rows": few} | finished(predict(small, "--out", folder / "small.parquet"))]
    runs += [{"rows": many} | finished(predict(large, "--out", once))]
    print(json.dumps(runs), flush=True)
    for share, resume in ((0.3, ()), (0.6, ("--resume",))):
        run = predict(large, "--out", thrice, *resume)
        parts_until(run, thrice, share * many / SHARD_PICTURES)
        killed(run)
        print(f"killed at {share:.0%}", flush=True)
    finished(predict(large, "--out", thrice, "--resume"))
    growth = round(runs[1]["peak_mb"] / runs[0]["peak_mb"] - 1, 4)
    same = once.read_bytes() == thrice.read_bytes()
    return {"runs": runs, "growth": growth, "kills": 2, "same": same}


def write_containers(folder: Path, inks: np.ndarray, number: int) -> list[Path]:
    """Write so many PNG files into a TAR, a ZIP and a Parquet table, a third into each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded = []
    for ink in inks[:number]:
        buffer = io.BytesIO()
        Image.fromarray(ink).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    pictures = [(f"{i:08}.png", encoded[i % len(encoded)]) for i in range(number)]
    paths = [folder / name for name in ("a.tar", "b.zip", "c.parquet")]
    with tarfile.open(paths[0], "w") as tar, zipfile.ZipFile(paths[1], "w") as archive:
        for name, content in pictures[::3]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, content in pictures[1::3]:
            archive.writestr(name, content)
    pq.write_table(pa.table({"image": [content for _, content in pictures[2::3]]}), paths[2])
    return paths


def on_ray(folder: Path, inks: np.ndarray, number: int) -> dict[str, Any]:
    """Read on a cluster whose parts are killed, and without one; compare the tables."""
    from ray.cluster_utils import Cluster

    paths = write_containers(folder, inks, number)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    here, there = folder / "here.parquet", folder / "there.parquet"
    shards = number / SHARD_PICTURES
    command = [*paths, "--out", there, "--engine", "ray", "--address", cluster.address]
    driver = predict(*command)
    parts_until(driver, there, shards / 5)
    killed(driver)
    began = time.perf_counter()
    driver = predict(*command, "--resume")
    parts_until(driver, there, 2 * shards / 5)
    names = ((pid, Path(f"/proc/{pid}/cmdline").read_bytes()) for pid in tree(os.getpid()))
    readers = (pid for pid, name in names if name.startswith(b"ray::<lambda>"))
    os.kill(next(readers), signal.SIGKILL)
    parts_until(driver, there, 3 * shards / 5)
    cluster.remove_node(nodes[0], allow_graceful=False)
    finished(driver)
    seconds = time.perf_counter() - began
    cluster.shutdown()
    finished(predict(*paths, "--out", here))
    same = here.read_bytes() == there.read_bytes()
    killed_parts = ["driver", "process that reads", "node"]
    found = {"pictures": number, "nodes": 3, "killed": killed_parts, "same": same}
    return found | {"seconds_of_the_resumed_run": round(seconds, 1)}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--few", type=int, default=10_000, help="rows of the small array")
    parser.add_argument("--many", type=int, default=1_000_000, help="rows of the large array")
    parser.add_argument("--pictures", type=int, default=50_000, help="on Ray")
    parser.add_argument("--only", choices=("local", "ray"), default="local")
    chosen = parser.parse_args()
    inks = digits_of(chosen.data)
    # The part that is not measured keeps its last figures.
    result = json.loads(chosen.json.read_text()) if chosen.json and chosen.json.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        if chosen.only == "ray":
            found = on_ray(Path(folder), inks, chosen.pictures)
        else:
            found = local(Path(folder), inks, chosen.few, chosen.many)
    result |= {chosen.only: found, "workers": available_cores()}
    print(json.dumps(result, indent=2))
    write(chosen.json, result)
    fail(["the tables differ"] * (not found["same"]))
    growth = found.get("growth", 0)
    fail([f"memory grew by {growth:.1%} with the rows"] * (growth > GROWTH_LIMIT))


if __name__ == "__main__":
    main()
