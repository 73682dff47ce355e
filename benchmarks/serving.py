"""Our service against those that people would pick instead, on two cores, in one run.

Each contender is installed into an environment of its own and started as its documentation
recommends (benchmarks/contest/contenders.py, benchmarks/peers/). In each round they take turns:
started, asked for a first answer, checked with pictures of every digit, warmed up, loaded by 1, 8
and 64 kept-alive connections, checked again, weighed, stopped. All have the same network and get
the same 280x280 RGBA PNGs in base64, half of them transparent.

- as people write it: Pillow and NumPy, ONNX Runtime or PyTorch, under the server in question;
- the serving layer alone: the three strongest of those with our own DigitReader;
- the floor: a constant answer from Flask under our own server's configuration.

wrk makes the load, on the same cores, and compares every answer with the digit that was sent; so
all pictures of one load are of one digit, another for each. What fails or is wrong is counted, and
isn't in the requests a second. Needs Linux, wrk, and Java for TorchServe.

    python benchmarks/serving.py --data data [--quick] [--only NAME,NAME] [--torch torch==2.13.0]

Exit code 1 if an aim is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from contest import load, pictures, report, verdicts
from contest.contenders import FLOOR, OURS, PEERS, TORCHSERVE, Contender
from contest.environments import (
    REPOSITORY,
    Environment,
    InstallError,
    add_ours,
    default_folder,
    prepare,
    source_digest,
)
from contest.running import Server, ServerError, adopt_orphans

from inkdigits.evaluation.environment import hardware, versions
from inkdigits.model.artifact import read_artifact, shipped_artifact
from inkdigits.reader import load as load_reader

CORES = 2
CHART = REPOSITORY / "docs" / "images" / "serving.png"
BENCHMARKS = Path(__file__).parent


class Contest:
    """The rounds so far.

    Args:
        options: of the command line.
        work: a folder for weights and logs.
    """

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self._options = options
        self._work = work
        self.skipped: dict[str, str] = {}
        self.contenders: dict[str, Contender] = {}
        self._environments: dict[str, Environment] = {}
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self._set_up: set[str] = set()
        self._rounds_before = 0

    def get_ready(self) -> None:
        """Write the network for all, and make their pictures."""
        self._weights = write_weights(self._work)
        self.pictures = pictures.make(load_reader(), self._options.data)

    def go_on(self, path: Path) -> None:
        """Take over the rounds of an earlier call.

        Raises:
            SystemExit: they are of another state of the source.
        """
        known = json.loads(path.read_text())
        if known["source"] != source_digest():
            raise SystemExit(f"{path} is of another state of the source")
        self.runs = known["runs"]
        self.skipped = known["skipped"]
        self._rounds_before = max(len(runs) for runs in self.runs.values())

    def install(self) -> None:
        """Install whoever is asked for; who can't be is noted and left out."""
        for one in (OURS, FLOOR, *PEERS):
            if self._options.only and one.name not in self._options.only:
                continue
            wanted = tuple(self._options.torch if r == "torch" else r for r in one.requirements)
            if one is TORCHSERVE and shutil.which("java") is None:
                self.skip(one.name, "it needs Java, which isn't installed")
                continue
            try:
                where = OURS.name if one is FLOOR else one.name
                found = prepare(self._options.envs, where, wanted)
            except InstallError as error:
                self.skip(one.name, str(error))
                continue
            self.contenders[one.name] = one
            self._environments[one.name] = found

    def run(self) -> None:
        """All rounds."""
        for number in range(self._rounds_before, self._rounds_before + self._options.rounds):
            # Who comes first changes, since a machine may become slower as it warms.
            names = [n for n, one in self.contenders.items() if one.group != "serving layer"]
            for name in names if number % 2 == 0 else reversed(names):
                self._measure(name, number)
            for name in self._layers():
                self._measure(name, number)

    def _layers(self) -> list[str]:
        """The strongest peers of the first round with our reader, the same in every round."""
        firsts = {
            name: verdicts.medians(self.runs[name][:1])
            for name, one in self.contenders.items()
            if one.group == "as written" and self.runs.get(name)
        }
        names = []
        for name in verdicts.strongest(firsts):
            one = self.contenders[name].with_our_reader()
            try:
                add_ours(self._environments[name].folder)
            except InstallError as error:
                self.skip(one.name, str(error))
                continue
            self.contenders.setdefault(one.name, one)
            self._environments[one.name] = self._environments[name]
            names.append(one.name)
        return names

    def _measure(self, name: str, number: int) -> None:
        if name in self.skipped:
            return
        one = self.contenders[name]
        options = self._options
        try:
            with Server(
                one,
                self._environments[name],
                self._work / name.replace(" ", ""),
                self._weights,
                self.pictures,
                fresh=name not in self._set_up,
            ) as server:
                self._set_up.add(name)
                wrong = server.check()
                found: dict[str, Any] = {"first_answer_s": server.first_answer_s, "loads": {}}
                load.run(one, server.port, self.pictures.of(7), 7, 8, options.warm_up)
                for i, connections in enumerate(load.CONNECTIONS):
                    digit = (number * len(load.CONNECTIONS) + i) % 10
                    found["loads"][str(connections)] = load.run(
                        one,
                        server.port,
                        self.pictures.of(digit),
                        digit,
                        connections,
                        options.seconds,
                    )
                found["memory_mb"] = server.memory_mb()
                found["wrong"] = wrong + server.check()
        except (ServerError, load.LoadError) as error:
            self.skip(name, str(error))
            return
        self.runs.setdefault(name, []).append(found)
        rates = [f"{one['requests_per_second']:,.0f}" for one in found["loads"].values()]
        failed = found["wrong"] + sum(one["failed"] for one in found["loads"].values())
        print(f"round {number + 1}  {name:<28} {' / '.join(rates)} /s, {failed} failed", flush=True)

    def skip(self, name: str, why: str) -> None:
        """Leave a contender out from here on."""
        self.skipped[name] = why
        self.contenders.pop(name, None)
        print(f"{name} is left out: {why}", file=sys.stderr, flush=True)

    def results(self) -> dict[str, dict[str, Any]]:
        """What came of it, by contender."""
        return {
            name: {
                **verdicts.medians(self.runs[name]),
                "group": one.group,
                "arrangement": one.arrangement,
                "site_packages_mb": self._environments[name].site_packages_mb,
                "versions": self._environments[name].versions,
            }
            for name, one in self.contenders.items()
            if self.runs.get(name)
        }


