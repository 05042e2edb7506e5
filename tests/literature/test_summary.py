"""Counts equal the paper's, each exclusion is named and counted, and what differs from print says why."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from made_corpus import corpus, fact, paper

from shrinkbench.errors import UnknownNameError
from shrinkbench.literature import Corpus, summarise_corpus
from shrinkbench.literature.filters import extract
from shrinkbench.literature.rules import Exclusion, Rules, Where

TABLE1 = {
    ("ImageNet", "VGG-16"): 22,
    ("ImageNet", "ResNet-50"): 15,
    ("MNIST", "LeNet-5-Caffe"): 14,
    ("CIFAR-10", "ResNet-56"): 14,
    ("MNIST", "LeNet-300-100"): 12,
    ("MNIST", "LeNet-5"): 11,
    ("ImageNet", "CaffeNet"): 10,
    ("CIFAR-10", "CIFAR-VGG (Torch)"): 8,
    ("ImageNet", "AlexNet"): 8,
    ("ImageNet", "ResNet-18"): 6,
    ("ImageNet", "ResNet-34"): 6,
    ("CIFAR-10", "ResNet-110"): 5,
    ("CIFAR-10", "PreResNet-164"): 4,
    ("CIFAR-10", "ResNet-32"): 4,
}


def test_the_counts_of_section_4(export: Corpus) -> None:
    found = summarise_corpus(export)
    assert (found.papers, found.datasets, found.architectures, found.pairs) == (81, 49, 132, 195)


def test_table_1(export: Corpus) -> None:
    found = summarise_corpus(export)
    assert {(row.dataset, row.architecture): row.papers for row in found.table1} == TABLE1
    assert [row.papers for row in found.table1] == sorted(TABLE1.values(), reverse=True)


def test_table_1_stands_in_the_paper_as_it_stands_here(paper_text: str) -> None:
    start = paper_text.index("Number of Papers using Pair ImageNet")
    printed = paper_text[start : paper_text.index("Table 1 : All combinations")]
    printed = printed.replace(" - ", "-").replace("( Torch )", "(Torch)")
    for (dataset, architecture), papers in TABLE1.items():
        assert f"{dataset} {architecture} {papers}" in printed


def test_both_exclusions_are_needed_and_counted(export: Corpus) -> None:
    applied = {a.name: a.results for a in summarise_corpus(export).exclusions["counts"]}
    assert applied == {"unidentified": 13, "weighted-densities": 19}
    raw = summarise_corpus(export, keep=["unidentified", "weighted-densities"])
    assert (raw.datasets, raw.architectures, raw.pairs) == (52, 136, 208)
    assert not raw.exclusions["counts"]
    assert summarise_corpus(export, keep=["weighted-densities"]).pairs == 196


def test_unknown_exclusion(export: Corpus) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'unidentified'"):
        extract(export, "counts", keep=["unidentifed"])


def test_what_the_export_does_not_reproduce_is_said_with_its_reason(export: Corpus) -> None:
    differs = {d.number: d for d in summarise_corpus(export).differs_from_print}
    assert set(differs) == {"papers_since_2010", "papers_before_2010", "papers_on_four_pairs"}
    years = differs["papers_since_2010"]
    assert (years.printed, years.found) == (79, 78)
    assert "Tresp 1997 (early-brain-damage)" in years.why
    four = differs["papers_on_four_pairs"]
    assert (four.printed, four.found) == (37, 45)
    assert "of which 36 give" in four.why
    assert "it would be 37" in four.why


def test_shares_of_papers_by_comparisons(export: Corpus, export_folder: Path) -> None:
    with (export_folder / "Papers-Grid view.csv").open(encoding="utf-8-sig", newline="") as file:
        degrees = [len([x for x in row["Compares To"].split(",") if x]) for row in csv.DictReader(file)]
    found = summarise_corpus(export)
    assert found.compare_to_none == sum(d == 0 for d in degrees) == 21
    assert found.compare_to_at_most_one == sum(d <= 1 for d in degrees) == 43
    assert found.compare_to_at_most_three == sum(d <= 3 for d in degrees) == 64
    assert found.as_json()["compare_to_at_most_one_share"] == pytest.approx(43 / 81, abs=1e-4)


def test_figure_2_keeps_each_degree_with_its_own_paper(export: Corpus, export_folder: Path) -> None:
    """Counted again from the file, paper by paper: sorting degrees apart from papers would mix the split."""
    with (export_folder / "Papers-Grid view.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    targets = Counter(t for row in rows for t in row["Compares To"].split(",") if t)
    wanted: dict[str, dict[str, Counter[int]]] = {
        name: {"peer_reviewed": Counter(), "other": Counter()} for name in ("compared_to_by", "compares_to")
    }
    for row in rows:
        side = "other" if row["Venue"] in ("arXiv", "OpenReview", "CVPR Workshops") else "peer_reviewed"
        wanted["compared_to_by"][side][targets[row["Name"]]] += 1
        wanted["compares_to"][side][len([t for t in row["Compares To"].split(",") if t])] += 1
    assert summarise_corpus(export).figure2 == {
        name: {side: dict(counts) for side, counts in sides.items()} for name, sides in wanted.items()
    }


def test_figure_4_is_about_the_four_pairs_of_the_paper(export: Corpus) -> None:
    found = summarise_corpus(export)
    assert found.four_pairs == (
        ("ImageNet", "VGG-16"),
        ("ImageNet", "Alex/CaffeNet"),
        ("ImageNet", "ResNet-50"),
        ("CIFAR-10", "ResNet-56"),
    )
    papers = sum(n for side in found.figure4["pairs_per_paper"].values() for n in side.values())
    only_toys = {n.result.paper for n in extract(export, "counts").results} - {
        n.result.paper for n in extract(export, "counts").results if n.result.dataset != "MNIST"
    }
    assert papers == 79 - len(only_toys)  # two of 81 papers have nothing but excluded results
    curves = found.figure4["points_per_curve"]
    ones, all_curves = (
        sum(s.get(1, 0) for s in curves.values()),
        sum(n for s in curves.values() for n in s.values()),
    )
    assert ones == max(sum(s.get(k, 0) for s in curves.values()) for k in range(1, 10))  # "often just one"
    assert (
        sum(n for s in curves.values() for k, n in s.items() if k <= 3) > 0.75 * all_curves
    )  # "at most three"


def test_a_corpus_counted_by_hand() -> None:
    papers = [
        paper("a", 2016),
        paper("b", 2017, "a"),
        paper("c", 2018, "a", "b", peer_reviewed=False),
        paper("d", 2018, "a"),
    ]
    facts = [
        fact("a", "evaluated"),
        fact("b", "evaluated"),
        fact("b", "evaluated", dataset="MNIST", architecture="LeNet-5"),
        fact("c", "evaluated", architecture="???"),
        fact("d", "evaluated"),
        fact("d", "compression", "2", "ratio", network="b"),
        fact("d", "top1_change", "-1", "percent", network="b"),
    ]
    where = (Where(architecture=("???",)),)
    rules = Rules(
        exclusions=(Exclusion(name="unidentified", reason="no name", scope=("counts",), where=where),)
    )
    found = summarise_corpus(corpus(papers, facts, rules))
    assert (found.papers, found.datasets, found.architectures, found.pairs) == (4, 2, 2, 2)
    assert (found.results, found.results_with_numbers) == (5, 1)
    assert (found.compare_to_none, found.compare_to_at_most_one, found.never_compared_to) == (1, 3, 2)
    assert found.figure2["compared_to_by"] == {"peer_reviewed": {0: 1, 1: 1, 3: 1}, "other": {0: 1}}
    assert found.figure4["pairs_per_paper"] == {"peer_reviewed": {1: 3}, "other": {}}
    assert found.figure4["points_per_curve"] == {"peer_reviewed": {1: 1}, "other": {}}
    assert not found.table1
    assert not found.differs_from_print


def test_the_bundled_corpus_counts_its_one_paper(bundled: Corpus) -> None:
    found = summarise_corpus(bundled)
    assert (found.papers, found.compare_to_none, found.datasets) == (1, 0, 4)
    assert found.figure2["compares_to"]["peer_reviewed"] == {8: 1}
