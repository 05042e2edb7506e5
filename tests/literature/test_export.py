"""The published export is read whole, traps included, and a damaged one is one clear sentence."""

from __future__ import annotations

import csv
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.literature import Corpus, load_corpus
from shrinkbench.literature.export import PAPERS, RESULTS


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_every_number_of_the_results_table_is_a_fact(export: Corpus, export_folder: Path) -> None:
    columns = [
        "Err1",
        "Err5",
        "Top1",
        "dTop1",
        "Top5",
        "dTop5",
        "MParams",
        "savedParams",
        "keptParams",
        "GFLOPS",
        "savedFLOPS",
        "keptFLOPS",
        "OrigTop1",
        "OrigTop5",
        "OrigMParams",
        "OrigGFLOPS",
        "OrigErr1",
        "OrigErr5",
        "old/new Nparam",
        "old/new FLOPS",
    ]
    rows = _rows(export_folder / RESULTS)
    numbers = sum(bool(row[column]) for row in rows for column in columns)
    blank = sum(not any(row[column] for column in columns) for row in rows)
    main = [fact for fact in export.facts if not fact.collection]
    counts = Counter(fact.quantity == "evaluated" for fact in main)
    assert (counts[False], counts[True]) == (numbers, blank)
    assert sum(result.collection == "" for result in export.results) == len(rows)


def test_a_record_reads_as_it_stands_in_the_file(export: Corpus, export_folder: Path) -> None:
    (row,) = [row for row in _rows(export_folder / RESULTS) if row["Name"] == "172"]
    (result,) = [r for r in export.results if r.network == "record 172"]
    assert row["dTop5"] == "0.000%"
    assert result.facts["top5_change"].value == Decimal("0.0")
    assert row["OrigMParams"] == "61.000"
    assert result.facts["initial_parameters"].scaled == 61_000_000
    assert row["savedParams"] == "89.00%"
    assert result.facts["parameters_pruned"].scaled == pytest.approx(0.89)
    assert result.facts["top1"].source == "table 4 (record 172)"


def test_padding_zeros_claim_no_precision(export: Corpus) -> None:
    (result,) = [r for r in export.results if r.network == "record 172"]
    assert result.facts["initial_operations"].value == Decimal("1.5")  # 1.500 in the file
    assert result.facts["initial_parameters"].resolution == 1_000_000


def test_names_with_commas_and_dates_without_zeros(export: Corpus) -> None:
    soft = export.paper("soft-filter-pruning")
    assert (soft.author, soft.year, soft.month, soft.date) == ("He, Yang", 2018, 8, "2018-08")
    assert export.paper("SNIP").compares_to[-1] == "welling-slow-quantize+prune"


def test_titles_survive_braces_and_line_breaks(export: Corpus) -> None:
    assert all(paper.title for paper in export.papers)
    assert (
        export.paper("thinet-channel-norms").title.lower().startswith("thinet: a filter level pruning method")
    )


def test_spreads_and_trials_are_kept(export: Corpus, export_folder: Path) -> None:
    rows = [row for row in _rows(export_folder / RESULTS) if row["stdTop1"]]
    spreads = [
        f for f in export.facts if f.spread is not None and f.quantity.startswith("top1") and not f.collection
    ]
    assert len(spreads) == len(rows) == 16
    assert {fact.spread_kind for fact in spreads} == {"standard deviation"}


def test_deleted_records_and_repeated_names_are_reported(export: Corpus) -> None:
    by_check = Counter(finding.check for finding in export.findings)
    assert by_check["deleted-reference"] == 8
    (repeated,) = [f for f in export.findings if f.check == "repeated-name"]
    assert "SqueezeNet" in repeated.message


def test_supplements_take_the_initial_accuracy_of_their_paper(export: Corpus) -> None:
    lottery = [r for r in export.results if r.collection == "lottery-tix"]
    assert len(lottery) == 5 * (7 + 5)  # five sizes; seven epochs to reset to, five to prune at
    assert {r.facts["initial_top1"].value for r in lottery} == {Decimal("76.14")}
    assert all(r.facts["top1"].spread_kind == "maximum deviation" for r in lottery)


