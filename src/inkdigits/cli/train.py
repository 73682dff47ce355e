"""The command that trains: from data to an artifact, in stages.

It imports torch and its kin when it runs, so that the other commands start without.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inkdigits.cli import options
from inkdigits.cli.options import option, resumable, say
from inkdigits.cli.synthesise import SYNTHETIC, composition

if TYPE_CHECKING:
    from inkdigits.training.config import RunConfig
    from inkdigits.training.recipe import Plan

# Shares of each batch that are synthetic digits, and pictures without a digit.
_SYNTHETIC_SHARE, _OTHERS_SHARE = 0.28, 0.16
# What --quick changes by default: a first model in ten minutes on two cores.
_QUICK: dict[str, Any] = {
    "epochs": 6,
    "synthetic": 24_000,
    "segmenter_steps": 0,
    "classic_epochs": 3,
    "calibration_synthetic": 3_000,
}
# And where the run is not the whole recipe: another network, or one that does not start anew.
_ALONE: dict[str, Any] = {"classic_epochs": 0, "segmenter_steps": 0}
# What differs by default where a model learns from added pictures: minutes on a CPU.
_FINE_TUNING: dict[str, Any] = {
    "epochs": 4,
    "limit": 6_000,
    "synthetic": 4_500,
    "batch_size": 128,
    "learning_rate": 3e-4,
    "ema_decay": 0.98,
    "calibration_synthetic": 3_000,
}


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Take the options of a TOML file as defaults, which flags replace."""
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    names: dict[str, str] = {}
    for parameter in ctx.command.params:
        names |= dict.fromkeys((o.removeprefix("--") for o in parameter.opts), str(parameter.name))
        for negative in parameter.secondary_opts:
            name = negative.removeprefix("--")
            if name in values:
                values[parameter.opts[0].removeprefix("--")] = not values.pop(name)
    unknown = sorted(values.keys() - names.keys() | values.keys() & {"config"})
    if unknown:
        raise click.UsageError(f"{path} has unknown options: {', '.join(unknown)}")
    ctx.default_map = {names[name]: value for name, value in values.items()}


@click.command(short_help="Train, calibrate, export and evaluate a model.")
@options.DATA
@options.DOWNLOAD
@option("--out", "Folder for weights, artifact and run.json.", options.FOLDER, "saved_models")
@options.FIGURES
@option("--logs", "Folder for TensorBoard's event files.", options.FOLDER, default="outputs/logs")
@option(
    "--network",
    "Network to train. DigitNet is the shipped network; MNISTClassifier is simpler.",
    click.Choice(["DigitNet", "MNISTClassifier"]),
    "DigitNet",
)
@option("--quick", "Train in about ten minutes, with fewer pictures and epochs.", is_flag=True)
@option(
    "--segmenter-steps",
    "Training steps of the network that finds ink; 0 does not train this network. The default is 0 "
    "with --quick, --init, --add, --pictures, --segmenter or --network MNISTClassifier.",
    click.IntRange(0),
    50_000,
)
@option(
    "--segmenter",
    "Use an existing network that finds ink instead of training one: a file of another run, an "
    'artifact, or "shipped".',
    click.Path(path_type=Path),
)
@option(
    "--line-steps",
    "Training steps of the network that reads lines of digits; 0 uses the shipped network. The "
    "default is 0 if the network that finds ink is not trained.",
    click.IntRange(min=0),
    default=20_000,
)
@option("--epochs", "Number of passes over the training pictures.", options.COUNT, default=48)
@option(
    "--classic-epochs",
    "Epochs of MNISTClassifier, which is trained after DigitNet; 0 skips MNISTClassifier.",
    click.IntRange(0),
    30,
)
@option("--batch-size", "Pictures per step, including synthetic pictures.", click.IntRange(8), 512)
@option(
    "--synthetic",
    "Number of synthetic pictures. Two thirds of them show digits. With 0, the model learns only "
    "clean digits and cannot reject other pictures.",
    click.IntRange(0),
    SYNTHETIC,
)
@option(
    "--pictures",
    'Use existing synthetic pictures from "inkdigits synthesise"; can be repeated.',
    options.FILE,
    multiple=True,
)
@option(
    "--learning-rate",
    "Highest learning rate of the one-cycle schedule.",
    click.FloatRange(0, 1, min_open=True),
    4e-3,
    metavar="RATE",
)
@option(
    "--ema-decay",
    "Decay per step of the moving average of the weights; 0 disables the average.",
    click.FloatRange(0, 0.999999),
    0.999,
)
@option(
    "--augmentation",
    "Strength of augmentation; 0 leaves pictures unchanged.",
    click.FloatRange(0, 3),
    1.2,
    metavar="FACTOR",
)
@option(
    "--init initial",
    'Initial weights: "shipped", an artifact, or mnist_classifier.pt of another run.  '
    "[default: random]",
    click.Path(path_type=Path),
)
@option(
    "--add added",
    "Also train on these labelled pictures; can be repeated. inkdigits evaluate --help describes "
    "the format. With --add, the default run is shorter and has a lower learning rate.",
    multiple=True,
    metavar="SOURCE",
)
@options.PATTERN
@option(
    "--weight",
    "With --add: how often each of your pictures is used per epoch.  [default: your pictures are "
    "15 % of the digits]",
    click.FloatRange(0.1, 10_000),
    metavar="FACTOR",
)
@option("--held-back", "With --add: share of pictures to hold out.", click.FloatRange(0, 0.9), 0.2)
@option("--limit", "Maximum number of MNIST's training pictures.", options.COUNT)
@option(
    "--keep",
    "Keep the weights of the epoch with the lowest validation loss, or of the last epoch.",
    click.Choice(["best", "last"]),
    "last",
)
@option(
    "--dropout",
    "Dropout probability of all layers.  [default: set by the network]",
    click.FloatRange(0, 0.99),
)
@options.SEED
@options.device("Device to train on", "auto")
@option("--resume", "Resume the interrupted run in the folder --out.", is_flag=True)
@options.RISK
@option(
    "--track",
    "Log the run to MLflow at MLFLOW_TRACKING_URI (requires the extra mlflow).",
    click.Choice(["mlflow"]),
)
@option(
    "--config",
    "TOML file with values of these options. The command line takes precedence.",
    options.FILE,
    is_eager=True,
    expose_value=False,
    callback=_read_config,
)
@options.JSON
@click.pass_context
def train(
    ctx: click.Context,
    /,
    data_root: Path,
    *,
    download: bool,
    as_json: bool,
    quick: bool,
    track: str | None,
    **settings: Any,
) -> None:
    """Train, calibrate, export and evaluate a model on MNIST.

    The command trains one network that finds ink and one that reads lines. It makes synthetic
    pictures and trains DigitNet. It then calibrates, exports and evaluates the model, adds the int8
    network, and trains MNISTClassifier. The result is mnist_classifier.onnx, an artifact for
    "inkdigits serve --model". After Ctrl-C, run the same command with --resume to continue.
    """
    from inkdigits.data.mnist import load_splits
    from inkdigits.model.devices import resolve_device
    from inkdigits.training.provenance import split_of_weights
    from inkdigits.training.recipe import run_recipe
    from inkdigits.training.run_folder import find_mlflow, log_with_mlflow

    if track is not None:
        find_mlflow()
    plan = _plan(ctx, settings, quick=quick)
    run = _run_config(**settings, progress=not as_json)
    by = None if run.initial is None else split_of_weights(run.initial)
    splits = load_splits(data_root, download=download, by=by, report=say)
    device = resolve_device(run.device)
    n = min(run.limit or len(splits.train), len(splits.train))
    say(f"training on {device}: {n:,} pictures, {run.train.epochs} epochs")
    how = f"to continue, run the same command with --resume (state in {run.folders.run})"
    with resumable(how):
        described = run_recipe(splits, run, plan, device, report=say)
    if track is not None:
        log_with_mlflow(described, run.folders)
    say(f"wrote {run.folders.run} and {run.folders.figures}")
    if as_json:
        click.echo(json.dumps(described))