def write_weights(folder: Path) -> dict[str, Path]:
    """The shipped artifact as ONNX, and its network as TorchScript, by kind.

    The network is whichever class the artifact names; so peers need nothing of ours to load it.
    """
    import torch

    from inkdigits.model.backends import TorchBackend

    onnx, script = folder / "network.onnx", folder / "network.pt"
    onnx.write_bytes(shipped_artifact().read_bytes())
    # It has built the network, and compared each parameter's name and shape.
    network = TorchBackend(read_artifact(), "cpu")._model
    with torch.inference_mode(), warnings.catch_warnings():
        # Deprecated, but what can be loaded without the network's class.
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.trace(network, torch.zeros(2, 1, 28, 28)).save(str(script))
    return {"onnx": onnx, "torch": script}


def wrk_version() -> str:
    """wrk's own name and version."""
    done = subprocess.run([load.wrk(), "-v"], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("[")[0].strip()


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's options; ``--quick`` is one round of a second each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [one.name for one in (OURS, FLOOR, *PEERS)]
    parser.add_argument("--data", type=Path, help="folder of MNIST; else scikit-learn's digits")
    parser.add_argument("--envs", type=Path, default=default_folder(), help="for environments")
    parser.add_argument("--torch", default="torch", help="what pip is asked for, for PyTorch")
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each load")
    parser.add_argument("--warm-up", type=int, default=1, help="seconds before the first load")
    parser.add_argument("--quick", action="store_true", help="one round of a second a load")
    parser.add_argument("--add", action="store_true", help="more rounds to those in --json")
    parser.add_argument("--install-only", action="store_true")
    parser.add_argument("--markdown", action="store_true", help="the main figures for a document")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--chart", type=Path, nargs="*", default=[], help="PNG files to draw")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",") if options.only else []
    if unknown := sorted(set(options.only) - set(names)):
        parser.error(f"--only knows no {', '.join(unknown)}")
    if options.quick:
        options.rounds, options.seconds = 1, 1
    if min(options.rounds, options.seconds, options.warm_up) < 1:
        parser.error("--rounds, --seconds and --warm-up must be 1 or more")
    if options.add and not (options.json and options.json.is_file()):
        parser.error("--add needs the --json of an earlier call")
    return options


def main() -> None:
    options = options_of()
    load.wrk()
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        contest = Contest(options, Path(folder))
        if options.add:
            contest.go_on(options.json)
        contest.install()
        if options.install_only:
            return
        contest.get_ready()
        # Servers and wrk share two cores, on a larger machine too.
        cores = sorted(os.sched_getaffinity(0))[:CORES]
        os.sched_setaffinity(0, cores)
        adopt_orphans()
        # So that a server is ended with us when we are.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
        contest.run()
    results = contest.results()
    if not results:
        raise SystemExit("nobody was measured")
    judged = verdicts.judge(results, {n: one.group for n, one in contest.contenders.items()})
    print("\n" + report.table(results))
    costs = [at["client_cpu_us"] for one in results.values() for at in one["loads"].values()]
    print(f"\nwrk took {statistics.median(costs):.0f} microseconds of CPU a request in the median")
    print("\n" + report.list_of(judged))
    if options.markdown:
        print("\n" + report.markdown(results))
    machine = hardware()
    rounds = max(one["rounds"] for one in results.values())
    if options.json:
        content = {
            "seconds_per_load": options.seconds,
            "pictures": contest.pictures.describe(),
            "results": results,
            "verdicts": [
                {"aim": one.aim, "found": one.found, "is_met": one.is_met} for one in judged
            ],
            "skipped": contest.skipped,
            "hardware": machine,
            "versions": {**versions(), "wrk": wrk_version()},
            "source": source_digest(),
            "runs": contest.runs,
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    if options.chart:
        caption = (
            f"{len(cores)} cores of {machine['cpu']}, which the load's client shares; "
            f"medians of {rounds} x {options.seconds} s"
        )
        report.draw(results, caption, options.chart)
    if not all(one.is_met for one in judged):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
