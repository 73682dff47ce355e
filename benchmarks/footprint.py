"""How large is the core install, how soon is its first answer, and how much memory does it take?

Installs the project into a new virtual environment, then starts `inkdigits serve` there several
times. Time is from the start of the process to the first answer of POST /predict; memory is that of
all processes after it, shared pages counted once.

    python benchmarks/footprint.py [--starts 7] [--json benchmarks/footprint.json]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import REPOSITORY, fail, options, write
from service import free_port, started

SIZE_LIMIT_MB = 250
START_LIMIT_S = 2.0


def folder_mb(folder: Path) -> float:
    """Return the megabytes (10^6 bytes) of the files in a folder, bytecode included."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def first_answer(program: Path) -> tuple[float, float]:
    """Return the seconds to the first answer, and the resident megabytes then."""
    port = free_port()
    picture = (REPOSITORY / "docs" / "images" / "seven.png").read_bytes()
    began = time.perf_counter()
    with started([str(program), "serve", "--port", str(port)], port, PYTHONPATH="") as service:
        answer = json.loads(service.wait_for("POST", "/predict", picture, "image/png"))
        seconds = time.perf_counter() - began
        assert answer["prediction"] == 7
        return seconds, service.resident_mb()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--starts", type=int, default=7)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [venv / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", REPOSITORY], check=True)
        size = folder_mb(venv)
        pip_mb = sum(folder_mb(path) for path in venv.glob("lib/*/site-packages/pip"))
        runs = [first_answer(venv / "bin" / "inkdigits") for _ in range(chosen.starts)]
    seconds = [run[0] for run in runs]
    median = round(statistics.median(seconds), 3)
    first = {"n": len(seconds), "median": median, "min": min(seconds), "max": max(seconds)}
    figures = {"install_mb": round(size, 1), "install_without_pip_mb": round(size - pip_mb, 1)}
    figures["first_answer_s"] = {name: round(value, 3) for name, value in first.items()}
    figures["resident_mb_median"] = round(statistics.median(run[1] for run in runs), 1)
    print(json.dumps(figures, indent=2))
    write(chosen.json, figures)
    wrong = [f"install of {size:.0f} MB; the limit is {SIZE_LIMIT_MB}"] * (size > SIZE_LIMIT_MB)
    fail([*wrong, *[f"first answer after {median} s"] * (median > START_LIMIT_S)])


if __name__ == "__main__":
    main()
