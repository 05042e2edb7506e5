"""Each check finds what it is for, and nothing in a clean corpus."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest
from made_corpus import corpus, fact, paper

from shrinkbench.literature import Corpus, Finding, lint
from shrinkbench.literature.corpus import Corpus as MadeCorpus
from shrinkbench.literature.rules import Rules
from shrinkbench.literature.schema import Fact, Listing, Paper


def _found(facts: list[Fact], papers: list[Paper] | None = None, rules: Rules | None = None) -> list[Finding]:
    return list(lint(corpus(papers or [paper("a", 2018)], facts, rules)))


def _checks(findings: list[Finding]) -> set[str]:
    return {finding.check for finding in findings}


def test_a_clean_corpus_has_no_findings() -> None:
    facts = [
        fact("a", "top1", "70.5", "percent"),
        fact("a", "initial_top1", "71.5", "percent"),
        fact("a", "top1_change", "-1.0", "percent"),
        fact("a", "parameters_pruned", "75", "percent"),
        fact("a", "compression", "4.0", "ratio"),
        fact("a", "initial_operations", "15.5", "billion"),
    ]
    assert _found(facts) == []


@pytest.mark.parametrize(
    ("facts", "check", "told"),
    [
        (
            [("top1", "70", "percent"), ("initial_top1", "75", "percent"), ("top1_change", "-2", "percent")],
            "does-not-add-up",
            "-0.05 (top1 - initial_top1) but -0.02 (as printed)",
        ),
        (
            [("parameters_pruned", "75", "percent"), ("parameters_kept", "30", "percent")],
            "does-not-add-up",
            "compression",
        ),
        ([("top1", "101", "percent")], "impossible-value", "between 0 and 100 %"),
        ([("parameters_pruned", "-3", "percent")], "impossible-value", "between 0 and 100 %"),
        ([("top1_change", "1.5", "fraction")], "impossible-value", "-100 and 100 points"),
        ([("compression", "0", "ratio")], "impossible-value", "is positive"),
        (
            [("parameters", "70", "million"), ("initial_parameters", "60", "million")],
            "grew",
            "more parameters after",
        ),
        ([("initial_parameters", "60", "million")], "initial-size", "where 138.4 M are usual"),
        ([("initial_operations", "22", "billion")], "operations-convention", "15.47 G multiply-adds"),
    ],
)
def test_values(facts: list[tuple[str, str, str]], check: str, told: str) -> None:
    findings = _found([fact("a", *each) for each in facts])
    assert any(f.check == check and told in f.message for f in findings)


def _initial(values: dict[str, str], quantity: str = "initial_top5", **more: object) -> list[Finding]:
    """What is found about one accuracy of each paper."""
    facts = [fact(key, quantity, value, "percent", **more) for key, value in values.items()]
    return [f for f in _found(facts, [paper(key, 2018) for key in values]) if f.check == "unlikely-accuracy"]


@pytest.mark.parametrize(
    ("quantity", "others", "value", "told"),
    [
        ("initial_top5", ("89.9", "90.4"), "10.1", "likely an error in place of an accuracy (89.9 %)"),
        ("initial_top5", ("89.9", "90.4"), "7.1", "2 other papers have 89.9 to 90.4 % before pruning"),
        ("initial_top1", ("76.1", "75.3"), "0.76", "likely a fraction in place of a percentage (76 %)"),
        ("initial_top1_error", ("23.9", "24.7"), "76.1", "likely an accuracy in place of an error (23.9 %)"),
        ("initial_top1_error", ("6.2", "6.9"), "0.062", "likely a fraction in place of a percentage (6.2 %)"),
        ("initial_top1", ("76.1", "75.3"), "57.2", "likely another network, another metric or a misprint"),
        ("initial_top5", ("89.9",), "10.1", "where 1 other paper has 89.9 %"),
    ],
)
def test_an_accuracy_unlike_those_of_the_other_papers(
    quantity: str, others: tuple[str, ...], value: str, told: str
) -> None:
    values = {**dict(zip("bc", others, strict=False)), "a": value}
    (finding,) = _initial(values, quantity)
    assert finding.where.startswith("a: ImageNet / VGG-16")
    assert f"{quantity} = {value} percent" in finding.message
    assert told in finding.message


@pytest.mark.parametrize(
    "values",
    [
        {"a": "10.1"},  # nothing to compare with
        {"a": "10.1", "b": "10.9"},
        {"a": "88.4", "b": "89.9", "c": "90.8"},
        {"a": "62.4", "b": "57.2", "c": "56.8"},  # other crops
    ],
)
def test_accuracies_that_are_like_each_other_are_no_finding(values: dict[str, str]) -> None:
    assert _initial(values) == []


def test_another_dataset_or_network_is_no_standard() -> None:
    others = [fact(key, "initial_top5", "89.9", "percent", dataset="Places") for key in "bc"]
    facts = [fact("a", "initial_top5", "10.1", "percent"), *others]
    assert _found(facts, [paper(key, 2018) for key in "abc"]) == []
    unknown = {"a": "10.1", "b": "89.9", "c": "90.1"}
    assert _initial(unknown, architecture="???") == []


def test_the_published_list_is_a_standard_too() -> None:
    item = Listing(
        catalogue="list",
        dataset="ImageNet",
        architecture="VGG-16",
        quantity="top5",
        value=Decimal("90.37"),
        unit="percent",
        source="row",
    )
    made = corpus([paper("a", 2018)], [fact("a", "initial_top5", "9.9", "percent")])
    (finding,) = lint(MadeCorpus(**{**made.__dict__, "listings": (item,)}))
    assert "where published lists of networks 90.37 % before pruning: likely an error" in finding.message


@pytest.mark.parametrize(
    ("value", "before", "told"),
    [
        ("0.76", "76.1", "likely a fraction in place of a percentage (76 %), unless the network has collapsed"),
        ("25.2", "76.1", "likely an error in place of an accuracy (74.8 %)"),
        ("10.0", "76.1", ""),  # a network that has collapsed
        ("44.6", "57.8", ""),  # both readings are near
        ("60.0", "76.1", ""),
        ("76.3", "76.1", ""),
    ],
)
def test_accuracies_after_pruning_are_compared_with_those_before(value: str, before: str, told: str) -> None:
    facts = [fact("a", "top1", value, "percent"), fact("a", "initial_top1", before, "percent")]
    messages = [f.message for f in _found(facts) if f.check == "unlikely-accuracy"]
    assert len(messages) == bool(told)
    assert not told or told in messages[0]


def test_a_curve_that_falls_is_no_error_in_place_of_an_accuracy() -> None:
    low = [fact("a", "top1", "25.2", "percent"), fact("a", "initial_top1", "76.1", "percent")]
    assert _checks(_found(low)) == {"unlikely-accuracy"}
    between = [fact("a", "top1", "50", "percent", network="b")]
    assert _found(low + between) == []


def test_the_initial_accuracy_of_other_papers_stands_in_where_the_own_one_is_wrong() -> None:
    facts = [
        fact("a", "top5", "88.9", "percent"),
        fact("a", "initial_top5", "10.1", "percent"),
        *(fact(key, "initial_top5", "89.9", "percent") for key in "bc"),
    ]
    found = _found(facts, [paper(key, 2018) for key in "abc"])
    assert ["initial_top5 = 10.1" in f.message for f in found] == [True]


def test_later_and_unknown_comparisons() -> None:
    papers = [paper("a", 2016, "b", "nobody"), paper("b", 2018)]
    findings = _found([fact("a", "evaluated"), fact("b", "evaluated")], papers)
    assert _checks(findings) == {"compares-to-later-paper", "dangling-comparison"}


def test_a_result_printed_twice_with_two_values() -> None:
    same = [fact("a", "top1", "70.5", "percent"), fact("a", "top1", "70.50", "percent", source="Table 2")]
    other = [fact("a", "top1", "70.5", "percent"), fact("a", "top1", "71.9", "percent", source="Table 2")]
    assert _found(same) == []
    (finding,) = _found(other)
    assert finding.check == "printed-twice"
    assert "70.5 in Table 1 but 71.9 in Table 2" in finding.message


def test_parts_that_do_not_add_up_to_the_total() -> None:
    def layers(widths: tuple[int, int]) -> list[Fact]:
        parts = [
            fact("a", "channels", str(w), "one", network=n, part=f"layer {i}")
            for n, ws in (("unpruned", (64, 64)), ("60 %", widths))
            for i, w in enumerate(ws)
        ]
        return [*parts, fact("a", "evaluated")]

    (finding,) = _found(layers((40, 24)))
    assert finding.check == "total"
    assert "50.0% pruned, the table is about 60 %" in finding.message
    assert _found(layers((30, 21))) == []  # 51 of 128: 60.2 % pruned


def test_two_names_and_two_papers_of_one_label() -> None:
    papers = [paper("a", 2018), paper("b", 2018).model_copy(update={"author": "A"})]
    facts = [fact("a", "evaluated"), fact("b", "evaluated", architecture="vgg16")]
    assert _checks(_found(facts, papers)) == {"two-names", "one-label"}


def test_unidentified_uncertain_and_missing() -> None:
    facts = [fact("a", "top1", "70.5", "percent", architecture="???", note="uncertain: smudged")]
    assert _checks(_found(facts, [paper("a", 2018), paper("b", 2018)])) == {
        "unidentified",
        "uncertain-reading",
        "no-results",
    }


def test_an_undefined_ratio_names_its_readings() -> None:
    (finding,) = _found(
        [fact("a", "parameters_pruned", "60", "percent", note="they say 60% compression ratio")]
    )
    assert finding.check == "ambiguous-convention"
    assert "fraction pruned: 2.5x" in finding.message
    assert "fraction kept: 1.67x" in finding.message


def test_listed_operations_that_look_exchanged() -> None:
    listings = tuple(
        Listing(
            catalogue="list",
            dataset="ImageNet",
            architecture=name,
            quantity="operations",
            value=Decimal(value),
            unit="billion",
            source="row",
        )
        for name, value in (
            ("DenseNet-161 (k=48)", "4.29"),
            ("DenseNet-201 (k=32)", "7.73"),
            ("VGG-16", "15.35"),
        )
    )
    made = corpus([paper("a", 2018)], [fact("a", "evaluated")])
    findings = lint(MadeCorpus(**{**made.__dict__, "listings": listings}))
    assert [f.check for f in findings] == ["listed-operations"] * 2
    assert "DenseNet-201 (k=32) would fit" in findings[0].message


def test_what_is_wrong_in_the_export(export: Corpus) -> None:
    findings = lint(export)
    counts = Counter(finding.check for finding in findings)
    assert counts["unidentified"] == 13
    assert counts["compares-to-later-paper"] == 4
    assert counts["does-not-add-up"] == 4
    assert counts["listed-operations"] == 3  # the three exchanged DenseNets
    text = "\n".join(f"{f.where} {f.message}" for f in findings)
    assert "Hassibi 1993" in text
    assert "perhaps LeNet-5-Caffe" in text
    assert "LeNet-300-100 = fc300-100" in text
    assert "0.371 G initial operations" in text


def test_the_bundled_tables_are_consistent(bundled: Corpus) -> None:
    counts = Counter(finding.check for finding in lint(bundled))
    assert set(counts) == {"uncertain-reading"}
