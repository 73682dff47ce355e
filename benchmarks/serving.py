"""How fast do `inkdigits serve` and the arrangements that people would build themselves answer?

All arrangements use the same network and read the same 280x280 RGBA PNGs in base64, on two cores
that wrk shares. Each round starts every arrangement in turn, checks its answer to each picture, and
loads it over 1, 8 and 64 connections with the ten digits in turn. The figures are medians over the
rounds: right answers per second, CPU microseconds per request of the process tree, p99 latency and
resident memory (shared pages counted once). What is not installed is skipped and named.

    python benchmarks/serving.py --data data [--peers .venv/bin] [--only NAME …]
        [--json benchmarks/serving.json] [--chart docs/images/serving.png]

`--peers` is the folder of the programs of an environment with what `benchmarks/peers/` imports.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import reading
from PIL import Image
from results import REPOSITORY, fail, options, write
from service import Service, free_port, started

import inkdigits
from inkdigits.model.artifact import read_artifact, shipped_artifact
from inkdigits.model.backends import OnnxBackend

BENCHMARKS = REPOSITORY / "benchmarks"
PROGRAMS = Path(sys.executable).parent
CORES = 2
CONNECTIONS = (1, 8, 64)
SERVE = ("python", "-m", "inkdigits", "serve", "--port", "{port}")
FLASK = ("gunicorn", "flask_app:app", "--bind", "127.0.0.1:{port}")
# The first two are ours; benchmarks/peers/ has the applications of the others.
ARRANGEMENTS: dict[str, tuple[str, ...]] = {
    "inkdigits serve (page and log)": SERVE,
    "inkdigits serve --no-page (no log)": (*SERVE, "--no-page"),
    "Flask, Gunicorn 2x4": (*FLASK, "--workers", "2", "--threads", "4"),
    "FastAPI, Uvicorn x2": ("uvicorn", "fastapi_app:app", "--port", "{port}", "--workers", "2"),
    "LitServe x2": ("python", str(BENCHMARKS / "peers" / "litserve_app.py"), "{port}"),
    "BentoML x2": ("bentoml", "serve", "bentoml_app:Digits", "--port", "{port}"),
    "demo: Flask, Gunicorn, PyTorch": FLASK,
}
MODULES = ("inkdigits", "inkdigits", "flask", "fastapi", "litserve", "bentoml", "torch")
NEEDS = dict(zip(ARRANGEMENTS, MODULES, strict=True))


def canvas_png(ink: np.ndarray, *, transparent: bool) -> bytes:
    """Return a digit as a canvas sends it: 280x280 RGBA, black on white or on transparency."""
    large = np.asarray(Image.fromarray(ink).resize((280, 280), Image.Resampling.BICUBIC))
    shade, opacity = (large * 0, large) if transparent else (255 - large, large * 0 + 255)
    Image.fromarray(np.dstack([shade, shade, shade, opacity])).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def make_pictures(data: Path | None, each: int = 32) -> dict[int, list[bytes]]:
    """Return pictures per digit that both preprocessings read right, so that a fault is a server's.

    They are of MNIST's validation split. Without `data` they are one picture of a 7.
    """
    reader = inkdigits.load()
    plain = OnnxBackend(read_artifact(), 1, int8=False)  # without test-time augmentation, as peers
    if data is None:
        inks, labels = [reader.predict(REPOSITORY / "docs" / "images" / "seven.png").ink], [7]
    else:
        from inkdigits.data.mnist import load_splits

        part = load_splits(data, by="pictures").validation
        inks, labels = list(part.inks.numpy()), part.labels.tolist()
    found: dict[int, list[bytes]] = {}
    for ink, label in zip(inks, labels, strict=True):
        pngs = [canvas_png(ink, transparent=flag) for flag in (False, True)]
        peers = [int(plain.logits(reading.prepare(png)).argmax()) for png in pngs]
        is_right = peers == [p.digit for p in reader.predict_batch(pngs)] == [label, label]
        if is_right and len(found.setdefault(label, [])) < each:
            found[label] += pngs
    return found


def write_torchscript(path: Path) -> None:
    """Write the shipped network for the demo, as a file that needs no class of ours."""
    import torch

    from inkdigits.model.backends import TorchBackend

    network = TorchBackend(read_artifact(), "cpu")._model
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Tracing is deprecated.
        torch.jit.trace(network, torch.zeros(1, 1, 28, 28)).save(str(path))


def load(port: int, lines: list[str], connections: int, seconds: int) -> Any:
    """Return wrk's figures of one load; see load.lua."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(BENCHMARKS / "load.lua"), f"http://127.0.0.1:{port}", "--"]
    done = subprocess.run(
        [*command, "/dev/stdin"], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.rpartition("RESULT ")[2])


def wrong_answers(service: Service, lines: list[str]) -> int:
    """Return how many pictures, sent one by one, are not read as their digits."""
    ask = partial(service.wait_for, "POST", "/predict", kind="application/json")
    answers = [json.loads(ask(body=line[2:].encode())) for line in lines]
    return sum(a["prediction"] != int(line[0]) for a, line in zip(answers, lines, strict=True))


