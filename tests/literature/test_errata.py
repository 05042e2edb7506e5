"""Errata: listed, applied, counted beside every number, and taken back; never in silence."""

from __future__ import annotations

import csv
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from made_corpus import corpus, fact, paper

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.literature import Corpus, lint, load_corpus, summarise_corpus, write_corpus
from shrinkbench.literature.curves import fragmentation_panels
from shrinkbench.literature.errata import Erratum, as_printed, correct, shipped_errata, tell
from shrinkbench.literature.export import RESULTS
from shrinkbench.literature.figures import plates, write_figures
from shrinkbench.literature.filters import errata_told, extract
from shrinkbench.literature.normalise import normalise
from shrinkbench.literature.standard import family_panels

VGG = ("ImageNet", "VGG-16")


def _erratum(**changes: object) -> Erratum:
    fields = {
        "paper": "a",
        "dataset": "ImageNet",
        "architecture": "VGG-16",
        "network": "a",
        "quantity": "initial_top5",
        "printed": "10.1",
        "corrected": "89.9",
        "unit": "percent",
        "reason": "an error",
        "source": "Table 7",
        **changes,
    }
    return Erratum.model_validate(fields)


FACTS = [fact("a", "initial_top5", "10.1", "percent"), fact("a", "top5_change", "-0.3", "percent")]


def _made(*errata: Erratum) -> Corpus:
    facts, listed, _ = correct(FACTS, errata)
    return replace(corpus([paper("a", 2018)], list(facts)), errata=listed)


def test_a_corrected_fact_holds_both_values_and_can_be_taken_back() -> None:
    facts, listed, unfit = correct(FACTS, [_erratum()])
    assert (facts[0].value, facts[0].printed, facts[1]) == (Decimal("89.9"), Decimal("10.1"), FACTS[1])
    assert (listed, unfit) == ((_erratum(),), ())
    assert as_printed(facts) == tuple(FACTS)
    assert correct(facts, [_erratum()]) == (facts, listed, unfit)  # once is enough


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"printed": "10.2"}, "it holds 10.1, not 10.2"),
        ({"network": "b"}, "the corpus has no such value"),
        ({"quantity": "initial_top1"}, "the corpus has no such value"),
        ({"paper": "b"}, "the corpus has no such value"),
        ({"method": "m"}, "the corpus has no such value"),
    ],
)
def test_an_erratum_changes_nothing_but_the_value_that_it_prints(
    changes: dict[str, object], problem: str
) -> None:
    facts, listed, unfit = correct(FACTS, [_erratum(**changes)])
    assert (facts, listed) == (tuple(FACTS), ())
    assert [why for _, why in unfit] == [problem]


def test_everything_derived_counts_its_errata() -> None:
    (result,) = _made(_erratum()).results
    measures = normalise(result).measures
    assert measures["initial_top5"].value == pytest.approx(0.899)
    assert (measures["initial_top5"].errata, measures["initial_top5"].is_printed) == (1, False)
    assert measures["top5"].value == pytest.approx(0.896)
    assert (measures["top5"].errata, measures["top5_change"].errata) == (1, 0)


def test_a_corpus_says_how_many_are_applied() -> None:
    made = _made(_erratum())
    told = "Errata applied: 1 (a: initial_top5 10.1 -> 89.9 percent)."
    assert made.errata_told == told
    summary = summarise_corpus(made)
    assert (summary.errata_told, summary.errata_applied) == (told, 1)
    assert summary.as_json()["errata"][0]["printed"] == "10.1"
    printed = replace(made, facts=as_printed(made.facts), as_printed=True)
    assert summarise_corpus(printed).errata_applied == 0
    assert "Read as printed, listed errata not applied: 1" in printed.errata_told
    assert corpus([paper("a", 2018)], FACTS).errata_told == ""


def test_only_results_that_it_is_about_are_told_of_an_erratum() -> None:
    made = _made(_erratum())
    (result,) = extract(made, "counts").results
    assert errata_told(made, [result]) == made.errata_told
    other = replace(result, result=replace(result.result, network="b"))
    assert errata_told(made, [other]) == ""
    initial = replace(made, errata=(_erratum(network="unpruned"),))
    assert errata_told(initial, [other])


def test_a_written_corpus_keeps_both_values_and_the_list(tmp_path: Path) -> None:
    made = _made(_erratum())
    write_corpus(made, tmp_path)
    again, printed = load_corpus(tmp_path), load_corpus(tmp_path, as_printed=True)
    assert (again.facts, again.errata) == (made.facts, made.errata)
    assert (printed.facts, printed.errata, printed.as_printed) == (tuple(FACTS), made.errata, True)
    write_corpus(printed, tmp_path)  # over the same folder: no list is left that would be applied
    assert (load_corpus(tmp_path).facts, load_corpus(tmp_path).errata) == (tuple(FACTS), ())


