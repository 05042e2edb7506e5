"""The commands that read results, through the command line as a person types it."""

import json
import re

import pytest
from commands import shrinkbench
from made_results import make_result, make_results, write_store
from typer.testing import CliRunner

from shrinkbench.cli.report import app
from shrinkbench.results.bundle import write_bundle

PAIR = [("cifar10", "resnet20")]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("commands")
    store = write_store(root / "store", make_results(pairs=PAIR, methods=["random", "global_magnitude"]))
    results = store.results()[0]
    for result in results[:2]:
        store.result_path(result.key).unlink()
    store.write(make_result(results[0].spec, failed="out of memory"))
    path = store.result_path(results[2].key)
    path.write_text(path.read_text()[:50])
    return store


def test_status(store):
    done = shrinkbench("status", store.root, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"total": 36, "done": 33, "failed": 1, "missing": 2}
    counts, disk = shrinkbench("status", store.root).stdout.splitlines()
    assert counts == "36 total, 33 done, 1 failed, 2 missing"
    assert re.fullmatch(r"disk: [0-9.]+ [kM]B \(results .*, plan .*\)", disk)


def test_report(store, tmp_path):
    done = shrinkbench("report", store.root, "--out", tmp_path / "out", "--figures", "none")
    assert done.returncode == 0
    assert "34 runs, 1 file skipped" in done.stdout
    assert "not whole JSON" in done.stderr
    assert (tmp_path / "out" / "index.html").is_file()


def test_checklist(store):
    done = shrinkbench("checklist", store.root, "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert len(found["lines"]) == sum(
        found[status] for status in ("satisfied", "violated", "undecidable", "inapplicable")
    )
    assert len(found["skipped"]) == 1
    assert {"id", "status", "evidence", "needed", "runs", "figure"} <= found["lines"][0].keys()
    text = shrinkbench("checklist", store.root).stdout
    assert "✗ Use at least three (dataset, architecture) pairs" in text


def test_bundle_merge_and_leaderboard(store, tmp_path):
    assert shrinkbench("bundle", store.root, "--out", tmp_path / "a.zip").returncode == 0
    assert "consistent with itself" in shrinkbench("bundle", tmp_path / "a.zip", "--verify").stdout
    merged = shrinkbench("merge", tmp_path / "a.zip", store.root, "--out", tmp_path / "merged")
    assert "34 runs ->" in merged.stdout
    board = shrinkbench("leaderboard", tmp_path / "a.zip", "--out", tmp_path / "board")
    assert board.returncode == 0
    assert (tmp_path / "board" / "index.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["status", "nowhere"], "there is no bundle or results folder nowhere"),
        (["report", "."], "holds no results"),
        (["checklist", "."], "holds no results"),
        (["checklist", "{store}", "--method", "magic"], "no method 'magic'"),
        (["checklist", "{store}", "--fix", "--pair", "cifar10"], "write DATASET:NETWORK"),
        (["checklist", "{store}", "--plan"], "give --fix as well"),
        (["bundle", "nowhere.zip", "--verify"], "there is no bundle"),
        (["merge", "{store}"], "at least two"),
        (["merge", "empty", "empty", "--out", "merged"], "empty holds no results; there is nothing to merge"),
        (["leaderboard", "nowhere.zip"], "there is no bundle"),
        (["report", "{store}", "--out", "{store}/plan.json"], "has its own plan.json; choose another place"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(store, tmp_path, arguments, sentence):
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    done = shrinkbench(*(a.replace("{store}", str(store.root)) for a in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()[-1].split("\n")) == 1
    assert not (tmp_path / "merged").exists()


EXPERIMENT = """
name = "tiny"
dataset = "digits"
model = "digits-cnn"
method = ["global_magnitude", "layerwise_magnitude", "global_gradient", "random"]
compression = [1, 2, 4, 8, 32]
seed = [0]
train_images = 200
test_images = 100
finetune = { epochs = 1 }
pretrain = { epochs = 2 }
"""


def test_a_bundle_tells_what_is_missing_as_its_folder_does(tmp_path):
    results = make_results(
        pairs=[("digits", "digits-cnn")],
        methods=("random", "global_magnitude"),
        compressions=(1, 2),
        seeds=(0,),
    )
    store = write_store(tmp_path / "store", results)
    write_bundle(store.root, tmp_path / "a.zip")
    asked = [
        CliRunner().invoke(app, ["checklist", str(source), "--fix", "--plan"])
        for source in (store.root, tmp_path / "a.zip")
    ]
    assert [done.exit_code for done in asked] == [0, 0], asked[1].output
    assert asked[0].stdout == asked[1].stdout
    assert "Nothing was trained" in asked[1].stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "store"]
    refused = CliRunner().invoke(app, ["checklist", str(tmp_path / "a.zip"), "--fix"])
    assert refused.exit_code != 0  # that would train, and needs a folder


@pytest.mark.slow
def test_fix_runs_exactly_what_is_missing(tmp_path):
    """A quickstart in small, without its seeds, controls and one operating point."""
    (tmp_path / "tiny.toml").write_text(EXPERIMENT)
    assert shrinkbench("sweep", tmp_path / "tiny.toml", "--out", tmp_path / "tiny").returncode == 0
    before = {p.parent.name: p.read_bytes() for p in tmp_path.glob("tiny/runs/*/result.json")}
    assert len(before) == 4 * 5
    told = shrinkbench("checklist", tmp_path / "tiny", "--fix", "--plan", "--json")
    assert told.returncode == 0, told.stderr
    asked = {run["key"] for run in json.loads(told.stdout)["runs"]}
    assert {p.parent.name for p in tmp_path.glob("tiny/runs/*/result.json")} == before.keys()
    assert "Nothing was trained" in shrinkbench("checklist", tmp_path / "tiny", "--fix", "--plan").stdout
    done = shrinkbench("checklist", tmp_path / "tiny", "--fix", "--json")
    assert done.returncode == 0, done.stderr
    after = {p.parent.name: p.read_bytes() for p in tmp_path.glob("tiny/runs/*/result.json")}
    assert len(after) == 6 * 6 * 3  # two controls, one operating point, two seeds more
    assert {key: after[key] for key in before} == before
    assert asked == after.keys() - before.keys()
    status = {line["id"]: line["status"] for line in json.loads(done.stdout)["lines"]}
    assert {name for name, state in status.items() if state == "violated"} == {"pairs"}
    again = shrinkbench("checklist", tmp_path / "tiny", "--fix", "--json")
    assert "runs are missing" not in again.stderr
