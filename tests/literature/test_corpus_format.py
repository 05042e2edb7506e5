"""The own format: one fact per row, validated; the bundled tables; the converter."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from made_corpus import corpus, fact, paper
from places import SHARED

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.literature import Corpus, load_corpus, summarise_corpus, write_corpus
from shrinkbench.literature.schema import UNPRUNED, Fact
from shrinkbench.literature.supplements import read_listings, read_supplements
from shrinkbench.literature.tables import read_table, write_table


def test_conversion_loses_nothing(export: Corpus, tmp_path: Path) -> None:
    write_corpus(export, tmp_path)
    again = load_corpus(tmp_path)
    assert again.papers == export.papers
    assert again.facts == export.facts
    assert again.listings == export.listings
    assert again.rules == export.rules
    assert again.findings == export.findings
    before, after = summarise_corpus(export).as_json(), summarise_corpus(again).as_json()
    assert before | {"origin": ""} == after | {"origin": ""}


def test_every_fact_has_a_source(export: Corpus, bundled: Corpus) -> None:
    for loaded in (export, bundled):
        assert all(f.source for f in loaded.facts)


def test_bundled_values_equal_the_tables(bundled: Corpus, paper_text: str) -> None:
    del paper_text  # only to skip where the shared folder is absent
    shared = SHARED / "facts" / "rethinking_tables.csv"
    with shared.open(encoding="utf-8", newline="") as file:
        wanted = Counter(
            (row["table"], row["dataset"].split()[0], float(row["mean"]), row["std"] and float(row["std"]))
            for row in csv.DictReader(file)
        )
    printed = [f for f in bundled.facts if f.source.startswith("Table") and not f.quantity.endswith("_pruned")]
    found = Counter(
        (
            f.source.removeprefix("Table "),
            f.dataset.split()[0],
            float(f.value or 0),
            "" if f.spread is None else float(f.spread),
        )
        for f in printed
    )
    assert set(found) == set(wanted)
    # The four baselines that both scratch trainings share stand once in print and twice here.
    assert {key: found[key] - wanted[key] for key in wanted if found[key] != wanted[key]} == {
        ("2", "ImageNet", 71.51, ""): 1,
        ("2", "ImageNet", 76.13, ""): 1,
        ("3", "ImageNet", 71.51, ""): 1,
        ("3", "ImageNet", 76.13, ""): 1,
    }


def test_bundled_changes_start_from_their_own_baseline(bundled: Corpus) -> None:
    conv = {r.finetuning: r for r in bundled.results if r.network == "VGG-Conv"}
    assert conv["fine-tuned"].facts["initial_top1"].scaled == pytest.approx(0.7103)
    assert conv["scratch-E"].facts["initial_top1"].scaled == pytest.approx(0.7151)
    assert set(conv) == {"fine-tuned", "scratch-E", "scratch-B"}  # sizes alone make no result


def test_most_specific_initial_value_wins() -> None:
    facts = [
        fact("a", "top1", "70", "percent", network=UNPRUNED),
        fact("a", "top1", "72", "percent", network=UNPRUNED, method="m"),
        fact("a", "top1", "69", "percent", method="m"),
        fact("a", "top1", "68", "percent", method="n"),
        fact("a", "parameters", "5", "million"),
    ]
    by_method = {r.method: r for r in corpus([paper("a", 2018)], facts).results}
    assert set(by_method) == {"m", "n"}
    assert by_method["m"].facts["initial_top1"].scaled == pytest.approx(0.72)
    assert by_method["n"].facts["initial_top1"].scaled == pytest.approx(0.70)
    assert all(r.facts["parameters"].scaled == 5_000_000 for r in by_method.values())


@pytest.mark.parametrize(
    ("quantity", "value", "unit", "told"),
    [
        ("top1", "0.9", "ratio", "does not fit 'top1'"),
        ("compression", "2", "percent", "does not fit 'compression'"),
        ("evaluated", "1", "", "a value is needed"),
        ("top1", None, "percent", "a value is needed"),
    ],
)
def test_units_and_values_are_checked(quantity: str, value: str | None, unit: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        fact("a", quantity, value, unit)


def _message(folder: Path) -> str:
    with pytest.raises(ShrinkbenchError) as caught:
        load_corpus(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def written(tmp_path: Path, bundled: Corpus) -> Path:
    write_corpus(bundled, tmp_path)
    return tmp_path


def test_a_wrong_cell_names_file_row_and_field(written: Path) -> None:
    path = written / "facts.csv"
    path.write_text(
        path.read_text(encoding="utf-8").replace(",93.63,percent", ",much,percent", 1), encoding="utf-8"
    )
    message = _message(written)
    assert "facts.csv, row 2 (line 2)" in message
    assert "value = 'much'" in message


def test_an_unknown_quantity_is_refused(written: Path) -> None:
    path = written / "facts.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(",top1,", ",accuracy,", 1), encoding="utf-8")
    assert "quantity = 'accuracy'" in _message(written)


def test_a_fact_of_an_unknown_paper_is_refused(written: Path) -> None:
    path = written / "facts.csv"
    path.write_text(
        path.read_text(encoding="utf-8").replace("liu2019rethinking", "liu2020", 1), encoding="utf-8"
    )
    assert "names the paper 'liu2020'" in _message(written)


def test_a_repeated_paper_is_refused(written: Path) -> None:
    path = written / "papers.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n", encoding="utf-8")
    assert "two papers are called" in _message(written)


def test_another_schema_version_is_refused(written: Path) -> None:
    path = written / "corpus.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(data | {"schema_version": 2}), encoding="utf-8")
    assert "schema_version = 2" in _message(written)


def test_a_broken_manifest_is_refused(written: Path) -> None:
    (written / "corpus.json").write_text("{", encoding="utf-8")
    assert "cannot read" in _message(written)


def test_resolution_is_one_in_the_last_digit() -> None:
    assert Fact.model_validate(fact("a", "top1", "93.40", "percent").model_dump()).resolution == pytest.approx(
        1e-4
    )
    assert fact("a", "parameters", "1.7", "million").resolution == pytest.approx(1e5)


ODD: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("put", ODD.values(), ids=ODD)
@pytest.mark.parametrize("name", ["errata.csv", "listings.csv", "corpus.json", "papers.csv"])
def test_what_is_no_file_is_refused_and_not_passed_over(
    tmp_path: Path, name: str, put: Callable[[Path], object]
) -> None:
    write_corpus(corpus([paper("a", 2018)], [fact("a", "initial_top5", "10.1", "percent")]), tmp_path)
    (tmp_path / name).unlink()
    put(tmp_path / name)
    with pytest.raises(ShrinkbenchError) as caught:
        load_corpus(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("put", ODD.values(), ids=ODD)
@pytest.mark.parametrize("name", ["pytorch-pretrained/ModelsComparison.csv", "lottery-tix"])
def test_what_lies_beside_the_export_and_is_no_file_is_refused(
    tmp_path: Path, name: str, put: Callable[[Path], object]
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    put(tmp_path / name)
    read = read_supplements if name == "lottery-tix" else lambda folder, facts: read_listings(folder)
    with pytest.raises(ShrinkbenchError) as caught:
        read(tmp_path, ())
    assert str(tmp_path / name) in str(caught.value)


def test_tables_that_are_not_there_are_done_without(tmp_path: Path) -> None:
    write_corpus(corpus([paper("a", 2018)], [fact("a", "initial_top5", "10.1", "percent")]), tmp_path)
    for name in ("errata.csv", "listings.csv"):
        (tmp_path / name).unlink()
    assert load_corpus(tmp_path).errata == load_corpus(tmp_path).listings == ()


def test_no_written_text_is_a_formula_and_each_is_read_as_it_was(tmp_path: Path) -> None:
    texts = ("=cmd|'/c calc'!A0", "+1+1", "@sum(a)", "-see below", "-0.3", "plain")
    write_table(tmp_path / "table.csv", ("text", "number"), [{"text": text, "number": -1} for text in texts])
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [*(f"'{text}" for text in texts[:4]), *texts[4:]]
    assert {row["number"] for row in rows} == {"-1"}
    again = read_table(tmp_path / "table.csv", ("text",), remedy="mend it")
    assert tuple(row["text"] for row in again) == texts


def test_a_corpus_with_a_formula_is_converted_as_text(tmp_path: Path) -> None:
    given = corpus([paper("a", 2019)], [fact("a", "top1", "90", "percent", note="=cmd|x")])
    write_corpus(given, tmp_path)
    assert ",'=cmd|x" in (tmp_path / "facts.csv").read_text(encoding="utf-8")
    assert [each.note for each in load_corpus(tmp_path).facts] == ["=cmd|x"]


@pytest.mark.parametrize("sign", ["\x1b", "\x00", "\x07", "\x9b", "\x7f"])
def test_a_control_character_in_a_cell_is_refused(sign: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(f"text\na\nb{sign}[31mc\n", encoding="utf-8")
    with pytest.raises(ShrinkbenchError, match=r"row 3 .* column 'text': the control") as refused:
        read_table(tmp_path / "table.csv", ("text",), remedy="mend it")
    assert sign not in str(refused.value)
