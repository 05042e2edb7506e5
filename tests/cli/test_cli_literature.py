"""The literature commands: their output, their JSON, their errors, and that they never load torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from places import SHARED
from typer.testing import CliRunner

from shrinkbench.cli.literature import app
from shrinkbench.errors import ShrinkbenchError

EXPORT = SHARED / "data" / "corpus"


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    if not EXPORT.is_dir():
        pytest.skip(f"the published export is not at {EXPORT}")
    return ["--corpus", str(EXPORT)]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def error(*arguments: str) -> str:
    with pytest.raises(ShrinkbenchError) as caught:
        CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_summary_json_has_the_promised_keys(corpus: list[str]) -> None:
    found = json.loads(run("summary", "--json", *corpus))
    assert (found["papers"], found["datasets"], found["architectures"], found["pairs"]) == (81, 49, 132, 195)
    assert (found["compare_to_none"], found["compare_to_at_most_one"]) == (21, 43)
    assert len(found["table1"]) == 14
    assert found["table1"][0] == {"dataset": "ImageNet", "architecture": "VGG-16", "papers": 22}
    for figure, histograms in (("figure2", 2), ("figure4", 2)):
        assert len(found[figure]) == histograms
        for split in found[figure].values():
            assert set(split) == {"peer_reviewed", "other"}
            assert all(
                int(value) >= 0 and count > 0 for side in split.values() for value, count in side.items()
            )


def test_summary_names_exclusions_and_what_differs_from_print(corpus: list[str]) -> None:
    text = run("summary", *corpus)
    assert "81 papers" in text
    assert "195 pairs" in text
    assert "unidentified: 13 results" in text
    assert "weighted-densities: 19 results" in text
    assert "papers_since_2010: 78 here, 79 in print" in text
    assert "papers_on_four_pairs: 45 here, 37 in print" in text
    assert "table1: 14 of 14 rows" in text


def test_keep_switches_an_exclusion_off(corpus: list[str]) -> None:
    assert json.loads(run("summary", "--json", "--keep", "unidentified", *corpus))["datasets"] == 52
    assert "no exclusion 'nonesuch'" in error("summary", "--keep", "nonesuch", *corpus)


def test_without_a_corpus_the_bundled_one_answers(tmp_path: Path) -> None:
    assert json.loads(run("summary", "--json"))["papers"] == 1
    assert "Liu" in run("graph")
    listed = json.loads(run("figures", "--json", "--format", "svg", "--out", str(tmp_path)))
    assert all(Path(path).is_file() for figure in listed for path in figure["files"])
    assert (tmp_path / "figure3.svg").is_file()


def test_table1(corpus: list[str], tmp_path: Path) -> None:
    assert len(json.loads(run("table1", "--json", *corpus))) == 14
    assert "left out: unidentified" in run("table1", "--out", str(tmp_path), *corpus)
    assert (tmp_path / "table1.csv").read_text(encoding="utf-8").splitlines()[1] == "ImageNet,VGG-16,22"
    assert "ImageNet & VGG-16 & 22" in (tmp_path / "table1.tex").read_text(encoding="utf-8")


def test_graph_questions(corpus: list[str], tmp_path: Path) -> None:
    whole = json.loads(run("graph", "--json", *corpus))
    assert len(whole["comparisons"]) == 173
    assert len(whole["never_compared_to"]) == 33
    rows = json.loads(run("graph", "--json", "--dataset", "ImageNet", "--architecture", "VGG-16", *corpus))
    assert len(rows) == 22
    one = json.loads(run("graph", "--json", "--paper", "learning-both", "--out", str(tmp_path), *corpus))
    assert len(one["compared_to_by"]) == 18
    assert (tmp_path / "comparisons.dot").is_file()
    assert (tmp_path / "comparison_graph.png").is_file()
    assert "add --architecture" in error("graph", "--dataset", "ImageNet", *corpus)
    assert "did you mean" in error("graph", "--paper", "learning-boht", *corpus)


def test_lint(corpus: list[str], tmp_path: Path) -> None:
    findings = json.loads(run("lint", "--json", "--out", str(tmp_path), *corpus))
    assert {"check", "where", "message"} == set(findings[0])
    assert json.loads((tmp_path / "lint.json").read_text(encoding="utf-8")) == findings
    assert "compares-to-later-paper: optimal-brain-surgeon" in run("lint", *corpus)
    assert CliRunner().invoke(app, ["lint", "--strict", *corpus]).exit_code == 1


def test_errata_are_listed_with_and_without_a_corpus(corpus: list[str], tmp_path: Path) -> None:
    rows = json.loads(run("errata", "--json", "--out", str(tmp_path)))
    assert [(row["network"], row["printed"], row["corrected"]) for row in rows] == [
        (f"record {number}", "10.1", "89.9") for number in (281, 582, 583)
    ]
    assert all(row["reason"] and row["source"] for row in rows)
    assert json.loads(run("errata", "--json", *corpus)) == rows
    assert "record 582: initial_top5 10.1 -> 89.9 percent: the top-5 error" in run("errata")
    assert "3 errata, applied where" in run("errata", *corpus)
    assert len((tmp_path / "errata.csv").read_text(encoding="utf-8").splitlines()) == 4


def test_the_shipped_errata_need_no_export() -> None:
    assert "3 errata of the published export" in run("errata")


@pytest.mark.slow
def test_what_touches_values_says_how_many_errata(corpus: list[str], tmp_path: Path) -> None:
    figures = ("figures", "--format", "svg", "--out", str(tmp_path / "figures"))
    for command in (("summary",), ("lint",), figures, ("convert", "--out", str(tmp_path / "own"))):
        assert "Errata applied: 3 (zhang-accel-very-deep: initial_top5 10.1 -> 89.9" in run(*command, *corpus)
        told = run(*command, "--as-printed", *corpus)
        assert "Read as printed, listed errata not applied: 3" in told
        assert "applied" not in run(*command)  # the bundled tables have none
    assert json.loads(run("summary", "--json", *corpus))["errata_applied"] == 3
    assert json.loads(run("summary", "--json", "--as-printed", *corpus))["errata_applied"] == 0


def test_overlay(tmp_path: Path) -> None:
    rows = [
        {
            "key": str(target),
            "dataset": "cifar10",
            "model": "resnet56",
            "task": "cifar10 / resnet56",
            "task_key": "task",
            "method": "global_weight",
            "method_key": "method",
            "recipe_key": "recipe",
            "amount": f"{target:g}x",
            "control": "control",
            "control_key": "1.0",
            **dict.fromkeys(("train_images", "validation_images", "test_images")),
            "compression_target": target,
            "seed": 0,
            "status": "done",
            "compression": target,
            "theoretical_speedup": target**0.5,
            "top1": 0.93 - 0.001 * target,
            "top5": 0.99,
        }
        for target in (1.0, 2.0, 4.0)
    ]
    table = tmp_path / "results.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    found = json.loads(run("overlay", str(table), "--json", "--out", str(tmp_path / "out")))
    (entry,) = found["overlays"]
    assert entry["published"] == [["CIFAR-10", "ResNet-56"]]
    assert all(Path(path).is_file() for path in entry["files"])
    pd.DataFrame(rows).assign(model="nonesuch", task="cifar10 / nonesuch").to_csv(table, index=False)
    assert "nothing to lay over: cifar10 / nonesuch" in error("overlay", str(table))


def test_convert_then_read(corpus: list[str], tmp_path: Path) -> None:
    assert "3567 facts" in run("convert", "--out", str(tmp_path), *corpus)
    found = json.loads(run("summary", "--json", "--corpus", str(tmp_path)))
    assert (found["pairs"], found["results"]) == (195, 519)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    assert "cannot write" in error("summary", "--out", str(blocked / "below"))


def test_no_command_loads_torch(tmp_path: Path) -> None:
    code = f"""
import sys
from typer.testing import CliRunner
from shrinkbench.cli.literature import app
figures = ["figures", "--format", "svg", "--out", {str(tmp_path)!r}]
for arguments in (["summary"], ["table1"], ["lint"], ["graph"], figures):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
import shrinkbench.literature.overlay
print(sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "torchvision")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