def test_a_list_beside_facts_as_printed_is_applied(tmp_path: Path) -> None:
    write_corpus(_made(_erratum()), tmp_path)
    errata = (tmp_path / "errata.csv").read_text(encoding="utf-8")
    write_corpus(corpus([paper("a", 2018)], FACTS), tmp_path)
    (tmp_path / "errata.csv").write_text(errata, encoding="utf-8")
    assert load_corpus(tmp_path).facts == _made(_erratum()).facts


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("10.1,89.9", "10.2,89.9", "row 2: initial_top5 of a: ImageNet / VGG-16, a: it holds 10.1, not 10.2"),
        ("10.1,89.9", "10.1,10.1", "the corrected value is the printed one, 10.1"),
        ("10.1,89.9", "10.1,high", "row 2"),
        ("percent", "million", "unit 'million' does not fit 'initial_top5'"),
        (",an error,", ",,", "reason"),
        ("printed,corrected", "printed,mended", "the column 'corrected' is missing"),
    ],
)
def test_a_bad_list_is_one_sentence(tmp_path: Path, old: str, new: str, told: str) -> None:
    made = _made(_erratum())
    write_corpus(replace(made, facts=as_printed(made.facts)), tmp_path)
    path = tmp_path / "errata.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ShrinkbenchError) as caught:
        load_corpus(tmp_path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_correction_that_is_not_listed_and_one_listed_twice(tmp_path: Path) -> None:
    made = _made(_erratum())
    write_corpus(replace(made, errata=()), tmp_path)
    with pytest.raises(ShrinkbenchError, match=r"is corrected from 10\.1 without an erratum; list it"):
        load_corpus(tmp_path)
    twice = (_erratum(), _erratum(corrected="90.1", source="another table"))
    write_corpus(replace(made, errata=twice), tmp_path)
    with pytest.raises(ShrinkbenchError, match=r"row 3: .* is corrected twice; remove one row"):
        load_corpus(tmp_path)


def test_the_shipped_list_says_why_and_by_which_source() -> None:
    assert len(shipped_errata()) == 3
    for erratum in shipped_errata():
        assert len(erratum.reason) > 20
        assert len(erratum.source) > 20
        assert erratum.printed + erratum.corrected == 100  # an error for an accuracy


def test_the_standard_network_of_the_export_is_that_of_the_other_papers(
    export_folder: Path, export: Corpus
) -> None:
    printed = load_corpus(export_folder, as_printed=True)
    found = {}
    for name, loaded in (("corrected", export), ("printed", printed)):
        panels, _, standards = family_panels(loaded)
        (vgg,) = [s for s in standards if s.pair == VGG]
        points = [(p.name, p.size, p.accuracy, p.errata) for panel in panels for p in panel.pruned]
        found[name] = (vgg, points)
    right, wrong = found["corrected"], found["printed"]
    assert (round(100 * right[0].values["top5"], 2), round(100 * wrong[0].values["top5"], 2)) == (89.09, 88.44)
    assert (right[0].errata["top5"], right[0].errata["top1"], wrong[0].errata["top5"]) == (3, 0, 0)
    moved = [(a, b) for a, b in zip(right[1], wrong[1], strict=True) if a[:3] != b[:3]]
    assert len(moved) == 48
    assert all(a[2] - b[2] == pytest.approx(0.0065) and (a[3], b[3]) == (3, 0) for a, b in moved)
    assert sum(point[3] > 0 for point in right[1]) == 48


def test_nothing_but_the_listed_numbers_differs(export_folder: Path, export: Corpus) -> None:
    printed = load_corpus(export_folder, as_printed=True)
    pairs = [(a, b) for a, b in zip(export.facts, printed.facts, strict=True) if a != b]
    assert [(a.network, b.value, a.value) for a, b in pairs] == [
        (e.network, e.printed, e.corrected) for e in shipped_errata()
    ]
    assert fragmentation_panels(export)[0] == fragmentation_panels(printed)[0]  # changes are as printed


def test_figures_and_their_tables_say_what_is_corrected(export: Corpus, tmp_path: Path) -> None:
    written = {plate.name: plate for plate, _ in write_figures(export, tmp_path, formats=("svg",))}
    assert "89.09 % top5 (median of 11 papers, 3 errata applied)" in written["figure1"].caption
    told = tell(shipped_errata(), as_printed=False)
    assert (tmp_path / "captions.md").read_text(encoding="utf-8").split("\n\n")[1].strip() == told
    for name, here in (("figure1", True), ("figure3", True), ("figure5", False)):
        assert (told in written[name].caption) == here
    with (tmp_path / "figure1.csv").open(encoding="utf-8", newline="") as file:
        touched = [row for row in csv.DictReader(file) if row["errata"] != "0"]
    assert {(row["family"], row["kind"], row["accuracy"]) for row in touched} == {("VGG", "pruned", "top5")}


def test_a_corpus_without_errata_has_captions_without_them(bundled: Corpus) -> None:
    assert not any("rrat" in plate.caption for plate in plates(bundled))


def test_lint_finds_what_the_list_corrects(export_folder: Path, export: Corpus) -> None:
    found = [f for f in lint(load_corpus(export_folder, as_printed=True)) if f.check == "unlikely-accuracy"]
    assert [f.where[-12:] for f in found] == ["(record 281)", "(record 582)", "(record 583)"]
    for finding in found:
        assert "initial_top5 = 10.1 percent" in finding.message
        assert "9 other papers have 88.24 to 90.84 % and published lists of networks 90.37 %" in finding.message
        assert "likely an error in place of an accuracy (89.9 %)" in finding.message
    assert not [f for f in lint(export) if f.check in ("unlikely-accuracy", "erratum")]


def test_an_export_that_was_mended_is_left_alone_and_says_so(export_copy: Path) -> None:
    path = export_copy / RESULTS
    path.write_text(path.read_text(encoding="utf-8").replace(",10.10%,", ",89.90%,"), encoding="utf-8")
    mended = load_corpus(export_copy)
    assert mended.errata == ()
    messages = [f.message for f in mended.findings if f.check == "erratum"]
    assert messages == ["not applied: it holds 89.9, not 10.1"] * 3


def test_the_export_is_converted_with_its_errata(export: Corpus, tmp_path: Path) -> None:
    write_corpus(export, tmp_path)
    with (tmp_path / "facts.csv").open(encoding="utf-8", newline="") as file:
        corrected = [row for row in csv.DictReader(file) if row["printed"]]
    assert [(row["value"], row["printed"]) for row in corrected] == [("89.9", "10.1")] * 3
    assert load_corpus(tmp_path).errata == export.errata
