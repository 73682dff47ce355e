"""The command that reads pictures, a few to the terminal or very many to a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from inkdigits.cli import options
from inkdigits.cli.bulk import bulk_options, end_with_failures, write_table
from inkdigits.cli.options import answer, printable, say
from inkdigits.cli.pictures import expand, opened, stem_of, summary
from inkdigits.errors import ImageError

if TYPE_CHECKING:
    from inkdigits.batch.run import Work
    from inkdigits.decision.prediction import Prediction
    from inkdigits.decision.risk import AcceptThreshold
    from inkdigits.reader import DigitReader

_FILES_PER_BATCH = 64

Answer: TypeAlias = "tuple[Prediction | ImageError, dict[str, Any]]"
"""What was read in a picture, and what else there is to say of it."""


@click.command()
@options.PICTURES
@options.MODEL
@options.device("Read with PyTorch on this device")
@options.risk()
@click.option(
    "--probabilities",
    is_flag=True,
    help="Show the runner-up and all ten probabilities in the table.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Name the runner-up, and write the ink and a map of the evidence for the digit.",
)
@click.option(
    "--explain-to",
    type=options.FOLDER,
    default="outputs/explanations",
    help="Folder for the pictures of --explain.",
)
@options.JSON
@bulk_options
def predict(
    names: Sequence[str],
    model_path: Path | None,
    device: Any,
    risk: float | None,
    explain_to: Path,
    *,
    probabilities: bool,
    explain: bool,
    as_json: bool,
    out: str | None,
    work: Work,
) -> None:
    """Read the digit in each picture.

    A SOURCE is a picture's file (PNG, JPEG, WebP, BMP, GIF or TIFF, of any size), a folder of
    pictures, an address (http or https), or - for standard input. Check a reading whose line says
    "review" before you use it. A rejected picture shows no digit, only the closest one. The exit
    code is 1 if a picture cannot be read.

    --explain writes NAME.ink.png, the input of the model, and NAME.saliency.png, where orange is
    evidence for the digit and blue is evidence against it.

    --out is for very many pictures: a SOURCE may also be an archive (.zip, .tar, .tar.gz), a NumPy
    array (.npy), IDX (MNIST's own files, also .gz), or a URL of an object store. A picture that
    cannot be read gets a row with its error. After Ctrl-C or a crash, run the same command with
    --resume.
    """
    if out is None:
        reader = _reader(model_path, device, risk)
        found = list(expand(names))
        answers = _explain(reader, found, explain_to) if explain else _read(reader, found)
        if as_json:
            _print_json(reader, found, answers)
        else:
            _print_table(found, answers, with_all=probabilities)
        return
    if device is not None or explain or probabilities:
        raise click.UsageError(
            "--out supports none of --device, --explain and --probabilities; leave them out"
        )
    write_table(names, out, work, as_json=as_json, model_path=model_path, risk=risk)


def _reader(model_path: Path | None, device: Any, risk: float | None) -> DigitReader:
    from inkdigits.reader import load

    reader = load(model_path, device=device, risk=risk)
    if risk is not None:
        say(_cost_of(risk, reader.metadata.policy.choice(risk)))
    return reader


def _cost_of(risk: float, choice: AcceptThreshold | None) -> str:
    """Return what a stated risk costs, as a line."""
    if choice is None or choice.threshold is None:
        return f"risk {risk:g}: this model cannot keep it, so nothing is accepted"
    return (
        f"risk {risk:g}: accepted from confidence {choice.threshold:g} up, which was "
        f"{100 * choice.coverage:.2f} % of {choice.n:,} calibration digits"
    )


def _read(reader: DigitReader, names: Sequence[str]) -> Iterator[Answer]:
    for start in range(0, len(names), _FILES_PER_BATCH):
        pictures = [_opened(name) for name in names[start : start + _FILES_PER_BATCH]]
        sound = [picture for picture in pictures if not isinstance(picture, ImageError)]
        readings = iter(reader.predict_batch(sound, on_error="return"))
        for picture in pictures:
            yield picture if isinstance(picture, ImageError) else next(readings), {}


def _opened(name: str) -> Path | bytes | ImageError:
    try:
        return opened(name)
    except ImageError as error:
        return error


def _explain(reader: DigitReader, names: Sequence[str], folder: Path) -> Iterator[Answer]:
    named: Counter[str] = Counter()
    for name in names:
        stem = stem_of(name)
        named[stem] += 1
        number = f"-{named[stem]}" if named[stem] > 1 else ""
        try:
            yield _explained(reader, name, folder / f"{stem}{number}")
        except ImageError as error:
            yield error, {}


def _explained(reader: DigitReader, name: str, target: Path) -> Answer:
    """Explain a reading, and write its two pictures beside ``target``, which names them."""
    from inkdigits.ink.png import encode_png

    explanation = reader.explain(opened(name))
    ink = target.with_name(f"{target.name}.ink.png")
    saliency = target.with_name(f"{target.name}.saliency.png")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        ink.write_bytes(encode_png(explanation.prediction.ink))
        saliency.write_bytes(explanation.overlay)
    except OSError as error:
        raise click.ClickException(
            f"cannot write into {target.parent}: {error.strerror}"
        ) from error
    return explanation.prediction, {
        "runner_up": explanation.runner_up,
        "runner_up_probability": explanation.runner_up_probability,
        "ink_png": str(ink),
        "saliency_png": str(saliency),
    }


def _print_json(reader: DigitReader, names: Sequence[str], answers: Iterator[Answer]) -> None:
    rows = []
    for name, (found, more) in zip(names, answers, strict=True):
        row = {"error": str(found)} if isinstance(found, ImageError) else _row(found)
        rows.append({"file": name, **row, **more})
    answer({"model_version": reader.model_version, "predictions": rows}, "", as_json=True)
    end_with_failures(sum("error" in row for row in rows), len(rows))


def _row(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {
        "prediction": prediction.digit,
        "confidence": prediction.confidence,
        "probabilities": list(prediction.probabilities),
        "decision": prediction.decision,
        "reason": prediction.reason,
        "novelty": prediction.novelty,
    }
    if prediction.risk is not None:
        row |= {"risk": prediction.risk, "coverage": prediction.coverage}
    return row


def _print_table(names: Sequence[str], answers: Iterator[Answer], *, with_all: bool) -> None:
    shown = [printable(name) for name in names]
    width = max(map(len, shown))
    more = "".join(f"{digit:>7}" for digit in range(10)) + "  runner-up" if with_all else ""
    click.echo(f"{'file':<{width}}  digit  confidence{more}  decision")
    outcomes: Counter[str] = Counter()
    failed = 0
    for name, (found, extra) in zip(shown, answers, strict=True):
        if isinstance(found, ImageError):
            failed += 1
            line = f"error: {found}"
        else:
            outcomes[found.reason or found.decision] += 1
            line = _line(found, with_all=with_all)
        if extra.get("runner_up") is not None:
            share = f"{100 * extra['runner_up_probability']:.2f} %"
            line += f"; runner-up {extra['runner_up']} ({share})"
        click.echo(f"{name:<{width}}  {line}")
    if len(names) > 1:
        say(summary(outcomes))
    end_with_failures(failed, len(names))


def _line(prediction: Prediction, *, with_all: bool) -> str:
    from inkdigits.decision.prediction import percent

    digit, share = "-", "-"
    if prediction.answer is not None:
        digit, share = str(prediction.answer), percent(prediction.confidence)
    more = ""
    if with_all:
        shares = "".join(f"{100 * share:>7.2f}" for share in prediction.probabilities)
        runner_up = "-" if prediction.runner_up is None else str(prediction.runner_up)
        more = f"{shares}  {runner_up:>9}"
    return f"{digit:>5}  {share:>10}{more}  {prediction.outcome}"
