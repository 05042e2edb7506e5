"""Figures show what they are to show, leave no trace and repeat byte for byte."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib as mpl
import pytest
from made_corpus import corpus, fact, paper

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.literature import Corpus, summarise_corpus
from shrinkbench.literature.curve_figures import legend_columns
from shrinkbench.literature.curves import fragmentation_panels
from shrinkbench.literature.figures import Plate, plates, write_figures

NAMES = ("figure1", "figure2", "figure3", "figure4", "figure5", "comparison_graph")


@pytest.fixture(scope="module")
def drawn(export: Corpus) -> dict[str, Plate]:
    return {plate.name: plate for plate in plates(export)}


def test_all_figures_are_drawn(drawn: dict[str, Plate]) -> None:
    assert tuple(drawn) == NAMES
    assert all(plate.figure is not None and plate.rows for plate in drawn.values())


def test_figure_3_has_the_panels_of_the_paper(drawn: dict[str, Plate], export: Corpus) -> None:
    figure = drawn["figure3"].figure
    assert figure is not None
    # Four columns and four rows, but nobody reports top-5 of ResNet-56 on CIFAR-10.
    assert len(figure.axes) == 14
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [
        "VGG-16 on ImageNet",
        "Alex/CaffeNet on ImageNet",
        "ResNet-50 on ImageNet",
        "ResNet-56 on CIFAR-10",
    ]
    panels, _ = fragmentation_panels(export)
    wanted = [len(panel.curves) for panel in panels if panel.curves]
    labelled = [
        [line for line in axes.get_lines() if not line.get_label().startswith("_")] for axes in figure.axes
    ]
    assert sorted(map(len, labelled)) == sorted(wanted)


def test_only_he_2018_has_bars_in_figure_3(drawn: dict[str, Plate]) -> None:
    """ "Standard deviations are shown for He 2018 on CIFAR-10, which is the only result that provides any.\""""
    with_spread = {row["method"] for row in drawn["figure3"].rows if row["spread"] is not None}
    assert with_spread == {"He, Yang 2018", "He, Yang 2018, Fine-Tune"}


def test_curves_of_one_panel_can_be_told_apart_without_colour(drawn: dict[str, Plate]) -> None:
    for name in ("figure3", "figure5"):
        figure = drawn[name].figure
        assert figure is not None
        looks: dict[str, tuple[object, ...]] = {}
        for axes in figure.axes:
            for line in axes.get_lines():
                if not line.get_label().startswith("_"):
                    face = line.get_markerfacecolor() == "white"
                    looks[line.get_label()] = (line.get_marker(), face, line.get_color())
        assert len(set(looks.values())) == len(looks)


def test_bars_of_the_histograms_add_up_to_the_papers(drawn: dict[str, Plate], export: Corpus) -> None:
    figure = drawn["figure2"].figure
    assert figure is not None
    for axes in figure.axes:
        assert sum(bar.get_height() for bar in axes.patches) == summarise_corpus(export).papers


def test_captions_count_exclusions(drawn: dict[str, Plate]) -> None:
    caption = drawn["figure3"].caption
    assert "42 methods of 36 papers" in caption
    assert "unidentified: 13 results" in caption
    assert "weighted-densities: 19 results" in caption
    assert "merge Alex/CaffeNet: 44 results" in caption
    assert "median of" in drawn["figure1"].caption


@pytest.mark.slow
def test_files_repeat_byte_for_byte_and_leave_no_trace(tmp_path: Path) -> None:
    made = corpus([paper("a", 2018), paper("b", 2019, "a")], [fact("a", "evaluated")])
    before = dict(mpl.rcParams)
    first = write_figures(made, tmp_path / "a")
    write_figures(made, tmp_path / "b")
    assert dict(mpl.rcParams) == before
    files = [path.name for _, paths in first for path in paths]
    assert {Path(name).suffix for name in files} == {".svg", ".pdf", ".png", ".csv"}
    for name in [*files, "captions.md"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_only_the_formats_asked_for(tmp_path: Path) -> None:
    made = corpus([paper("a", 2018)], [fact("a", "evaluated")])
    files = [path.name for _, paths in write_figures(made, tmp_path, formats=["png"]) for path in paths]
    assert {Path(name).suffix for name in files} == {".png", ".csv"}
    with pytest.raises(ShrinkbenchError, match="not as 'jpg'"):
        write_figures(made, tmp_path, formats=["jpg"])


def test_the_bundled_corpus_draws_all_but_figure_1(bundled: Corpus) -> None:
    found = {plate.name: plate for plate in plates(bundled)}
    assert [name for name, plate in found.items() if plate.figure is None] == ["figure1"]
    assert "no list of unpruned networks" in found["figure1"].caption


def test_an_almost_empty_corpus_draws_what_there_is(tmp_path: Path) -> None:
    made = corpus([paper("a", 2018)], [fact("a", "evaluated")])
    written = {plate.name: paths for plate, paths in write_figures(made, tmp_path, formats=["svg"])}
    assert not written["figure3"]
    assert not written["figure5"]
    assert written["figure2"]
    assert "Not drawn" in (tmp_path / "captions.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_data_of_a_figure_stand_beside_it(bundled: Corpus, tmp_path: Path) -> None:
    write_figures(bundled, tmp_path, formats=["png"])
    with (tmp_path / "figure3.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    vgg = [
        r
        for r in rows
        if r["architecture"] == "VGG-16" and r["method"].endswith("scratch-B") and r["x"] == "speedup"
    ]
    assert [float(r["y_value"]) for r in vgg] == pytest.approx([0.9378 - 0.9363])
    assert [float(r["x_value"]) for r in vgg] == pytest.approx([313_463_808 / 206_279_680])


def test_legends_fit() -> None:
    assert legend_columns(["x" * 80], width=6.75, fontsize=6, most=4) == 1
    assert legend_columns(["x" * 10], width=6.75, fontsize=6, most=4) == 4
