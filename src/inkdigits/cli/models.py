"""The commands for a folder of models: models list, show, compare, promote, rollback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inkdigits.cli import options
from inkdigits.cli.options import answer, option, say
from inkdigits.errors import RegistryError

if TYPE_CHECKING:
    from inkdigits.evaluation.gate import Outcome
    from inkdigits.model.registry import Registry
    from inkdigits.reader import DigitReader

_MODELS = option("--models folder", "Folder with the model versions.", options.FOLDER, "models")
_GATE = option("--gate gate_path", "TOML file with requirements for a new model.", options.FILE)
_BY = "Name of the person who {} the model, for the promotion record.  [default: the user]"


@click.group()
def models() -> None:
    """List, compare, promote and roll back models.

    When a service with MODEL_PATH=models/current receives SIGHUP, it loads the promoted model. With
    INKDIGITS_WATCH=on, the service loads the model automatically. No request fails because of
    the change.
    """


@models.command("list")
@_MODELS
@options.JSON
def list_models(folder: Path, *, as_json: bool) -> None:
    """List the model versions in the folder --models. A star marks the current version."""
    registry = _registry(folder)
    versions = registry.versions()
    if as_json:
        rows = [
            {
                "name": one.name,
                "model_version": one.metadata and one.metadata.model_version,
                "current": one.is_current,
                "problem": one.problem,
            }
            for one in versions
        ]
        answer({"models": rows, "previous": registry.previous}, "", as_json=True)
        return
    if not versions:
        say(f"{folder} contains no model; inkdigits calibrate --out {folder}/NAME makes one")
    width = max((len(one.name) for one in versions), default=0)
    for one in versions:
        described = one.problem if one.metadata is None else one.metadata.model_version
        click.echo(f"{'*' if one.is_current else ' '} {one.name:<{width}}  {described}")


@models.command()
@click.argument("name")
@_MODELS
def show(name: str, folder: Path) -> None:
    """Show the metadata of a version as JSON."""
    version = _registry(folder).version(name)
    if version.metadata is None:
        raise RegistryError(f"{version.name} cannot be used: {version.problem}")
    from dataclasses import asdict

    content: dict[str, Any] = {"name": version.name, "current": version.is_current}
    click.echo(json.dumps(content | asdict(version.metadata), indent=2))


@models.command()
@click.argument("a")
@click.argument("b")
@options.SOURCES
@options.PATTERN
@_GATE
@_MODELS
@options.JSON
def compare(
    a: str,
    b: str,
    sources: tuple[str, ...],
    pattern: str | None,
    gate_path: Path | None,
    folder: Path,
    *,
    as_json: bool,
) -> None:
    """Compare model B with model A on the same labelled pictures.

    A and B may each be a version in the folder --models, the path of an artifact, "current" or
    "shipped". With --gate, the gate specifies the pictures. The exit code is 1 if B does not pass
    the gate.
    """
    from inkdigits.data.labelled import describe_left_out, read_labelled
    from inkdigits.evaluation.compare import compare as compare_models
    from inkdigits.evaluation.gate import run_gate

    if bool(sources) == (gate_path is not None):
        raise click.UsageError("name the labelled pictures with --data, or a gate with --gate")
    if pattern and gate_path:
        raise click.UsageError("--pattern needs --data; a gate states its own patterns")
    first, second = (_reader(folder, name) for name in (a, b))
    sizes = [_artifact(folder, name).stat().st_size / 1e6 for name in (a, b)]
    if gate_path is not None:
        report = say if as_json else click.echo
        outcome = run_gate(gate_path, first, second, sizes[1], report)
        if as_json:
            click.echo(json.dumps(outcome.to_record()))
        _require(outcome, gate_path, second)
        report(f"{second.model_version} passes {gate_path}")
        return
    found = compare_models(first, second, read_labelled(sources, pattern=pattern))
    describe_left_out(found.left_out, say)
    times, versions = found.milliseconds, found.versions
    text = (
        f"A is {versions[0]}, {times[0]:.2f} ms per picture, {sizes[0]:.2f} MB\n"
        f"B is {versions[1]}, {times[1]:.2f} ms per picture, {sizes[1]:.2f} MB\n\n{found.table()}"
    )
    answer({**found.to_dict(), "megabytes": sizes}, text, as_json=as_json)


@models.command()
@click.argument("name")
@_GATE
@option("--without-gate", "Promote the model without a gate.", is_flag=True)
@option("--by", _BY.format("promotes"))
@_MODELS
def promote(
    name: str, gate_path: Path | None, by: str | None, folder: Path, *, without_gate: bool
) -> None:
    """Make a version the current model if it passes the gate.

    The default gate is gate.toml in the folder of the models. The command compares the current
    model and the new model on the pictures that the gate specifies. Before the first promotion, the
    current model is the shipped model.
    """
    import msgspec

    from inkdigits.evaluation.gate import read_gate, run_gate

    if gate_path and without_gate:
        raise click.UsageError("use either --gate or --without-gate, not both")
    registry = _registry(folder)
    version = registry.version(name)
    if version.is_current:
        raise RegistryError(f"{version.name} is already the current model")
    path = gate_path or folder / "gate.toml"
    record: dict[str, Any] = {"gate": None, "without_gate": without_gate}
    if not without_gate:
        if not path.is_file():
            raise RegistryError(
                f"there is no gate at {path}, so nothing was promoted; write a gate, or use "
                "--without-gate"
            )
        current = "shipped" if registry.current is None else "current"
        new, size = _reader(folder, version.name), version.path.stat().st_size / 1e6
        outcome = run_gate(path, _reader(folder, current), new, size, say)
        _require(outcome, path, new)
        say(f"{new.model_version} passes {path}")
        record["gate"] = outcome.to_record()
        watch = read_gate(path).watch
        record["watch"] = msgspec.to_builtins(watch)
    change = registry.promote(version.name, record, by)
    click.echo(f"{version.name} ({change['model_version']}) is the current model of {folder} now")


@models.command()
@option("--reason", "Reason for the rollback, for the promotion record.", default="")
@option("--by", _BY.format("rolls back"))
@_MODELS
def rollback(reason: str, by: str | None, folder: Path) -> None:
    """Make the previous version the current model again."""
    change = _registry(folder).rollback({"reason": reason}, by)
    click.echo(f"{change['to']} ({change['model_version']}) is the current model of {folder} again")


def _registry(folder: Path) -> Registry:
    from inkdigits.model.registry import Registry

    if not folder.is_dir():
        raise RegistryError(
            f"the folder {folder} does not exist; name the folder of models with --models, or make "
            f"one with inkdigits calibrate --out {folder}/NAME"
        )
    return Registry(folder)


def _artifact(folder: Path, name: str) -> Path:
    from inkdigits.model.artifact import ARTIFACT_NAME, shipped_artifact
    from inkdigits.model.registry import Registry

    if name == "shipped":
        return shipped_artifact()
    path = Path(name)
    if path.exists():
        return path / ARTIFACT_NAME if path.is_dir() else path
    return Registry(folder).version(name).path


def _reader(folder: Path, name: str) -> DigitReader:
    from inkdigits.reader import load

    return load(_artifact(folder, name))


def _require(outcome: Outcome, path: Path, model: DigitReader) -> None:
    if outcome.failures:
        raise RegistryError(
            f"{model.model_version} does not pass {path}: {'; '.join(outcome.failures)}"
        )
