"""Tradeoff figures stay readable: collapsed methods, many methods, long names."""

import itertools

import made_results
import matplotlib as mpl
import numpy as np
import pytest
from made_results import make_results

from shrinkbench.plotting import STRIP, Mark, draw_strip, new_figure, shortened_apart, text_width
from shrinkbench.report.figures import OFF_SCALE, efficiency_figure, readable_floor, tradeoff_figure
from shrinkbench.report.legends import lay_out
from shrinkbench.report.statistics.observations import aggregate, observe

PAIR = [("cifar10", "resnet20")]


def store(collapsed, *, methods=tuple(made_results.METHODS), pairs=PAIR):
    """Equal slopes but for the methods that collapse to 10 % wherever they prune."""

    def accuracy(spec):
        if spec.is_control:
            return 0.93
        if spec.method.name in collapsed:
            return 0.1
        loss = 0.004 * (1 + list(methods).index(spec.method.name))
        return 0.93 - loss * np.log2(spec.amount.ratio)

    return observe(make_results(pairs=pairs, methods=methods, accuracy=accuracy, seeds=(0, 1)))


def marks_of(figure, panel):
    """Where the marks outside a panel lie, in inches from its lower left corner, and their looks."""
    figure.draw_without_rendering()
    found = []
    for line in panel.get_lines():
        if line.get_markerfacecolor() == "white":
            at = line.get_transform().transform(np.column_stack(line.get_data()))[0]
            found.append(((at - [panel.bbox.x0, panel.bbox.y0]) / figure.dpi, line.get_marker()))
    return found


def test_a_collapsed_method_leaves_the_others_readable():
    observations = store({"random"})
    figure = tradeoff_figure(observations, metric="top1", axis="compression")
    panel = figure.axes[0]
    low, high = panel.get_ylim()
    rows = observations.pruned[observations.pruned["method"] != "random"]
    assert low < rows["top1"].quantile(0.1)
    assert (rows["top1"].max() - rows["top1"].quantile(0.1)) / (high - low) > 0.5
    marks = marks_of(figure, panel)
    cells = aggregate(observations.pruned, ["top1"])["top1"]
    assert len(marks) == (cells < low).sum() >= 5
    assert all(-STRIP <= y < 0 for (_, y), _ in marks)  # none lies inside the panel
    bars = [bar for found in panel.collections for bar in found.get_segments() if len(bar) == 2]
    assert all(bar.mean(axis=0)[1] >= low for bar in bars)  # none stands without its point
    texts = [text.get_text() for text in panel.texts]
    assert texts == [f"10–{np.ceil(100 * low):.0f} %"]
    assert OFF_SCALE in [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("collapsed", [set(), set(made_results.METHODS)])
def test_where_none_or_all_collapse_nothing_is_cut(collapsed):
    observations = store(collapsed)
    figure = tradeoff_figure(observations, metric="top1", axis="compression")
    low, _ = figure.axes[0].get_ylim()
    assert low < observations.pruned["top1"].min()
    assert not marks_of(figure, figure.axes[0])
    assert not figure.texts


def test_only_the_panel_with_a_collapse_is_cut():
    def accuracy(spec):
        gone = spec.method.name == "random" and spec.model.name == "resnet56" and not spec.is_control
        return 0.1 if gone else 0.93 - (0 if spec.is_control else 0.01 * np.log2(spec.amount.ratio))

    pairs = [*PAIR, ("cifar10", "resnet56")]
    made = observe(make_results(pairs=pairs, accuracy=accuracy))
    for figure in (
        tradeoff_figure(made, metric="top1", axis="compression"),
        efficiency_figure(made, metric="top1"),
    ):
        assert [len(panel.texts) for panel in figure.axes] == [0, 1]


def test_the_floor_is_that_of_its_definition():
    good = [np.array([0.92, 0.90, 0.88, 0.84]), np.array([0.93, 0.92, 0.90, 0.86])]
    gone = np.array([0.2, 0.1, 0.1, 0.1])
    # The better two of three: their lower quartile is 0.875, a drop of 0.055 from 0.93.
    better = np.concatenate(good)
    expected = 0.93 - 3 * (0.93 - np.quantile(better, 0.25))
    assert readable_floor([*good, gone]) == pytest.approx(expected)
    assert readable_floor([*good, gone], [0.94]) == pytest.approx(0.94 - 3 * (0.94 - np.quantile(better, 0.25)))
    assert readable_floor([*good, gone], [0.5]) is None  # a control is always shown, and no half is saved then
    assert readable_floor(good) is None
    assert readable_floor([]) is None
    alike = [np.full(4, 0.9)] * 3
    assert readable_floor([*alike, gone]) == pytest.approx(0.88)  # at least two points are shown


def test_marks_at_one_place_stand_side_by_side_inside_the_panel():
    figure = new_figure()
    panel = figure.subplots()
    panel.set(xscale="log", xlim=(1, 32), ylim=(0, 1))
    draw_strip(panel, [Mark(32.0, "k", "o")] * 6 + [Mark(1.0, "k", "s")] * 6, range_text="0–9 %")
    places = [x for (x, _), _ in marks_of(figure, panel)]
    width = panel.bbox.width / figure.dpi
    assert 0 < min(places) < max(places) < width
    assert min(b - a for a, b in itertools.pairwise(sorted(places))) > 3 / 72


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [PAIR, [("a", "m"), ("b", "m"), ("c", "m"), ("d", "m")]])
@pytest.mark.parametrize("count", [2, 7, 12])
def test_a_legend_takes_a_fifth_at_most(monkeypatch, pairs, count):
    names = [f"{'method' * 8}[structure={index}]" for index in range(count)]
    for name in names:
        monkeypatch.setitem(made_results.METHODS, name, made_results.method(name, "magnitude"))
    made = observe(make_results(pairs=pairs, methods=names, seeds=(0,), accuracy=lambda spec: 0.9))
    figure = tradeoff_figure(made, metric="top1", axis="compression")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.height <= 0.21 * figure.bbox.height
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    texts = [text.get_text() for text in legend.get_texts()]
    assert len(set(texts)) == count + 1
    assert box.y0 >= max(panel.title.get_window_extent().y1 for panel in figure.axes) - 3