def test_a_checkout_that_holds_the_export_will_do(
    export_copy: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    checkout = tmp_path_factory.mktemp("checkout")
    target = checkout / "analysis" / "assets" / "existing-results"
    target.parent.mkdir(parents=True)
    target.symlink_to(export_copy)
    assert len(load_corpus(checkout).papers) == 81


def test_without_supplements_the_corpus_says_so(export_copy: Path) -> None:
    absent = [finding.where for finding in load_corpus(export_copy).findings if finding.check == "absent"]
    assert "lottery-tix" in absent
    assert "pytorch-pretrained/ModelsComparison.csv" in absent


def _message(folder: Path) -> str:
    with pytest.raises(ShrinkbenchError) as caught:
        load_corpus(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_cut_in_the_middle_of_a_quoted_cell(export_copy: Path) -> None:
    path = export_copy / RESULTS
    text = path.read_text(encoding="utf-8-sig")
    cut = text.index("usage of") + 40
    path.write_text(text[:cut], encoding="utf-8")
    message = _message(export_copy)
    assert RESULTS in message
    assert "row 3 (line 3)" in message
    assert "quoted cell" in message
    assert "fetch the file again" in message


def test_cut_inside_a_multi_line_cell_names_the_row_where_it_starts(export_copy: Path) -> None:
    path = export_copy / PAPERS
    text = path.read_text(encoding="utf-8-sig")
    path.write_text(text[: text.index("Nonparametric Bayesian") + 5], encoding="utf-8")
    assert "row 2 (line 2)" in _message(export_copy)


def test_cut_between_cells(export_copy: Path) -> None:
    path = export_copy / RESULTS
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    path.write_text("\n".join([*lines[:2], lines[2][:20]]), encoding="utf-8")
    message = _message(export_copy)
    assert "row 3" in message
    assert "cut off" in message


def test_a_missing_column(export_copy: Path) -> None:
    path = export_copy / RESULTS
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    gone = rows[0].index("Top1")
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([row[:gone] + row[gone + 1 :] for row in rows])
    message = _message(export_copy)
    assert RESULTS in message
    assert "row 1" in message
    assert "'Top1' is missing" in message


def test_a_foreign_file(export_copy: Path) -> None:
    (export_copy / PAPERS).write_text("date,temperature\n2020-01-01,3\n", encoding="utf-8")
    message = _message(export_copy)
    assert PAPERS in message
    assert "another kind of file" in message
    assert "date, temperature" in message


def test_a_binary_file(export_copy: Path) -> None:
    (export_copy / PAPERS).write_bytes(b"\x89PNG\r\n\xff\xfe\x00")
    assert "not UTF-8" in _message(export_copy)


def test_an_empty_file(export_copy: Path) -> None:
    (export_copy / PAPERS).write_text("", encoding="utf-8")
    assert "the file is empty" in _message(export_copy)


def test_a_table_that_is_absent(export_copy: Path) -> None:
    (export_copy / RESULTS).unlink()
    assert "does not exist" in _message(export_copy)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("2019-6", "June 2019", "column 'Date': 'June 2019' is not a date"),
        ("2019-6", "2019-13", "'2019-13' is not a date"),
    ],
)
def test_a_bad_date(export_copy: Path, old: str, new: str, told: str) -> None:
    path = export_copy / PAPERS
    path.write_text(path.read_text(encoding="utf-8-sig").replace(old, new, 1), encoding="utf-8")
    message = _message(export_copy)
    assert told in message
    assert "row 2 (line 2)" in message


def test_a_number_that_is_none(export_copy: Path) -> None:
    path = export_copy / RESULTS
    path.write_text(path.read_text(encoding="utf-8-sig").replace("93.55%", "93,55%x", 1), encoding="utf-8")
    assert "row 3" in _message(export_copy)


def test_tables_of_two_versions(export_copy: Path) -> None:
    path = export_copy / PAPERS
    text = path.read_text(encoding="utf-8-sig")
    path.write_text(text.replace("\namc-automl-han,", "\nrenamed,", 1), encoding="utf-8")
    message = _message(export_copy)
    assert RESULTS in message
    assert "paper 'amc-automl-han' is not in" in message


def test_a_folder_without_a_corpus(tmp_path: Path) -> None:
    assert "holds neither" in _message(tmp_path)
    assert "there is no folder" in _message(tmp_path / "absent")
