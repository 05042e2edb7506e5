"""What lies in the place of a file or folder is named and set aside, and no sweep begins with it there."""

import os
import shutil

import pytest
from made_results import make_result, make_spec, write_store

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.places import check_places
from shrinkbench.results.upkeep import repair_store, verify_store

KEY = "ab" * 32
SPEC = make_spec()
RUN = f"runs/{SPEC.key}"


def _clear(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)


def file_at(path):
    _clear(path)
    path.write_text("x")


def folder_at(path):
    _clear(path)
    path.mkdir()
    (path / "x").write_text("x")


def pipe_at(path):
    _clear(path)
    os.mkfifo(path)


def loop_at(path):
    _clear(path)
    path.symlink_to(path.name)


def dangling_at(path):
    _clear(path)
    path.symlink_to("nowhere")


CASES = [
    *(
        (file_at, name)
        for name in ("claims", "runs", "shared", "plugins", f"plugins/{KEY}", RUN, f"{RUN}/conflicts")
    ),
    *(
        (file_at, f"shared/{kind}")
        for kind in ("pretrained", "search", "rounds", "states", "control", "detector")
    ),
    *((file_at, f"shared/{kind}/{KEY}") for kind in ("pretrained", "search", "rounds", "states", "control")),
    (dangling_at, "shared"),
    (dangling_at, f"shared/search/{KEY}"),
    (loop_at, f"shared/states/{KEY}"),
    (loop_at, f"shared/pretrained/{KEY}/weights.safetensors"),
    *(
        (folder_at, f"shared/states/{KEY}/{name}")
        for name in ("weights.safetensors", "masks.safetensors", "card.json")
    ),
    (folder_at, f"shared/rounds/{KEY}/card.json"),
    (folder_at, f"shared/pretrained/{KEY}/step-3.json"),
    (folder_at, f"shared/pretrained/{KEY}/epoch-1.safetensors"),
    (folder_at, f"shared/control/{KEY}/result.json"),
    (folder_at, f"shared/search/{KEY}/checkpoint-0.pt"),
    (pipe_at, f"shared/pretrained/{KEY}/step-3.safetensors"),
    (pipe_at, f"shared/search/{KEY}/log.txt"),
    *((pipe_at, f"{RUN}/{name}") for name in ("log.txt", "again", "traceback.txt", "checkpoint-0.pt")),
    *(
        (folder_at, f"{RUN}/{name}")
        for name in ("log.txt", "again", "failure.json", "checkpoint-smaller-ab.pt")
    ),
    *((pipe_at, name) for name in ("index.jsonl", "workspace.json", ".lock")),
    *((folder_at, name) for name in ("index.jsonl", "workspace.json", ".lock")),
]


@pytest.mark.parametrize(("put", "place"), CASES, ids=[f"{put.__name__}-{place[:40]}" for put, place in CASES])
def test_what_is_in_the_way_is_named_and_set_aside(tmp_path, put, place):
    store = write_store(tmp_path, [make_result(SPEC), make_result(make_spec(seed=1))])
    path = store.root / place
    put(path)
    assert [problem.path for problem in verify_store(store)] == [path]
    with pytest.raises(ShrinkbenchError) as error:
        check_places(store.root, [SPEC.key])
    sentence = str(error.value)
    assert place in sentence
    assert "belongs; move it away" in sentence
    assert sum("set aside" in told for told in repair_store(store)) == 1
    assert verify_store(store) == []
    assert not os.path.lexists(path)
    check_places(store.root, [SPEC.key])


def test_what_is_in_its_place_or_nobody_asks_for_is_not_in_the_way(tmp_path):
    store = write_store(tmp_path, [make_result(SPEC)])
    check_places(tmp_path / "nothing", [SPEC.key])
    pipe_at(store.run_dir(KEY) / "log.txt")  # of a run that is not to be carried out
    pipe_at(store.result_path(SPEC.key))  # is set aside, and the run carried out again
    (store.root / "shared").mkdir()
    (store.root / "shared" / ".DS_Store").touch()
    (store.root / "shared" / "states.damaged-host-1-0123abcd").touch()
    dangling_at(store.run_dir(SPEC.key) / "log.txt")  # a file can be written there
    check_places(store.root, [SPEC.key])
