import subprocess
import sys

import inkdigits

TRAINING_SIDE = ("torch", "torchvision", "sklearn", "matplotlib", "onnx", "tqdm", "tensorboard")


def test_public_names_are_sorted_and_importable():
    assert inkdigits.__all__ == sorted(inkdigits.__all__, key=str.casefold) or (
        inkdigits.__all__ == sorted(inkdigits.__all__)
    )
    assert all(hasattr(inkdigits, name) for name in inkdigits.__all__)


def test_version_is_the_distributions():
    from importlib.metadata import version

    assert inkdigits.__version__ == version("inkdigits")


def test_serving_side_imports_without_the_training_side():
    block = (
        "import sys\n"
        f"for name in {TRAINING_SIDE!r}: sys.modules[name] = None\n"
        "import inkdigits, inkdigits.cli.main, inkdigits.serving.app, inkdigits.serving.gunicorn\n"
        "import inkdigits.decision.policy, inkdigits.calibration.temperature\n"
    )
    subprocess.run([sys.executable, "-c", block], check=True, timeout=120)
