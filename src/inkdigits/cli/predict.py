"""The command that reads pictures, a few to the terminal or very many to a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inkdigits.cli import options
from inkdigits.cli.options import answer, option, say
from inkdigits.cli.pictures import (
    bulk_options,
    end_with_failures,
    expand,
    opened,
    print_table,
    stem_of,
)
from inkdigits.errors import ImageError

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Prediction
    from inkdigits.decision.risk import AcceptThreshold
    from inkdigits.reader import DigitReader

_FILES_PER_BATCH = 64


@click.command()
@options.PICTURES
@options.MODEL
@options.device("Read with PyTorch on this device")
@options.risk()
@option("--probabilities", "Also show the runner-up and all ten probabilities.", is_flag=True)
@option(
    "--explain",
    "Show the runner-up, and write a picture of the ink and a saliency map.",
    is_flag=True,
)
@option(
    "--explain-to",
    "Folder for the pictures that --explain writes.  [default: outputs/explanations]",
    options.FOLDER,
)
@options.JSON
@bulk_options
def predict(
    names: Sequence[str],
    model_path: Path | None,
    device: Any,
    risk: float | None,
    explain_to: Path | None,
    *,
    probabilities: bool,
    explain: bool,
    as_json: bool,
    write: Callable[..., None] | None,
) -> None:
    """Read the digit in each picture.

    SOURCE is a picture (PNG, JPEG, WebP, BMP, GIF or TIFF), a folder of pictures, an http or https
    URL, or - for standard input. Check readings with the decision "review" before you use them. For
    a rejected picture, the table shows only the closest digit. The exit code is 1 if a picture
    cannot be read.

    --explain writes the input of the model to NAME.ink.png and a saliency map to NAME.saliency.png.
    In the map, orange ink is evidence for the digit, and blue ink is evidence against it.

    --out writes the readings of many pictures to a table. With --out, SOURCE may also be an archive
    (.zip, .tar, .tar.gz), a NumPy array (.npy), an IDX or Parquet file, or a URL of an object
    store. For a picture that cannot be read, the row contains the error. After Ctrl-C or a crash,
    run the command again to read the remaining pictures.
    """
    explain = explain or explain_to is not None
    if write is None:
        reader = _reader(model_path, device, risk)
        found = list(expand(names))
        folder = explain_to or Path("outputs/explanations")
        targets = list(_targets(found, folder)) if explain else []
        answers = _explain(reader, found, targets) if explain else _read(reader, found)
        if explain and not as_json:
            say(f"the ink and the evidence of each picture are written to {folder}")
        if as_json:
            _print_json(reader, found, answers, targets)
        else:
            print_table(found, _head(probabilities), answers, _line(probabilities, explain))
        return
    if device is not None or explain or probabilities:
        raise click.UsageError("--device, --explain and --probabilities do not work with --out")
    write(names, as_json=as_json, model_path=model_path, risk=risk)


def _reader(model_path: Path | None, device: Any, risk: float | None) -> DigitReader:
    from inkdigits.reader import load

    reader = load(model_path, device=device, risk=risk)
    if risk is not None:
        say(_cost_of(risk, reader.metadata.policy.choice(risk)))
    return reader


def _cost_of(risk: float, choice: AcceptThreshold | None) -> str:
    """Return what a stated risk costs, as a line."""
    if choice is None or choice.threshold is None:
        return f"risk {risk:g}: this model cannot meet the risk, so it accepts nothing"
    return (
        f"risk {risk:g}: the model accepts a confidence of {choice.threshold:g} or more, which "
        f"{100 * choice.coverage:.2f} % of {choice.n:,} calibration digits have"
    )


def _read(reader: DigitReader, names: Sequence[str]) -> Iterator[Prediction | ImageError]:
    for start in range(0, len(names), _FILES_PER_BATCH):
        pictures = [_opened(name) for name in names[start : start + _FILES_PER_BATCH]]
        sound = [picture for picture in pictures if not isinstance(picture, ImageError)]
        readings = iter(reader.predict_batch(sound, on_error="return"))
        for picture in pictures:
            yield picture if isinstance(picture, ImageError) else next(readings)


def _opened(name: str) -> Path | bytes | ImageError:
    try:
        return opened(name)
    except ImageError as error:
        return error


def _targets(names: Sequence[str], folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the paths of ink and saliency map for each picture; no two are the same."""
    named = Counter[str]()
    for stem in map(stem_of, names):
        named[stem] += 1
        name = f"{stem}-{named[stem]}" if named[stem] > 1 else stem
        yield folder / f"{name}.ink.png", folder / f"{name}.saliency.png"


def _explain(
    reader: DigitReader, names: Sequence[str], targets: Sequence[tuple[Path, Path]]
) -> Iterator[Prediction | ImageError]:
    """Explain readings, and write the two pictures of each."""
    from inkdigits.ink.png import encode_png

    for name, (ink, saliency) in zip(names, targets, strict=True):
        try:
            explanation = reader.explain(opened(name))
        except ImageError as error:
            yield error
            continue
        ink.parent.mkdir(parents=True, exist_ok=True)
        ink.write_bytes(encode_png(explanation.prediction.ink))
        saliency.write_bytes(explanation.overlay)
        yield explanation.prediction


def _print_json(
    reader: DigitReader,
    names: Sequence[str],
    answers: Iterator[Prediction | ImageError],
    targets: Sequence[tuple[Path, Path]],
) -> None:
    rows: list[dict[str, Any]] = []
    for number, (name, found) in enumerate(zip(names, answers, strict=True)):
        row = {"error": str(found)} if isinstance(found, ImageError) else _row(found)
        if targets and not isinstance(found, ImageError):
            ink, saliency = map(str, targets[number])
            row |= {"ink_png": ink, "saliency_png": saliency}
        rows.append({"file": name, **row})
    answer({"model_version": reader.model_version, "predictions": rows}, "", as_json=True)
    end_with_failures(sum("error" in row for row in rows), len(rows))


def _row(prediction: Prediction) -> dict[str, Any]:
    second, share = prediction.runner_up
    row: dict[str, Any] = {
        "prediction": prediction.digit,
        "confidence": prediction.confidence,
        "probabilities": list(prediction.probabilities),
        "runner_up": second,
        "runner_up_probability": share,
        "decision": prediction.decision,
        "reason": prediction.reason,
        "novelty": prediction.novelty,
    }
    if prediction.risk is not None:
        row |= {"risk": prediction.risk, "coverage": prediction.coverage}
    return row


def _head(with_all: bool) -> str:
    more = "".join(f"{digit:>7}" for digit in range(10)) + "  runner-up" if with_all else ""
    return f"digit  confidence{more}  decision"


def _line(with_all: bool, with_runner_up: bool) -> Callable[[Prediction], str]:
    from inkdigits.decision.prediction import percent

    def line(read: Prediction) -> str:
        digit, share = "-", "-"
        if read.answer is not None:
            digit, share = str(read.answer), percent(read.confidence)
        second, probability = read.runner_up
        shares = "".join(f"{percent(one).removesuffix(' %'):>7}" for one in read.probabilities)
        more = f"{shares}  {'-' if second is None else second:>9}" if with_all else ""
        after = ""
        if with_runner_up and second is not None:
            after = f"; runner-up {second} ({percent(probability)})"
        return f"{digit:>5}  {share:>10}{more}  {read.outcome}{after}"

    return line
