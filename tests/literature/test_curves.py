"""Figures 1, 3 and 5 hold the curves that the paper's legends name, scaled as its footnotes say."""

from __future__ import annotations

import re
from statistics import median, stdev

import pytest
from made_corpus import corpus, fact, paper

from shrinkbench.literature import Corpus
from shrinkbench.literature.curves import (
    fragmentation_panels,
    methods_without_shared_coordinate,
    most_common_pairs,
    tradeoff_curves,
)
from shrinkbench.literature.filters import extract
from shrinkbench.literature.normalise import normalise
from shrinkbench.literature.rules import MethodMerge, Rules
from shrinkbench.literature.standard import family_panels, standard_model, variability_curves


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_the_legend_of_figure_3_is_the_papers(export: Corpus, paper_text: str) -> None:
    panels, _ = fragmentation_panels(export)
    curves = {(curve.year, curve.label) for panel in panels for curve in panel.curves}
    legend = "".join(_squeezed(label) for _, label in sorted(curves))
    assert len(curves) == 42
    assert f"{legend}Figure3:" in _squeezed(paper_text)


def test_the_legends_of_figure_5_are_the_papers(export: Corpus, paper_text: str) -> None:
    magnitude, other, _, standard = variability_curves(export)
    printed = _squeezed(paper_text)
    assert "".join(_squeezed(c.label) for c in magnitude) in printed
    assert "".join(sorted(_squeezed(c.label) for c in other)) == "".join(
        sorted(
            _squeezed(label)
            for label in (
                "Alvarez 2017",
                "Dubey 2018, AP+Coreset-A",
                "Dubey 2018, AP+Coreset-K",
                "Dubey 2018, AP+Coreset-S",
                "Gale 2019, SparseVD",
                "Huang 2018",
                "Lin 2018",
                "Liu 2019, Scratch-B",
                "Luo 2017",
                "Yamamoto 2018",
                "Zhuang 2018",
            )
        )
    )
    assert standard is not None
    assert standard.pair == ("ImageNet", "ResNet-50")


def test_every_exclusion_of_the_curves_is_counted(export: Corpus) -> None:
    _, used = fragmentation_panels(export)
    assert {a.name: a.results for a in used.excluded} == {
        "unidentified": 13,
        "weighted-densities": 19,
        "changed-architecture": 5,
        "reimplementations": 4,
        "studies": 8,
        "collapsed": 3,
    }
    total = sum(not r.collection for r in export.results)
    assert len(used.results) == total - sum(a.results for a in used.excluded)


def test_alexnet_and_caffenet_are_one_in_curves_and_two_in_counts(export: Corpus) -> None:
    counted = {n.result.architecture for n in extract(export, "counts").results}
    drawn = {n.result.architecture for n in extract(export, "curves").results}
    assert {"AlexNet", "CaffeNet"} <= counted
    assert "Alex/CaffeNet" not in counted
    assert "Alex/CaffeNet" in drawn
    assert not {"AlexNet", "CaffeNet"} & drawn


def test_residual_networks_18_and_34_are_not_among_the_four_pairs(export: Corpus) -> None:
    assert not {"ResNet-18", "ResNet-34"} & {architecture for _, architecture in most_common_pairs(export)}


def test_methods_apart_without_a_shared_coordinate_are_named(export: Corpus) -> None:
    _, used = fragmentation_panels(export)
    assert methods_without_shared_coordinate(export, used.results) == ("apple-pfa", "uiuc-coreset-pruning")


def _points(key: str, rows: list[tuple[str, str, str, str]]) -> list[object]:
    """Facts of results given as (network, method, pruned %, change)."""
    facts = []
    for network, method, pruned, change in rows:
        facts.append(fact(key, "parameters_pruned", pruned, "percent", network=network, method=method))
        facts.append(fact(key, "top1_change", change, "percent", network=network, method=method))
    return facts


def test_points_at_one_x_are_averaged_with_their_deviation() -> None:
    made = corpus(
        [paper("a", 2018)], _points("a", [("1", "", "50", "-1"), ("2", "", "50", "-3"), ("3", "", "75", "-4")])
    )
    results = [normalise(r) for r in made.results]
    (curve,) = tradeoff_curves(made, results, pair=("ImageNet", "VGG-16"), x="compression", y="top1_change")
    assert [p.x for p in curve.points] == pytest.approx([2, 4])
    assert curve.points[0].y == pytest.approx(-0.02)
    assert curve.points[0].spread == pytest.approx(stdev([-0.01, -0.03]))
    assert (curve.points[1].spread, curve.points[1].results) == (None, 1)


