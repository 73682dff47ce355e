"""The command that reads pictures, a few to the terminal or very many to a file."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from inkdigits.cli import options
from inkdigits.cli.options import resumable, say
from inkdigits.errors import ImageError

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Prediction
    from inkdigits.decision.risk import AcceptThreshold
    from inkdigits.reader import DigitReader

_FILES_PER_BATCH = 64

Answer: TypeAlias = "tuple[dict[str, Any], str]"
"""One picture's result as JSON has it, and as a line of the table has it."""


@click.command(short_help="Read the digit in each picture.")
@click.argument(
    "paths", nargs=-1, required=True, metavar="SOURCE…", type=click.Path(path_type=Path)
)
@options.MODEL
@options.READER_DEVICE
@click.option(
    "--risk",
    type=options.SHARE,
    help="Tolerated share of wrong readings among the accepted.  [default: the model's]",
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
@click.option(
    "--out",
    type=options.FILE,
    help="Write one row per picture to this file (.parquet, .csv or .jsonl), on all cores.",
)
@click.option("--resume", is_flag=True, help="With --out: resume an unfinished run.")
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    help="With --out: worker processes.  [default: one per core]",
)
def predict(
    paths: Sequence[Path],
    model_path: Path | None,
    device: Any,
    risk: float | None,
    explain_to: Path,
    *,
    explain: bool,
    as_json: bool,
    out: Path | None,
    resume: bool,
    workers: int | None,
) -> None:
    """Read the digit in each picture; a folder stands for the pictures in it.

    Pictures may be PNG, JPEG, WebP, BMP, GIF or TIFF, of any size. Check a reading whose line says
    "review" before you use it. The exit code is 1 if a file cannot be read.

    --explain writes NAME.ink.png, the input of the model, and NAME.saliency.png, where orange is
    evidence for the digit and blue is evidence against it.

    --out is for very many pictures: a SOURCE may also be an archive (.zip, .tar, .tar.gz), a NumPy
    array (.npy) or IDX (MNIST's own files, also .gz). A picture that cannot be read gets a row with
    its error. After Ctrl-C or a crash, run the same command with --resume.
    """
    if out is None:
        if resume or workers is not None:
            raise click.UsageError("--resume and --workers need --out")
        _predict_here(paths, model_path, device, risk, explain_to if explain else None, as_json)
        return
    if device is not None:
        raise click.UsageError("--out reads on the CPU; leave out --device")
    if risk is not None or explain:
        raise click.UsageError("--out supports neither --risk nor --explain; leave them out")
    settings = {"model_path": model_path, "workers": workers, "resume": resume}
    _predict_to_file(paths, out, as_json=as_json, **settings)


def _predict_here(
    paths: Sequence[Path],
    model_path: Path | None,
    device: Any,
    risk: float | None,
    explain_to: Path | None,
    as_json: bool,
) -> None:
    from inkdigits.reader import load

    files = list(expand(paths))
    reader = load(model_path, device=device, risk=risk)
    if risk is not None:
        say(_cost_of(risk, reader.metadata.policy.choice(risk)))
    width = max(len(str(path)) for path in files)
    if not as_json:
        click.echo(f"{'file':<{width}}  digit  confidence  decision")
    rows = []
    failed = 0
    answers = _read(reader, files) if explain_to is None else _explain(reader, files, explain_to)
    for path, (row, line) in zip(files, answers, strict=True):
        rows.append({"file": str(path), **row})
        failed += "error" in row
        if not as_json:
            click.echo(f"{path!s:<{width}}  {line}")
    if as_json:
        click.echo(json.dumps({"model_version": reader.model_version, "predictions": rows}))
    if failed:
        raise click.ClickException(f"{failed} of {len(files)} files cannot be read")


def expand(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield files, and the pictures in folders."""
    from inkdigits.batch.archives import PICTURE_SUFFIXES

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
        if not inside:
            raise click.ClickException(
                f"{path} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})"
            )
        yield from inside


def _cost_of(risk: float, choice: AcceptThreshold | None) -> str:
    """Return what a stated risk costs, as a line."""
    if choice is None or choice.threshold is None:
        return f"risk {risk:g}: this model cannot keep it, so nothing is accepted"
    return (
        f"risk {risk:g}: accepted from confidence {choice.threshold:g} up, which was "
        f"{100 * choice.coverage:.2f} % of {choice.n:,} calibration digits"
    )


def _read(reader: DigitReader, files: Sequence[Path]) -> Iterator[Answer]:
    for start in range(0, len(files), _FILES_PER_BATCH):
        batch = files[start : start + _FILES_PER_BATCH]
        for answer in reader.predict_batch(batch, on_error="return"):
            yield _failure(answer) if isinstance(answer, ImageError) else _success(answer)


def _explain(reader: DigitReader, files: Sequence[Path], folder: Path) -> Iterator[Answer]:
    named: Counter[str] = Counter()
    for path in files:
        named[path.stem] += 1
        number = f"-{named[path.stem]}" if named[path.stem] > 1 else ""
        try:
            yield _explained(reader, path, folder / f"{path.stem}{number}")
        except ImageError as error:
            yield _failure(error)


def _explained(reader: DigitReader, path: Path, target: Path) -> Answer:
    """Explain a reading, and write its two pictures beside ``target``, which names them."""
    from inkdigits.ink.png import encode_png

    explanation = reader.explain(path)
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
    row, line = _success(explanation.prediction)
    row |= {
        "runner_up": explanation.runner_up,
        "runner_up_probability": explanation.runner_up_probability,
        "ink_png": str(ink),
        "saliency_png": str(saliency),
    }
    if explanation.runner_up is not None:
        share = f"{100 * explanation.runner_up_probability:.2f} %"
        line += f"; runner-up {explanation.runner_up} ({share})"
    return row, line


def _failure(error: ImageError) -> Answer:
    return {"error": str(error)}, f"error: {error}"


def _success(prediction: Prediction) -> Answer:
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
    digit = "-" if prediction.digit is None else str(prediction.digit)
    # Rounded down, because no reading is certain enough for "100.00 %".
    percent = int(prediction.confidence * 10_000) / 100
    reason = f" ({prediction.reason})" if prediction.reason else ""
    return row, f"{digit:>5}  {percent:>8.2f} %  {prediction.decision}{reason}"


def _predict_to_file(paths: Sequence[Path], out: Path, *, as_json: bool, **settings: Any) -> None:
    from inkdigits.batch.run import predict_to_file
    from inkdigits.cli.progress import printable, progress_bar

    with resumable(out.with_name(f"{out.name}.parts")), progress_bar(sys.stderr, as_json) as show:
        summary = predict_to_file(paths, out, **settings, progress=show)
    rate = summary.pictures / summary.seconds
    text = f"{summary.pictures:,} pictures in {out} ({rate:,.0f}/s)"
    click.echo(json.dumps({"out": str(out), **asdict(summary)}) if as_json else text)
    for source, error in summary.failures:
        say(printable(f"{source}: {error}"))
    if summary.failed > len(summary.failures):
        say(f"and {summary.failed - len(summary.failures):,} more; the column error has them all")
    if summary.failed:
        raise click.ClickException(
            f"{summary.failed:,} of {summary.pictures:,} pictures cannot be read"
        )
