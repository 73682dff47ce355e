import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from inkdigits.calibration.scores import reliability_curve
from inkdigits.calibration.temperature import probabilities as softmax
from inkdigits.evaluation import plots

TIMES = "\N{MULTIPLICATION SIGN}"


def curves():
    rng = np.random.default_rng(0)
    y, logits = rng.integers(10, size=500), rng.normal(0, 2, (500, 10))
    logits[np.arange(500), y] += 5
    return [reliability_curve(softmax(logits, t), y) for t in (0.5, 1.2)]


def test_the_reliability_diagram_shows_both_curves_over_their_histograms():
    both = curves()
    figure = plots.reliability_diagram(*both)
    assert "n = 500" in figure.get_suptitle()
    tops, bottoms = figure.axes[:2], figure.axes[2:]
    for curve, name, top, bottom in zip(both, ("Before", "After"), tops, bottoms, strict=True):
        assert top.get_title() == f"{name} calibration: ECE {100 * curve.ece:.2f} %"
        diagonal, points = top.lines[:2]
        assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
        np.testing.assert_allclose(points.get_xydata().T, [curve.confidence, curve.accuracy])
        assert [bar.get_height() for bar in bottom.patches] == curve.count.tolist()
        np.testing.assert_allclose([bar.get_x() for bar in bottom.patches], curve.lower)


def test_the_confusion_matrix_writes_hits_and_mistakes_and_colours_mistakes_only():
    matrix = np.diag(np.full(10, 990))
    matrix[4, 9], matrix[7, 2] = 7, 1
    (axes,) = plots.confusion_matrix_figure(matrix).axes
    assert axes.get_title() == "True and predicted digits: 8 of 9,908 wrong"
    written = {text.get_position(): text.get_text() for text in axes.texts}
    # x is the digit read, y the true digit.
    diagonal = {(digit, digit): "990" for digit in range(10)}
    assert written == {**diagonal, (9, 4): "7", (2, 7): "1"}
    coloured = axes.images[0].get_array()
    assert (coloured.count(), coloured[4, 9]) == (2, 7)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted digit", "true digit")


def history():
    keys = ("epoch", "train_loss", "validation_loss", "validation_accuracy", "learning_rate")
    rows = [(n, 0.3 / n, 0.1 / n, a, 0.001 * n) for n, a in enumerate((0.97, 0.99, 0.985), 1)]
    return [dict(zip(keys, row, strict=True)) for row in rows]


def test_the_training_history_shows_losses_accuracy_and_learning_rate():
    figure = plots.training_history(history(), 2)
    kept = "epoch 2 is kept, with a validation loss of 0.0500 and an accuracy of 99.00 %"
    assert figure.get_suptitle() == f"Training, 3 epochs: {kept}"
    losses, accuracy, rate = (axes.lines for axes in figure.axes)
    assert list(losses[2].get_xdata()) == [2]
    assert [line.get_label() for line in losses[:2]] == ["training", "validation"]
    for line, values in (
        (losses[0], [0.3, 0.15, 0.1]),
        (losses[1], [0.1, 0.05, 0.1 / 3]),
        (accuracy[0], [97, 99, 98.5]),
        (rate[0], [0.001, 0.002, 0.003]),
    ):
        np.testing.assert_allclose(line.get_xydata().T, [[1, 2, 3], values])


def speedups(*values):
    names = {"baseline": "CPU", "contender": "CUDA"}
    return [{"task": f"task {i}", **names, "speedup": value} for i, value in enumerate(values)]


@pytest.mark.parametrize("values", [(0.9, 3.25), (0.9, 120.0)])
def test_speed_ups_are_bars_against_a_line_at_1(values):
    (axes,) = plots.speedup_chart(speedups(*values)).axes
    assert axes.get_xscale() == "log"
    assert [bar.get_x() + bar.get_width() for bar in axes.patches] == pytest.approx(values)
    assert list(axes.lines[0].get_xdata()) == [1, 1]
    assert [text.get_text() for text in axes.texts] == [f"  {value:.3g}{TIMES}" for value in values]
    assert axes.get_yticklabels()[0].get_text() == "task 0\nCUDA against CPU"
    assert axes.get_title() == "Speed-up in 2 tasks: faster in 1"
    assert axes.yaxis.get_inverted()
    assert len({bar.get_facecolor() for bar in axes.patches}) == 2
    low, high = axes.get_xlim()
    assert low < min(values) < max(values) < high


def test_a_saved_figure_is_a_png_and_one_that_cannot_be_drawn_leaves_the_old_file(tmp_path):
    figure = plots.speedup_chart(speedups(2.0))
    path = plots.save(figure, tmp_path / "outputs" / "figures" / "speed.png")
    with Image.open(path) as image:
        size = tuple(int(150 * side) for side in figure.get_size_inches())
        assert (image.format, image.size) == ("PNG", size)
    before = path.read_bytes()
    figure.suptitle(r"$\nonsense$")  # mathtext that doesn't parse
    with pytest.raises(ValueError, match="nonsense"):
        plots.save(figure, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["speed.png"]


def test_plots_import_neither_pyplot_nor_torch_and_the_core_install_measures_without_either():
    code = (
        "import sys, inkdigits.calibration.scores, inkdigits.evaluation.metrics\n"
        "heavy = {'matplotlib.pyplot', 'torch', 'sklearn', 'scipy'}\n"
        "assert not {'matplotlib', *heavy} & set(sys.modules)\n"
        "import inkdigits.evaluation.plots; assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