def test_named_methods_are_curves_unless_merged() -> None:
    papers = [paper("a", 2018)]
    facts = _points("a", [("1", "m", "50", "-1"), ("2", "n", "60", "-3")])
    pair = ("ImageNet", "VGG-16")
    apart, merged = (
        corpus(papers, facts),
        corpus(papers, facts, Rules(method_merges=(MethodMerge(paper="a", reason="r"),))),
    )
    for made, labels in ((apart, ["A 2018, m", "A 2018, n"]), (merged, ["A 2018"])):
        results = [normalise(r) for r in made.results]
        curves = tradeoff_curves(made, results, pair=pair, x="compression", y="top1_change")
        assert [c.label for c in curves] == labels


def test_two_papers_of_one_label_get_their_keys() -> None:
    first, second = paper("x-1", 2018), paper("x-2", 2018)
    papers = [p.model_copy(update={"author": "Huang"}) for p in (first, second)]
    facts = _points("x-1", [("1", "", "50", "-1")]) + _points("x-2", [("1", "", "60", "-1")])
    made = corpus(papers, facts)
    curves = tradeoff_curves(
        made, map(normalise, made.results), pair=("ImageNet", "VGG-16"), x="compression", y="top1_change"
    )
    assert [c.label for c in curves] == ["Huang 2018 (x-1)", "Huang 2018 (x-2)"]


def test_the_standard_initial_model_is_the_median_over_papers() -> None:
    facts = []
    for key, values in (("a", ["60", "60", "61"]), ("b", ["62"]), ("c", ["70"])):
        for i, value in enumerate(values):
            facts.append(fact(key, "initial_parameters", value, "million", network=str(i)))
    made = corpus([paper(k, 2018) for k in "abc"], facts)
    model = standard_model(made, map(normalise, made.results), ("ImageNet", "VGG-16"))
    assert model.values == {"parameters": 62e6}
    assert model.papers == {"parameters": 3}
    assert median([60, 62, 70]) == 62  # one value per paper, not per result


def test_figure_1_scales_pruned_networks_to_their_standard_model(export: Corpus) -> None:
    panels, used, standards = family_panels(export)
    by_pair = {s.pair: s for s in standards}
    vgg = next(p for p in panels if (p.family.name, p.size, p.accuracy) == ("VGG", "parameters", "top1"))
    model = by_pair["ImageNet", "VGG-16"]
    wanted = sorted(
        (
            model.values["parameters"] / n.measures["compression"].value,
            model.values["top1"] + n.measures["top1_change"].value,
        )
        for n in used.results
        if n.result.pair == ("ImageNet", "VGG-16") and {"compression", "top1_change"} <= n.measures.keys()
    )
    found = sorted((p.size, p.accuracy) for p in vgg.pruned if p.name == "VGG-16")
    assert [x for point in found for x in point] == pytest.approx([x for point in wanted for x in point])
    assert [p.name for p in vgg.unpruned] == ["VGG-11", "VGG-13", "VGG-16", "VGG-19"]


def test_figure_1_says_what_the_paper_says(export: Corpus) -> None:
    """Pruned networks sometimes beat the original, rarely a better architecture (Section 3.3)."""
    panels, _, _ = family_panels(export)
    top1 = {p.family.name: p for p in panels if (p.size, p.accuracy) == ("multiply_adds", "top1")}
    best_vgg = max(p.accuracy for p in top1["VGG"].pruned)
    assert best_vgg > next(p.accuracy for p in top1["VGG"].unpruned if p.name == "VGG-16")
    efficient = [(p.size, p.accuracy) for p in top1["EfficientNet"].unpruned]
    for name in ("VGG", "ResNet"):
        assert not any(
            p.accuracy > accuracy and p.size < size for p in top1[name].pruned for size, accuracy in efficient
        )
    assert not top1["EfficientNet"].pruned


def test_a_wide_range_of_magnitude_variants_as_in_figure_5(export: Corpus) -> None:
    magnitude, _, _, standard = variability_curves(export)
    assert standard is not None
    tenth = standard.values["parameters"] / 10
    at_tenth = [p.y for c in magnitude for p in c.points if p.x == pytest.approx(tenth, rel=1e-3)]
    assert len(at_tenth) == 5
    assert max(at_tenth) - min(at_tenth) > 0.04
