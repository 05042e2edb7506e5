"""The graph of comparisons and the questions to it."""

from __future__ import annotations

import pytest
from made_corpus import corpus, fact, paper

from shrinkbench.errors import UnknownNameError
from shrinkbench.literature import Corpus
from shrinkbench.literature.graph import as_dot, comparison_graph, must_compare_to


def test_degrees_and_edges_agree(export: Corpus) -> None:
    graph = comparison_graph(export)
    assert sum(graph.compares_to.values()) == sum(graph.compared_to_by.values()) == len(graph.edges) == 173
    assert not graph.dangling


def test_whom_nobody_compares_to(export: Corpus) -> None:
    graph = comparison_graph(export)
    targets = {target for _, target in graph.edges}
    never = graph.never_compared_to
    assert {p.key for p in never} == {p.key for p in export.papers} - targets
    assert [p.date for p in never] == sorted(p.date for p in never)
    assert len(never) >= 24  # "dozens of modern papers ... have never been compared to" (Section 4.1)


def test_comparisons_lead_back_in_time_but_for_four(export: Corpus) -> None:
    impossible = {(a.key, b.key) for a, b in comparison_graph(export).impossible}
    assert ("optimal-brain-surgeon", "learning-both") in impossible
    assert len(impossible) == 4


def test_what_a_new_paper_must_compare_to(export: Corpus) -> None:
    candidates = must_compare_to(export, "ImageNet", "VGG-16")
    assert len(candidates) == 22  # the first row of Table 1
    assert candidates[0].paper.key == "learning-both"
    degrees = [c.compared_to_by for c in candidates]
    assert degrees == sorted(degrees, reverse=True)
    assert all(c.results >= c.with_numbers for c in candidates)


def test_names_of_table_1_and_merged_names_are_understood(export: Corpus) -> None:
    assert len(must_compare_to(export, "CIFAR-10", "CIFAR-VGG (Torch)")) == 8
    either = {c.paper.key for c in must_compare_to(export, "ImageNet", "Alex/CaffeNet")}
    both = {c.paper.key for name in ("AlexNet", "CaffeNet") for c in must_compare_to(export, "ImageNet", name)}
    assert either == both


def test_an_unknown_pair_gets_a_hint(export: Corpus) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ImageNet / VGG-16'"):
        must_compare_to(export, "ImageNet", "VGG16")


def test_a_graph_counted_by_hand() -> None:
    papers = [
        paper("a", 2016, month=5),
        paper("b", 2016, "a", "b", "gone", month=3),
        paper("c", 2017, "a", "b"),
    ]
    graph = comparison_graph(corpus(papers, [fact("a", "evaluated")]))
    assert graph.edges == (("b", "a"), ("c", "a"), ("c", "b"))
    assert graph.dangling == (("b", "b"), ("b", "gone"))
    assert graph.compared_to_by == {"a": 2, "b": 1, "c": 0}
    assert [(x.key, y.key) for x, y in graph.impossible] == [("b", "a")]
    assert '"c" -> "b";' in as_dot(graph)


def test_an_unknown_month_decides_nothing() -> None:
    assert not paper("a", 2016, month=5).is_later_than(paper("b", 2016))
    assert paper("a", 2017).is_later_than(paper("b", 2016, month=12))
