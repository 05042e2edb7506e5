"""Nothing outside a results folder is written, moved or removed through a link in it."""

import contextlib
import json
import shutil

import pytest

from shrinkbench import files
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.claims import RunClaims
from shrinkbench.results.merging import merge
from shrinkbench.results.store import ResultStore
from shrinkbench.results.upkeep import compact_store, repair_store
from shrinkbench.runner import sweep
from shrinkbench.runner.stored import run_stored
from shrinkbench.spec import ExperimentSpec, parse_value


def _experiment(**fields):
    base = {
        "name": "links",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": "random",
        "compression": [2],
        "weights": "random",
        "seed": [0],
        "finetune": {"epochs": 0},
        "train_images": 20,
    }
    return parse_value(ExperimentSpec, {**base, **fields}, where="test")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    assert sweep(_experiment(), root, device="cpu").done == 1
    return root


@pytest.fixture
def store(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "store")


WRITERS = {
    "sweep": lambda root, key: sweep(_experiment(seed=[0, 1]), root, device="cpu"),
    "run": lambda root, key: run_stored([key], root, device="cpu"),
    "repair": lambda root, key: list(repair_store(ResultStore(root))),
    "compact": lambda root, key: list(compact_store(ResultStore(root))),
    "merge": lambda root, key: merge([root, root], root),
}


@pytest.mark.parametrize(
    "place", ["runs/*", "runs/*/result.json", "runs/*/log.txt", "plan.json", "shared", "new"]
)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_that_leads_out_is_named_and_nothing_is_written(store, tmp_path, writer, place):
    key = next(store.glob("runs/*")).name
    path = next(store.glob(place), store / place)
    outside = tmp_path / "outside"
    if path.exists():
        path.rename(outside)
    else:
        outside.mkdir()
    path.symlink_to(outside)
    before = _content(outside)
    with pytest.raises(
        ShrinkbenchError, match=rf"the link {path.relative_to(store)} in .* leads out of it, to"
    ) as error:
        WRITERS[writer](store, key)
    assert len(str(error.value)) < 300
    assert "remove the link" in str(error.value)
    assert _content(outside) == before


def _content(path):
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {each: each.read_bytes() for each in files if each.is_file()}


@pytest.mark.parametrize(
    "place", ["runs", "shared", "claims", "runs/*/log.txt", "runs/*", "shared/control", "index.jsonl"]
)
def test_a_link_put_there_while_runs_go_on_is_not_written_through(tmp_path, place):
    store, outside = tmp_path / "store", tmp_path / "outside"
    kept, told = tmp_path / "kept", []

    def exchange(progress):
        if progress.kind == "run" and not outside.exists():
            path = next(store.glob(place), store / place)
            if path.is_file():
                outside.write_text("mine")
            else:
                outside.mkdir()
            if path.exists():
                path.rename(kept)
            path.symlink_to(outside)

    with contextlib.suppress(ShrinkbenchError):  # of what this process itself writes
        sweep(
            _experiment(method=["random", "global_magnitude"], compression=[1, 2], seed=[0, 1]),
            store,
            device="cpu",
            on_progress=exchange,
            on_note=told.append,
        )
    assert outside.is_file() or not list(outside.iterdir())
    assert outside.is_dir() or outside.read_text() == "mine"
    files = [*store.glob("runs/*/result.json"), *kept.rglob("result.json")]
    assert {json.loads(path.read_text())["status"] for path in files} == {"done"}
    if place in ("runs", "shared"):
        assert any("leads out of it" in note for note in told)


def test_a_folder_that_is_a_link_and_links_within_it_are_used(store, tmp_path):
    (tmp_path / "linked").symlink_to(store)
    (store / "again").symlink_to(store / "runs")
    assert sweep(_experiment(seed=[0, 1]), tmp_path / "linked", device="cpu").done == 2
    assert len(list(store.glob("runs/*/result.json"))) == 2


def test_no_index_is_written_through_a_link(store, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (store / "index.jsonl").unlink()
    (store / "index.jsonl").symlink_to(outside)
    reader = ResultStore(store)
    assert reader.status().done == 1
    reader.extend_index()
    assert outside.read_text() == "mine"


def test_a_folder_that_becomes_a_link_between_look_and_write_gets_no_claim_out(store, tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    claims = RunClaims(store)
    real = files.placed

    def placed_then_swapped(path):
        place = real(path)
        if path == claims.root and path.exists() and not path.is_symlink():
            path.rmdir()
            path.symlink_to(outside)
        return place

    claims.root.mkdir(exist_ok=True)
    monkeypatch.setattr(files, "placed", placed_then_swapped)
    with pytest.raises(ShrinkbenchError, match="claims"):
        claims.take("run-a")
    assert not list(outside.iterdir())


def test_no_lock_is_made_through_a_link(store, tmp_path):
    (store / ".lock").unlink(missing_ok=True)
    (store / ".lock").symlink_to(tmp_path / "outside")
    with pytest.raises(ShrinkbenchError, match="leads out of it"):
        ResultStore(store).write(ResultStore(store).results()[0][0])
    assert not (tmp_path / "outside").exists()