def measure(name: str, chosen: Any, pictures: dict[int, list[bytes]]) -> Any:
    """Start an arrangement, load it over each number of connections, and stop it."""
    is_ours = name.startswith("inkdigits")
    program, *arguments = ARRANGEMENTS[name]
    port = free_port()
    command = [str((PROGRAMS if is_ours else chosen.peers) / program)]
    command += [part.format(port=port) for part in arguments]
    variables = {"WEIGHTS": str(shipped_artifact()), "INKDIGITS_WORKERS": str(CORES)}
    if not is_ours:
        variables["PYTHONPATH"] = str(BENCHMARKS / "peers")
    if name.startswith("demo"):
        variables |= {"WEIGHTS": str(chosen.torchscript), "OMP_NUM_THREADS": "1"}
    found: dict[str, Any] = {}
    lines = [
        f"{digit} " + json.dumps({"image": base64.b64encode(png).decode()})
        for of_each in zip(*(pictures[digit] for digit in sorted(pictures)), strict=True)
        for digit, png in zip(sorted(pictures), of_each, strict=True)
    ]
    with started(command, port, **variables) as service:
        wrong = wrong_answers(service, lines)
        load(port, lines, 8, 1)
        for connections in CONNECTIONS:
            before = service.cpu_seconds()
            at = load(port, lines, connections, chosen.seconds)
            used = service.cpu_seconds() - before
            row = {"requests_per_second": (at["requests"] - at["failed"]) / at["seconds"]}
            row["cpu_us_per_request"] = 1e6 * used / max(1, at["requests"])
            row |= {"p99_ms": at["p99_ms"], "failed": at["failed"] + wrong}
            found[str(connections)] = row
        found["resident_mb"] = service.resident_mb()
    return found


def medians(rounds: list[Any]) -> dict[str, Any]:
    """Return the median over the rounds of each figure, and the sum of what failed."""
    result: dict[str, Any] = {"resident_mb": statistics.median(r["resident_mb"] for r in rounds)}
    for key in map(str, CONNECTIONS):
        result[key] = {k: statistics.median(r[key][k] for r in rounds) for k in rounds[0][key]}
        result[key]["failed"] = sum(r[key]["failed"] for r in rounds)
    return result


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw requests per second at 8 connections as bars, ours in colour."""
    from matplotlib.figure import Figure

    names = list(results)[::-1]
    figure = Figure(figsize=(7, 0.4 * len(names) + 0.7), layout="constrained")
    axes = figure.subplots()
    rates = [results[name]["8"]["requests_per_second"] for name in names]
    colours = ["#d9622b" if name.startswith("inkdigits") else "0.7" for name in names]
    bars = axes.barh(names, rates, color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("requests per second, 8 connections, two cores")
    figure.savefig(path, dpi=110)


def is_installed(name: str, chosen: Any) -> bool:
    folder = PROGRAMS if name.startswith("inkdigits") else chosen.peers
    command = [folder / "python", "-c", f"import {NEEDS[name]}"]
    has_module = subprocess.run(command, capture_output=True, check=False).returncode == 0
    return has_module and (folder / ARRANGEMENTS[name][0]).exists()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, help="folder of MNIST; without it one picture of a 7")
    parser.add_argument("--peers", type=Path, default=PROGRAMS, help="folder of their programs")
    parser.add_argument("--only", nargs="*", default=list(ARRANGEMENTS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="duration of each load")
    parser.add_argument("--chart", type=Path, help="PNG file to draw")
    chosen = parser.parse_args()
    assert shutil.which("wrk"), "wrk makes the load and is not installed: apt-get install wrk"
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    asked = [name for name in ARRANGEMENTS if any(part in name for part in chosen.only)]
    names = [name for name in asked if is_installed(name, chosen)]
    skipped = sorted(set(asked) - set(names))
    print(f"skipped, because they are not installed: {skipped}", file=sys.stderr)
    pictures = make_pictures(chosen.data)
    runs: dict[str, list[Any]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        chosen.torchscript = Path(folder) / "network.pt"
        if any(name.startswith("demo") for name in names):
            write_torchscript(chosen.torchscript)
        for number in range(chosen.rounds):
            # The order alternates, because a machine may become slower as it warms up.
            for name in names if number % 2 == 0 else names[::-1]:
                runs[name].append(measure(name, chosen, pictures))
    results = {name: medians(found) for name, found in runs.items()}
    print(json.dumps(results, indent=2))
    content = {"rounds": chosen.rounds, "seconds_per_load": chosen.seconds, "skipped": skipped}
    write(chosen.json, {**content, "results": results, "runs": runs})
    if chosen.chart:
        draw(results, chosen.chart)
    failed = [(n, c, r[str(c)]["failed"]) for n, r in results.items() for c in CONNECTIONS]
    fail([f"{n}: {count} failed at {c} connections" for n, c, count in failed if count])


if __name__ == "__main__":
    main()
