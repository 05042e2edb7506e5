"""A folder of somebody else's may hold pipes where files belong: nobody waits for what never comes."""

import os
import signal

import pytest
from made_results import make_result, make_spec, write_store

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.claims import RunClaims
from shrinkbench.results.index import INDEX_NAME, read_index
from shrinkbench.results.seals import check_card, check_tensors
from shrinkbench.results.store import ResultStore
from shrinkbench.results.upkeep import verify_store

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
SPEC = make_spec()


@pytest.fixture(autouse=True)
def _in_time():
    """A read that waits fails, in place of holding everything up."""

    def fail(number, frame):
        raise AssertionError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path, [make_result(SPEC), make_result(make_spec(seed=1))])


def pipe_at(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def test_a_result_that_is_a_pipe_is_missing(store):
    path = pipe_at(store.result_path(SPEC.key))
    fresh = ResultStore(store.root)
    assert (fresh.status().done, fresh.has(SPEC.key)) == (1, False)
    assert [problem.path for problem in fresh.damaged([SPEC.key])] == [path]
    assert [problem.path for problem in verify_store(fresh)] == [path]


def test_a_plan_that_is_a_pipe_is_told(store):
    pipe_at(store.plan_path)
    with pytest.raises(ShrinkbenchError, match=r"plan\.json.*is a device, pipe or socket"):
        ResultStore(store.root).status()
    assert [problem.path.name for problem in verify_store(store)] == ["plan.json"]


def test_an_index_that_is_a_pipe_says_nothing(store):
    pipe_at(store.root / "index.jsonl")
    assert read_index(store.root) == {}
    assert ResultStore(store.root).status().done == 2


def test_a_claim_that_is_a_pipe_is_told(store):
    pipe_at(store.root / "claims" / "run-a.1.json")
    claims = RunClaims(store.root)
    with pytest.raises(ShrinkbenchError, match=r"run-a\.1\.json is a link, folder, pipe or device"):
        claims.take("run-a")
    assert [path.name for _, path, _ in claims.obstacles()] == ["run-a.1.json"]


def test_a_shared_file_that_is_a_pipe_is_not_whole(store):
    for name, check in {"card.json": check_card, "masks.safetensors": check_tensors}.items():
        assert check(pipe_at(store.root / "shared" / "search" / "0" / name), key="0")


def test_what_stands_beside_the_plan_may_be_a_pipe(store):
    from shrinkbench.results.layout import BESIDE_NAME
    from shrinkbench.runner.beside_plan import read_beside

    pipe_at(store.root / BESIDE_NAME)
    with pytest.raises(ShrinkbenchError, match=BESIDE_NAME):
        read_beside(store.root)


@pytest.mark.parametrize("name", ["result.json", "plan.json"])
def test_what_never_ends_is_read_up_to_a_limit(store, name):
    path = store.plan_path if name == "plan.json" else store.result_path(SPEC.key)
    path.unlink()
    path.symlink_to("/dev/zero")
    if name == "plan.json":
        with pytest.raises(ShrinkbenchError, match="device"):
            ResultStore(store.root).status()
    else:
        assert ResultStore(store.root).status().done == 1


def test_who_writes_lines_does_not_wait_for_the_reader_of_a_pipe(store):
    from shrinkbench.runner.logs import RunLog

    RunLog(pipe_at(store.run_dir(SPEC.key) / "log.txt")).start("a run")  # left out: no run fails by its diary
    path = pipe_at(store.root / INDEX_NAME)
    with pytest.raises(ShrinkbenchError, match=r"index\.jsonl is a device, pipe or socket; move it away"):
        store.write(make_result(SPEC))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(ShrinkbenchError, match="move it away"):
        store.write(make_result(SPEC))
    os.close(reader)
    assert isinstance(store.read(SPEC.key), type(make_result(SPEC)))
    path.unlink()
    store.write(make_result(SPEC))  # the lock was given back
    assert SPEC.key in read_index(store.root)
