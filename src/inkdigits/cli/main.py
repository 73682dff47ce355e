"""The command line: serve, predict, synthesise, train, evaluate, calibrate, export, benchmark.

Exit codes: 0 done; 1 something could not be done, with one line on standard error that says what;
2 the command was called wrongly; 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from inkdigits.cli import evaluate as model_commands
from inkdigits.cli import history as history_commands
from inkdigits.cli import train as training_commands
from inkdigits.cli.options import JSON_OPTION, MODEL_OPTION, READER_DEVICE_OPTION, say
from inkdigits.errors import ImageError, InkdigitsError

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Prediction
    from inkdigits.decision.risk import AcceptThreshold
    from inkdigits.reader import DigitReader

FILES_AT_A_TIME = 64


class Commands(click.Group):
    """Turns the errors that Inkdigits raises on purpose into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except InkdigitsError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="inkdigits", prog_name="inkdigits")
def main() -> None:
    """Read handwritten digits and say how sure it is.

    Start the service with "inkdigits serve", or read pictures with "inkdigits predict FILE…".
    """


@main.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1; env: INKDIGITS_HOST]")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port to listen on.  [default: 5000; env: PORT]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    help="Worker processes.  [default: one a core; env: INKDIGITS_WORKERS]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="Threads a worker.  [default: 4; env: INKDIGITS_THREADS]",
)
@click.option(
    "--page/--no-page",
    "page",
    default=None,
    help="Serve the page beside the API.  [default: on; env: INKDIGITS_PAGE]",
)
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Certificate chain in PEM, to speak HTTPS.  [env: INKDIGITS_TLS_CERT]",
)
@click.option(
    "--tls-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The certificate's private key in PEM.  [env: INKDIGITS_TLS_KEY]",
)
@click.option(
    "--risk",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Tolerated share of wrong readings among the accepted, for requests that state none.  "
    "[default: the model's own; env: INKDIGITS_RISK]",
)
@MODEL_OPTION
def serve(
    host: str | None,
    port: int | None,
    workers: int | None,
    threads: int | None,
    *,
    page: bool | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    risk: float | None,
    model_path: Path | None,
) -> None:
    """Serve the page and the HTTP API until Ctrl-C.

    Options go before environment variables; docs/serve.md lists all settings.
    """
    from inkdigits.serving.gunicorn import serve as serve_forever
    from inkdigits.settings import Settings

    asked = {
        "host": host,
        "port": port,
        "workers": workers,
        "threads": threads,
        "page": None if page is None else "on" if page else "off",
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "model_path": model_path,
        "risk": risk,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    serve_forever(replace(Settings.from_env(), **given))


@main.command()
@click.argument("name")
def key(name: str) -> None:
    """Make an API key: the key for its user, and the line for the service's file of keys.

    The service keeps the line only, from which nobody can find the key again.
    """
    from inkdigits.serving.api.keys import digest_of, new_key
    from inkdigits.settings import parse_api_keys

    made = new_key()
    line = f"{name}:{digest_of(made)}"
    parse_api_keys(line)
    click.echo(f"key   {made}\nline  {line}")


@main.command(short_help="Read the digit in each picture.")
@click.argument(
    "paths", nargs=-1, required=True, metavar="SOURCE…", type=click.Path(path_type=Path)
)
@MODEL_OPTION
@READER_DEVICE_OPTION
@click.option(
    "--risk",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Tolerated share of wrong readings among the accepted.  [default: the model's own]",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Name the runner-up, and write the ink and a map of what spoke for the digit.",
)
@click.option(
    "--explain-to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("outputs/explanations"),
    show_default=True,
    help="Folder for the pictures of --explain.",
)
@JSON_OPTION
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a row a picture to this file (.parquet, .csv or .jsonl), on all cores.",
)
@click.option("--resume", is_flag=True, help="With --out: resume an unfinished run.")
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    help="With --out: processes that read.  [default: one a core]",
)
def predict(
    paths: Sequence[Path],
    model_path: Path | None,
    device: Any,
    risk: float | None,
    folder: Path,
    *,
    explain: bool,
    as_json: bool,
    out: Path | None,
    resume: bool,
    workers: int | None,
) -> None:
    """Read the digit in each picture; a folder stands for the pictures in it.

    Pictures may be PNG, JPEG, WebP, BMP, GIF or TIFF, of any size. A line that says "review" is
    a reading that isn't sure enough to be used unseen. Exit code 1 if any file cannot be read.

    --explain writes NAME.ink.png, what the model saw, and NAME.saliency.png, in which orange
    spoke for the digit and blue against.

    With --out, for very many: a SOURCE may also be an archive (.zip, .tar, .tar.gz), a NumPy
    array (.npy) or IDX (MNIST's own files, .gz too). What cannot be read gets a row with its error.
    After Ctrl-C or a crash, the same command with --resume goes on.
    """
    if out is not None:
        if device is not None:
            raise click.UsageError("--out reads on the CPU: leave --device out")
        if risk is not None or explain:
            raise click.UsageError("--risk and --explain don't go with --out")
        _predict_to_file(paths, out, model_path, workers, as_json=as_json, resume=resume)
        return
    if resume or workers is not None:
        raise click.UsageError("--resume and --workers go with --out")
    from inkdigits.reader import load

    files = list(_expand(paths))
    reader = load(model_path, device=device, risk=risk)
    if risk is not None:
        say(_costs(reader.metadata.policy.choice(risk), risk))
    failed = 0
    rows: list[dict[str, Any]] = []
    width = max(len(str(path)) for path in files)
    if not as_json:
        click.echo(f"{'file':<{width}}  digit  confidence  decision")
    explain_to = folder if explain else None
    for path, answer in _read(reader, files, explain_to):
        if isinstance(answer, ImageError):
            failed += 1
            row: dict[str, Any] = {"file": str(path), "error": str(answer)}
            line = f"{path!s:<{width}}  error: {answer}"
        else:
            prediction, why, words = answer
            row = {"file": str(path), **_as_json(prediction), **why}
            line = f"{path!s:<{width}}  {_as_line(prediction)}{words}"
        if as_json:
            rows.append(row)
        else:
            click.echo(line)
    if as_json:
        click.echo(json.dumps({"model_version": reader.model_version, "predictions": rows}))
    if failed:
        raise click.ClickException(f"{failed} of {len(files)} files cannot be read")