def _plan(ctx: click.Context, settings: dict[str, Any], *, quick: bool) -> Plan:
    """Return the stages, and change the settings that depend on them."""
    from inkdigits.training.recipe import Plan

    def default_to(values: dict[str, Any]) -> None:
        given = click.core.ParameterSource.DEFAULT
        for name, value in values.items():
            if name not in settings or ctx.get_parameter_source(name) is given:
                settings[name] = value

    if quick:
        default_to(_QUICK)
    if settings["added"]:
        default_to(_FINE_TUNING)
    elif named := [
        name
        for name in ("weight", "held_back", "pattern")
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    ]:
        options_named = ", ".join("--" + name.replace("_", "-") for name in named)
        raise click.UsageError(f"{options_named} needs --add")
    if settings["network"] != "DigitNet" or settings["initial"] or settings["added"]:
        default_to(_ALONE)
    if settings["segmenter"] is not None or settings["pictures"]:
        default_to({"segmenter_steps": 0})
        if settings["segmenter"] and settings["segmenter_steps"]:
            raise click.UsageError("use either --segmenter or --segmenter-steps, not both")
    if not settings["segmenter_steps"]:
        default_to({"line_steps": 0})
    return Plan(
        settings.pop("segmenter_steps"),
        settings.pop("line_steps"),
        settings.pop("classic_epochs"),
        int8=settings["network"] == "DigitNet",
    )


def _run_config(synthetic: int, augmentation: float, **settings: Any) -> RunConfig:
    """Return the settings that the options stand for; others have the names of the settings."""
    from inkdigits.model.artifact import ARTIFACT_NAME, shipped_artifact
    from inkdigits.training.augmentation import AugmentationConfig
    from inkdigits.training.config import AddConfig, Folders, RunConfig, TrainConfig

    if settings["pictures"] and not synthetic:
        raise click.UsageError("use either --pictures or --synthetic 0, not both")
    direct = (
        *("network", "epochs", "batch_size", "learning_rate", "ema_decay"),
        *("dropout", "keep", "seed"),
    )
    config = TrainConfig(
        synthetic=_SYNTHETIC_SHARE if synthetic else 0.0,
        others=_OTHERS_SHARE if synthetic else 0.0,
        augmentation=AugmentationConfig().scaled(augmentation),
        **{name: settings.pop(name) for name in direct},
    )
    synthesis = composition(synthetic, config.seed) if synthetic else None
    folders = Folders(*(settings.pop(name) for name in ("out", "figures", "logs")))
    names = ("added", "pattern", "weight", "held_back")
    added = AddConfig(*(settings.pop(name) for name in names))
    segmenter = settings.pop("segmenter")
    if str(segmenter) == "shipped":
        segmenter = shipped_artifact()
    if (initial := settings.pop("initial")) is not None:
        initial = shipped_artifact() if str(initial) == "shipped" else initial
        initial = initial / ARTIFACT_NAME if initial.is_dir() else initial
    return RunConfig(
        config,
        folders,
        synthesis=synthesis,
        initial=initial,
        added=added,
        segmenter=segmenter,
        **settings,
    )