def test_a_label_stands_in_place_of_the_name():
    figure = tradeoff_figure(store(set()).renamed({"random": "R"}), metric="top1", axis="compression")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "R" in texts
    assert "random" not in texts


def test_shortened_names_stay_apart():
    names = [f"{'x' * 30}{index}{'y' * 30}" for index in range(20)]
    assert len(set(shortened_apart(names, 5).values())) == 20
    assert shortened_apart(["a", "b"], 1) == {"a": "a", "b": "b"}


NUMBERED = [f"method_number_{n}_of_twelve" for n in range(12)]
UNLIKE = [c * 30 + str(n) + c * 30 for n, c in enumerate("abcdefghijkl")]


@pytest.mark.parametrize("names", [NUMBERED, [f"{name}{name}" for name in NUMBERED], UNLIKE])
@pytest.mark.parametrize("alone", [True, False])
def test_a_legend_is_as_wide_as_the_figure_at_most(names, alone):
    """Names that differ in their middle alone cannot lose it."""
    legend, width, _ = lay_out({name: name for name in [*names, "control"]}, rows=1, alone=alone)
    widest = max(map(text_width, legend.entries.values()))
    assert legend.columns * (widest + 0.42) <= width or legend.columns == 1
    assert len(set(legend.entries.values())) == len(names) + 1


def test_drawing_leaves_no_settings_behind():
    before = dict(mpl.rcParams)
    tradeoff_figure(store({"random"}), metric="top1", axis="compression")
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", ["_mine", "__init__", "a$^$b"])
def test_a_name_that_begins_with_an_underscore_stands_in_the_legend(name):
    made = store(set()).renamed({"random": name})
    for figure in (
        tradeoff_figure(made, metric="top1", axis="compression"),
        efficiency_figure(made, metric="top1"),
    ):
        figure.draw_without_rendering()
        assert name in {text.get_text().strip() for legend in figure.legends for text in legend.get_texts()}