def _predict_to_file(
    paths: Sequence[Path],
    out: Path,
    model_path: Path | None,
    workers: int | None,
    *,
    as_json: bool,
    resume: bool,
) -> None:
    from inkdigits.batch.run import predict_to_file
    from inkdigits.cli.progress import ProgressLine, printable

    line = ProgressLine(sys.stderr, quiet=as_json)
    try:
        summary = predict_to_file(
            paths,
            out,
            model_path=model_path,
            workers=workers,
            resume=resume,
            progress=line.show if line.on else None,
        )
    except KeyboardInterrupt:
        line.end()
        say("interrupted; the same command with --resume continues")
        sys.exit(130)
    finally:
        line.end()
    if as_json:
        click.echo(json.dumps({"out": str(out), **asdict(summary)}))
    else:
        rate = summary.pictures / summary.seconds
        click.echo(f"{summary.pictures:,} pictures in {out} ({rate:,.0f}/s)")
    if summary.failed:
        for source, error in summary.failures:
            say(printable(f"{source}: {error}"))
        if summary.failed > len(summary.failures):
            say(f"and {summary.failed - len(summary.failures):,} more: see the column error")
        raise click.ClickException(
            f"{summary.failed:,} of {summary.pictures:,} pictures cannot be read"
        )


Read: TypeAlias = "tuple[Prediction, dict[str, Any], str]"
"""A prediction, with its explanation for a program and for a person, empty where none is."""


def _read(
    reader: DigitReader, files: Sequence[Path], explain_to: Path | None
) -> Iterator[tuple[Path, Read | ImageError]]:
    if explain_to is not None:
        named: Counter[str] = Counter()
        for path in files:
            named[path.stem] += 1
            number = f"-{named[path.stem]}" if named[path.stem] > 1 else ""
            try:
                yield path, _explained(reader, path, explain_to / f"{path.stem}{number}")
            except ImageError as error:
                yield path, error
        return
    for start in range(0, len(files), FILES_AT_A_TIME):
        some = files[start : start + FILES_AT_A_TIME]
        for path, answer in zip(some, reader.predict_batch(some, on_error="return"), strict=True):
            yield path, answer if isinstance(answer, ImageError) else (answer, {}, "")


def _explained(reader: DigitReader, path: Path, target: Path) -> Read:
    """Explain a reading, and write its two pictures beside ``target``, which names them."""
    from PIL import Image

    explanation = reader.explain(path)
    prediction, second = explanation.prediction, explanation.runner_up
    ink = target.with_name(f"{target.name}.ink.png")
    saliency = target.with_name(f"{target.name}.saliency.png")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(prediction.ink).save(ink)
        saliency.write_bytes(explanation.overlay)
    except OSError as error:
        raise click.ClickException(
            f"cannot write into {target.parent}: {error.strerror}"
        ) from error
    why = {
        "runner_up": second,
        "runner_up_probability": explanation.runner_up_probability,
        "ink_png": str(ink),
        "saliency_png": str(saliency),
    }
    if second is None:
        return prediction, why, ""
    share = f"{100 * explanation.runner_up_probability:.2f} %"
    return prediction, why, f"; runner-up {second} ({share})"


def _costs(choice: AcceptThreshold | None, risk: float) -> str:
    """What a stated risk costs, in a line."""
    if choice is None or choice.threshold is None:
        return f"risk {risk:g}: this model cannot keep it, so nothing is accepted"
    return (
        f"risk {risk:g}: accepted from confidence {choice.threshold:g} up, which was "
        f"{100 * choice.coverage:.2f} % of {choice.n:,} calibration digits"
    )


def _expand(paths: Sequence[Path]) -> Iterator[Path]:
    from inkdigits.batch.archives import PICTURE_SUFFIXES

    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
            if not inside:
                raise click.ClickException(
                    f"{path} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})"
                )
            yield from inside
        else:
            yield path


def _as_json(prediction: Prediction) -> dict[str, Any]:
    return {
        "prediction": prediction.digit,
        "confidence": prediction.confidence,
        "probabilities": list(prediction.probabilities),
        "decision": prediction.decision,
        "reason": prediction.reason,
        "novelty": prediction.novelty,
        **_stated(prediction),
    }


def _stated(prediction: Prediction) -> dict[str, float | None]:
    if prediction.risk is None:
        return {}
    return {"risk": prediction.risk, "coverage": prediction.coverage}


def _as_line(prediction: Prediction) -> str:
    digit = "-" if prediction.digit is None else str(prediction.digit)
    # Rounded down: "100.00 %" is for what is certain, and nothing read from a picture is.
    percent = int(prediction.confidence * 10_000) / 100
    why = f" ({prediction.reason})" if prediction.reason else ""
    return f"{digit:>5}  {percent:>8.2f} %  {prediction.decision}{why}"


for command in (
    training_commands.synthesise,
    training_commands.train,
    model_commands.evaluate,
    model_commands.calibrate,
    model_commands.export,
    model_commands.benchmark,
    history_commands.history,
):
    main.add_command(command)
