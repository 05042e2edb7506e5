"""The figure of sensitivities: lines for a few layers, a map for many, each with its name."""

import pytest

from shrinkbench.plotting import save
from shrinkbench.report.sensitivity_figure import MOST_LINES, sensitivity_figure
from shrinkbench.results.sensitivity import LayerGroup, Sensitivity, SensitivityPoint
from shrinkbench.spec import CLASSIFICATION
from shrinkbench.spec.measures import Quality


def made(layers, seeds=(0,)):
    def quality(value):
        return Quality(metrics={"top1": value, "top5": 1.0, "loss": 1.0}, examples=10)

    groups = tuple(LayerGroup(f"layer{i}", (f"layer{i}",) * (1 + i % 2), 8) for i in range(layers))
    points = tuple(
        SensitivityPoint(group.name, density, 4, seed, quality(0.9 - 0.1 * i / layers - seed / 100))
        for seed in seeds
        for i, group in enumerate(groups)
        for density in (0.5, 0.1)
    )
    return Sensitivity("m", CLASSIFICATION, groups, quality(0.9), points)


def test_a_few_layers_are_lines_through_the_whole_network():
    axes = sensitivity_figure(made(3, seeds=(0, 1))).axes[0]
    lines = [line for line in axes.lines if line.get_label().startswith("layer")]
    assert [line.get_label() for line in lines] == ["layer0", "layer1 (+1)", "layer2"]
    assert list(lines[0].get_xdata()) == [1, 0.5, 0.1]
    assert list(lines[0].get_ydata()) == pytest.approx([90, 89.5, 89.5])
    assert axes.get_ylabel() == "validation top1 (%)"


def test_many_layers_are_a_map_of_what_is_lost(tmp_path):
    figure = sensitivity_figure(made(MOST_LINES + 1))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["layer0", "layer1 (+1)"]
    image = axes.images[0].get_array()
    assert image.shape == (MOST_LINES + 1, 2)
    assert image[0, 0] == pytest.approx(0)
    assert image[-1, 1] == pytest.approx(10 * MOST_LINES / (MOST_LINES + 1))
    first = [p.read_bytes() for p in save(figure, tmp_path / "a", formats=("svg",))]
    again = [p.read_bytes() for p in save(sensitivity_figure(made(9)), tmp_path / "b", formats=("svg",))]
    assert first == again
