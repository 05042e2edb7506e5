"""Damage is named and set aside, left-overs go, and nothing of a working process is touched."""

import multiprocessing
import os

import pytest
import torch
from made_results import make_result, make_spec, write_store
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.absent import find_absent
from shrinkbench.results.claims import RunClaims
from shrinkbench.results.index import INDEX_NAME
from shrinkbench.results.layout import BESIDE_NAME
from shrinkbench.results.store import ResultStore
from shrinkbench.results.upkeep import compact_store, disk_use, repair_store, verify_store
from shrinkbench.runner.beside_plan import write_beside
from shrinkbench.runner.executors.protocol import Setting
from shrinkbench.runner.sealing import save_sealed, write_card
from shrinkbench.runner.workspace import Workspace

SHARED = "ab" * 32


@pytest.fixture
def store(tmp_path):
    store = write_store(tmp_path / "made", [make_result(make_spec(seed=n)) for n in range(3)])
    pretrained = store.shared_dir("pretrained", SHARED)
    tensors = {"w": torch.randn(3, 2), "n": torch.tensor(3), "m": torch.ones(2, 2, dtype=torch.bool)}
    tensors["h"] = torch.ones(5, dtype=torch.bfloat16)
    save_sealed(tensors, pretrained / "weights.safetensors", key=SHARED)
    save_sealed(tensors, pretrained / "epoch-2.safetensors", key=f"{SHARED} epoch 2")
    save_sealed(tensors, pretrained / "step-3.safetensors", key=f"{SHARED} step 3")
    write_card(pretrained / "step-3.json", {"epoch": 1, "done": 3}, key=f"{SHARED} step 3")
    write_card(pretrained / "card.json", {"a": [1, 2.5, None]}, key=SHARED)
    for kind in ("search", "states"):
        for name in ("weights", "masks"):
            save_sealed(tensors, store.shared_dir(kind, SHARED) / f"{name}.safetensors", key=SHARED)
        write_card(store.shared_dir(kind, SHARED) / "card.json", {"spent": 1}, key=SHARED)
    write_card(store.shared_dir("rounds", SHARED) / "card.json", {"kept": {"w": 0.5}}, key=SHARED)
    save_sealed(tensors, store.shared_dir("detector", SHARED) / "weights.safetensors", key=SHARED)
    control = make_spec(compression=1.0).control
    folder = store.shared_dir("control", control.key)
    folder.mkdir(parents=True)
    made = make_result(control)
    kept = {
        name: save_sealed(tensors, folder / f"{name}.safetensors", key=made.key)
        for name in ("masks", "weights")
    }
    write_card(folder / "network.json", {"network": "x"}, key=made.key)
    provenance = made.provenance.model_copy(update={"kept": kept})
    made = made.model_copy(update={"provenance": provenance})
    (folder / "result.json").write_text(made.model_dump_json())
    return store


