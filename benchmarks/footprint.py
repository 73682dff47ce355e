"""What serving takes: size of the core install, time to the first answer, memory.

Installs the project into a new virtual environment, measures its folder, then starts the service
in it several times and measures from the start of the process to the first answer of POST
/predict, and the resident memory of all its processes after that.

    python benchmarks/footprint.py [--starts 7] [--json benchmarks/footprint.json]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from inkdigits.evaluation.environment import hardware, versions

REPOSITORY = Path(__file__).resolve().parent.parent
PICTURE = REPOSITORY / "docs" / "images" / "seven.png"
SIZE_LIMIT_MB = 250
START_LIMIT_S = 2.0


def folder_mb(folder: Path) -> float:
    """Megabytes (10^6 bytes) of the files in a folder, compiled bytecode included."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident_mb(group: int) -> float:
    """Resident megabytes of the processes of a group; memory that they share is counted once."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) == group:
                rollup = (process / "smaps_rollup").read_text()
                total += int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[1])
        except (ProcessLookupError, FileNotFoundError):
            continue  # it ended meanwhile
    return total * 1024 / 1e6


def first_answer(command: Path, data: Path) -> tuple[float, float]:
    """Seconds from starting the service to its first answer, and its resident megabytes then."""
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "HOME": str(data), "XDG_DATA_HOME": str(data)}
    content = PICTURE.read_bytes()
    started = time.perf_counter()
    service = subprocess.Popen(
        [command, "serve", "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while True:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/predict", content, {"Content-Type": "image/png"}
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    seconds = time.perf_counter() - started
                    assert json.load(answer)["prediction"] == 7
                    break
            except (ConnectionError, urllib.error.URLError):
                if service.poll() is not None or time.perf_counter() - started > 60:
                    raise
                time.sleep(0.005)
        return seconds, resident_mb(service.pid)
    finally:
        os.killpg(service.pid, signal.SIGTERM)
        service.wait(timeout=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        venv, data = Path(folder) / "venv", Path(folder) / "data"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [venv / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", REPOSITORY], check=True)
        size = folder_mb(venv)
        without_pip = size - sum(folder_mb(p) for p in venv.glob("lib/*/site-packages/pip"))
        runs = [first_answer(venv / "bin" / "inkdigits", data) for _ in range(options.starts)]
    seconds = [run[0] for run in runs]
    memory = [run[1] for run in runs]
    figures = {
        "install_mb": round(size, 1),
        "install_without_pip_mb": round(without_pip, 1),
        "first_answer_s": {
            "n": len(seconds),
            "median": round(statistics.median(seconds), 3),
            "min": round(min(seconds), 3),
            "max": round(max(seconds), 3),
        },
        "resident_mb_median": round(statistics.median(memory), 1),
        "hardware": hardware(),
        "versions": versions(),
    }
    print(
        f"core install      {size:6.1f} MB (limit {SIZE_LIMIT_MB}); {without_pip:.1f} without pip"
    )
    print(
        f"first answer      {figures['first_answer_s']['median']:6.2f} s median of {len(seconds)} "
        f"starts ({min(seconds):.2f} to {max(seconds):.2f}; limit {START_LIMIT_S:g})"
    )
    print(f"resident memory   {statistics.median(memory):6.1f} MB, all processes")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if size > SIZE_LIMIT_MB or statistics.median(seconds) > START_LIMIT_S:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