def shrinkbench(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_whole_store_has_nothing_to_verify_or_repair(store):
    assert verify_store(store) == []
    assert list(repair_store(store)) == []
    assert shrinkbench("store", "verify", store.root).exit_code == 0


def test_what_is_named_and_not_there_is_told_and_is_no_damage(tmp_path):
    code = "c" * 64
    made = make_result(make_spec(seed=0))
    method = made.spec.method
    outside = made.spec.model_copy(
        update={"method": method.model_copy(update={"score": method.score.model_copy(update={"source": code})})}
    )
    kept = made.provenance.model_copy(update={"kept": {"masks": "d" * 64}})
    made = make_result(outside).model_copy(update={"provenance": kept})
    store = write_store(tmp_path / "made", [made, make_result(make_spec(seed=1))])
    (store.run_dir(make_spec(seed=1).key) / "result.json").unlink()
    told = shrinkbench("store", "verify", store.root)
    assert told.exit_code == 0
    assert "1 of 2 planned runs have no result" in told.output
    assert "of 1 runs that kept their networks, files of these are not there" in told.output
    assert f"plugins/{code} is not there: nobody can read the outside code that 1 runs rest on" in told.output
    assert find_absent(write_store(tmp_path / "whole", [make_result(make_spec(seed=0))])) == []


FILES = [
    "runs/*/result.json",
    "shared/pretrained/*/weights.safetensors",
    "shared/pretrained/*/epoch-2.safetensors",
    "shared/pretrained/*/step-3.safetensors",
    "shared/pretrained/*/step-3.json",
    "shared/pretrained/*/card.json",
    "shared/control/*/result.json",
    "shared/control/*/weights.safetensors",
    "shared/control/*/network.json",
    "shared/search/*/masks.safetensors",
    "shared/search/*/card.json",
    "shared/states/*/weights.safetensors",
    "shared/states/*/card.json",
    "shared/rounds/*/card.json",
    "shared/detector/*/weights.safetensors",
]


def _flip(content):
    middle = len(content) - 3  # in the last tensor, or digit
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "damage", [lambda c: c[: len(c) // 2], lambda c: b"", _flip], ids=["cut", "empty", "flip"]
)
def test_damage_is_named_and_set_aside(store, file, damage):
    victim = sorted(store.root.glob(file))[0]
    victim.write_bytes(damage(victim.read_bytes()))
    assert [problem.path for problem in verify_store(store)] == [victim]
    told = shrinkbench("store", "verify", store.root)
    assert told.exit_code == 1
    assert str(victim.relative_to(store.root)) in told.stdout
    (sentence,) = repair_store(store)
    assert "set aside as" in sentence
    assert not victim.exists()
    assert len(list(victim.parent.glob(f"{victim.name}.damaged-*"))) == 1
    assert verify_store(store) == []


def test_a_shared_file_of_another_key_is_damage(store):
    folder = store.shared_dir("pretrained", SHARED)
    folder.rename(folder.with_name("cd" * 32))
    assert len(verify_store(store)) == 5


def test_the_weights_of_another_step_are_damage(store):
    folder = store.shared_dir("pretrained", SHARED)
    (folder / "step-3.safetensors").rename(folder / "step-4.safetensors")
    (folder / "step-3.json").rename(folder / "epoch-3.json")
    assert {problem.path.name for problem in verify_store(store)} == {"step-4.safetensors", "epoch-3.json"}


def test_a_bit_that_changed_by_itself_is_found_by_the_checksum(store):
    path = store.result_path(make_spec(seed=1).key)
    stat, text = path.stat(), path.read_text()
    path.write_text(text.replace('"seconds": 12.5', '"seconds": 12.6'))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (problem,) = verify_store(store)
    assert "other bytes than were written" in problem.sentence


def test_a_plan_that_cannot_be_read_is_told_and_left(store):
    store.plan_path.write_text("{")
    told = list(repair_store(store))
    assert len(told) == 1
    assert "left as it is" in told[0]
    assert store.plan_path.read_text() == "{"
    said = shrinkbench("store", "repair", store.root).output
    assert "left as it is" in said
    assert "give the sweep again" not in said  # it would be refused
    store.plan_path.unlink()
    store.plan_path.mkdir()
    assert "plan.json cannot be read (Is a directory)" in shrinkbench("store", "verify", store.root).output


def _die_with_a_claim(root, key):
    RunClaims(root).take(key)
    os._exit(9)


def test_leftovers_go_and_the_living_stay(store):
    done, other = make_spec(seed=0), make_spec(seed=1)
    store.result_path(other.key).unlink()
    orphans = [
        store.run_dir(done.key),
        store.run_dir(make_spec(seed=99).key),
        store.shared_dir("pretrained", SHARED),
    ]
    kept = [store.run_dir(other.key), store.run_dir(make_spec(seed=2).key)]
    for folder in orphans + kept:
        folder.mkdir(exist_ok=True)
        (folder / "checkpoint-0.pt").write_bytes(b"x")
    old, new = (store.root / f".plan.json.host-{pid}-0123abcd.tmp" for pid in (1, 2))
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    process = multiprocessing.get_context("fork").Process(
        target=_die_with_a_claim, args=(store.root, f"run-{done.key}")
    )
    process.start()
    process.join()
    claims = RunClaims(store.root)
    with claims.take(f"run-{make_spec(seed=2).key}"):
        told = list(repair_store(store))
        assert len(told) == 5
        with pytest.raises(ShrinkbenchError, match="holds 1 claims, the first of process"):
            list(compact_store(store))
    assert not any((folder / "checkpoint-0.pt").exists() for folder in orphans)
    assert all((folder / "checkpoint-0.pt").exists() for folder in kept)
    assert new.exists()
    assert not old.exists()


def test_a_claim_of_another_host_stays_until_it_is_waited_for(store):
    claim = store.root / "claims" / f"{'a' * 64}.1.json"
    claim.parent.mkdir()
    claim.write_text('{"host": "far", "pid": 7, "machine": "b", "born": "1", "expires_after": 0.2}')
    told = shrinkbench("store", "repair", store.root)
    assert "left 1 claims, the first of process 7 on far: whether they live, --wait 1 tells" in told.output
    assert "nothing to repair" not in told.output
    with pytest.raises(ShrinkbenchError, match="after `shrinkbench store repair --wait 1`"):
        compact_store(store).__next__()
    assert "removed the claim" in shrinkbench("store", "repair", store.root, "--wait", "1").output
    assert not claim.exists()
    assert list(compact_store(store)) == [f"removed the empty folder {claim.parent}"]


def test_compact_frees_room_and_changes_no_result(store):
    for _ in range(3):
        store.write(make_result(make_spec(seed=0)))
    (store.run_dir(make_spec(seed=0).key) / "checkpoint-0.pt").write_bytes(b"x" * 5000)
    store.run_dir("0" * 64).mkdir()
    before, size = store.results(), sum(disk_use(store.root).values())
    told = shrinkbench("store", "compact", store.root)
    assert told.exit_code == 0
    assert f"{size} bytes before" in told.stdout
    assert ResultStore(store.root).results() == before
    assert len((store.root / INDEX_NAME).read_text().splitlines()) == 3
    assert not store.run_dir("0" * 64).exists()
    assert sum(disk_use(store.root).values()) < size - 5000
    assert verify_store(store) == []


def test_compact_gives_the_index_the_lines_that_it_lacks(store):
    index = store.root / INDEX_NAME
    whole = index.read_bytes()
    for lacking in (None, whole.splitlines(keepends=True)[0]):
        if lacking is None:
            index.unlink()
        else:
            index.write_bytes(lacking)
        (told,) = compact_store(ResultStore(store.root))
        assert "3 lines in place of" in told
        assert sorted(index.read_bytes().splitlines()) == sorted(whole.splitlines())
        assert list(compact_store(ResultStore(store.root))) == []


def test_disk_use_counts_every_file_once(store):
    files = [path for path in store.root.rglob("*") if path.is_file()]
    used = disk_use(store.root)
    assert sum(used.values()) == sum(path.stat().st_size for path in files)
    assert {"results", "plan", "index", "shared pretrained", "shared control"} <= used.keys()


def test_lines_of_the_index_of_another_kind_are_passed_over_and_go(store):
    index = store.root / INDEX_NAME
    before = index.read_bytes()
    for line in (
        '{"key":5,"size":1,"mtime_ns":1,"sha256":"x","status":"done","timed":[]}',
        '{"timed":[[]]}',
        "5",
    ):
        index.write_bytes(index.read_bytes() + line.encode() + b"\n")
    assert shrinkbench("store", "compact", store.root).exit_code == 0
    assert sorted(index.read_bytes().splitlines()) == sorted(before.splitlines())


def test_an_endless_interval_is_refused(store):
    done = shrinkbench("status", store.root, "--watch", "--interval", "1e300")
    assert done.exit_code == 2


def test_a_name_of_a_folder_does_not_act_on_the_terminal(store):
    folder = store.root / "runs" / os.fsdecode(b"\xff\x1b]0;x\x07\nX")
    folder.mkdir()
    (folder / "result.json").write_text("{}")
    for command in (["status"], ["store", "verify"], ["bundle", "--verify"], ["store", "repair"]):
        done = shrinkbench(*command, store.root)
        assert r"\x1b]0;x\x07\nX" in done.output, command
        assert "\x1b" not in done.output


@pytest.mark.parametrize(
    "content", [b"", b'{"schema_version": 1', b'{"schema_version": 2}', b"\xff", b"[]", b"3"]
)
def test_what_lies_beside_the_plan_is_verified_and_set_aside(store, content):
    path = store.root / BESIDE_NAME
    write_beside(Setting(Workspace(root=store.root)), device="cpu")
    assert verify_store(store) == []
    path.write_bytes(content)
    (found,) = verify_store(store)
    assert found.path == path
    write_beside(Setting(Workspace(root=store.root)), device="cpu")
    (aside,) = store.root.glob(f"{BESIDE_NAME}.damaged-*")
    assert aside.read_bytes() == content
    assert verify_store(store) == []


def test_a_result_that_is_a_link_to_itself_is_set_aside(store):
    result = make_result(make_spec(seed=0))
    path = store.result_path(result.key)
    path.unlink()
    path.symlink_to(path.name)
    store.write(result)
    assert ResultStore(store.root).read(result.key) == result
    assert verify_store(store) == []


def test_networks_of_runs_are_counted_as_such(store):
    before = disk_use(store.root)
    folder = next((store.root / "runs").iterdir())
    for name in ("weights.safetensors", "masks.safetensors", "network.json"):
        (folder / name).write_bytes(b"abc")
    assert disk_use(store.root) == before | {"networks": 9}
