"""Claims: one owner at a time, whoever crashes, sleeps or comes late, with no clock or lock in common."""

import json
import multiprocessing
import os
import random

import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results import claims as module
from shrinkbench.results.claims import RunClaims
from shrinkbench.results.store import ResultStore
from shrinkbench.results.upkeep import repair_store, verify_store

KEY = "ab" * 32


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def elsewhere(monkeypatch):
    """Claims are those of another machine: whether their processes live cannot be seen."""
    monkeypatch.setattr(module, "_machine", lambda: "")


def files(store):
    return sorted(path.name for path in (store / "claims").iterdir())


def test_one_owner_at_a_time_and_nothing_stays(tmp_path):
    one, other = RunClaims(tmp_path), RunClaims(tmp_path)
    with one.take(KEY) as claim:
        assert claim is not None
        assert other.take(KEY) is None
        assert one.take(KEY) is None  # not even twice by the same process
        assert other.take("cd" * 32) is not None
        holder = other.holder(KEY)
        assert (holder.pid, holder.alive) == (os.getpid(), True)
        assert claim.beat()
    assert files(tmp_path) == [f"{'cd' * 32}.1.json"]
    assert other.take(KEY) is not None


def test_a_claim_whose_heartbeat_stands_still_is_taken_over_after_its_time(tmp_path, clock, elsewhere):
    owner, other = RunClaims(tmp_path, expires_after=60), RunClaims(tmp_path, expires_after=5)
    claim = owner.take(KEY)
    assert other.take(KEY) is None
    clock[0] += 59  # its own time counts, not that of the one who looks
    assert other.take(KEY) is None
    clock[0] += 2
    taken = other.take(KEY)
    assert taken is not None
    assert not claim.beat()
    assert claim.lost
    claim.release()  # what is lost is not released
    assert other.holder(KEY) is not None
    assert taken.beat()
    taken.release()
    assert files(tmp_path) == []


def test_a_heartbeat_keeps_a_claim_whatever_the_clocks_say(tmp_path, clock, elsewhere):
    owner, other = RunClaims(tmp_path), RunClaims(tmp_path)
    claim = owner.take(KEY)
    for _ in range(10):
        assert other.take(KEY) is None
        clock[0] += 50
        os.utime(tmp_path / "claims" / f"{KEY}.1.json", (0, 0))  # a host whose clock is decades behind
        assert claim.beat()


def test_a_dead_process_of_this_machine_is_seen_at_once(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_take_and_die, args=(tmp_path,))
    process.start()
    process.join()
    claim = RunClaims(tmp_path).take(KEY)
    assert claim is not None
    assert claim.number == 2
    claim.release()
    assert files(tmp_path) == []


def _take_and_die(store):
    assert RunClaims(store).take(KEY) is not None
    os._exit(9)


def test_a_process_number_that_is_used_again_is_another_process(tmp_path):
    RunClaims(tmp_path).take(KEY)
    path = tmp_path / "claims" / f"{KEY}.1.json"
    fields = json.loads(path.read_bytes())
    path.write_bytes(json.dumps(fields | {"born": "1"}).encode())
    assert RunClaims(tmp_path).holder(KEY).alive is False


@pytest.mark.parametrize("content", [b"", b"\x00" * 1024, b"[1]", b'{"pid": "x", "expires_after": -1}'])
def test_a_damaged_claim_blocks_for_its_time_only(tmp_path, clock, content):
    path = tmp_path / "claims" / f"{KEY}.7.json"
    path.parent.mkdir()
    path.write_bytes(content)
    claims = RunClaims(tmp_path)
    assert claims.take(KEY) is None
    clock[0] += module.EXPIRES_AFTER + 1
    assert claims.take(KEY) is not None


def _while_making(monkeypatch, act):
    """Let ``act`` happen once between the look at the claims and the making of the next file."""
    real = os.open

    def late(path, flags, *rest):
        if flags & os.O_EXCL:
            monkeypatch.setattr(module.os, "open", real)
            act()
        return real(path, flags, *rest)

    monkeypatch.setattr(module.os, "open", late)


def _expire(claims, clock):
    assert claims.take(KEY) is None
    clock[0] += module.EXPIRES_AFTER + 1


def test_of_two_who_take_over_one_succeeds(tmp_path, clock, elsewhere, monkeypatch):
    RunClaims(tmp_path).take(KEY)
    one, other = RunClaims(tmp_path), RunClaims(tmp_path)
    for claims in (one, other):
        assert claims.take(KEY) is None
    clock[0] += module.EXPIRES_AFTER + 1
    won = []
    _while_making(monkeypatch, lambda: won.append(other.take(KEY)))
    assert one.take(KEY) is None
    assert won[0].beat()


def test_who_comes_late_does_not_take_what_was_released_and_claimed_anew(
    tmp_path, clock, elsewhere, monkeypatch
):
    RunClaims(tmp_path).take(KEY)
    late, quick = RunClaims(tmp_path), RunClaims(tmp_path)
    for claims in (late, quick):
        assert claims.take(KEY) is None
    clock[0] += module.EXPIRES_AFTER + 1
    third = []

    def meanwhile():
        quick.take(KEY).release()
        third.append(RunClaims(tmp_path).take(KEY))

    _while_making(monkeypatch, meanwhile)
    assert late.take(KEY) is None
    assert third[0].number == 1  # the same number and name as the claim that had expired
    assert third[0].beat()


def test_who_saw_no_claim_steps_back_from_a_higher_number(tmp_path, clock, elsewhere, monkeypatch):
    late, owners = RunClaims(tmp_path), []

    def meanwhile():
        RunClaims(tmp_path).take(KEY)
        other = RunClaims(tmp_path)
        _expire(other, clock)
        owners.append(other.take(KEY))
        (tmp_path / "claims" / f"{KEY}.1.json").unlink()

    _while_making(monkeypatch, meanwhile)
    assert late.take(KEY) is None
    assert owners[0].beat()
    assert files(tmp_path) == [f"{KEY}.2.json"]


def test_a_full_disk_leaves_no_claim(tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "write", lambda handle, content: 10)
    with pytest.raises(ShrinkbenchError, match="No space left"):
        RunClaims(tmp_path).take(KEY)
    assert files(tmp_path) == []


def test_a_claim_whose_folder_is_gone_is_released_without_a_word(tmp_path):
    claim = RunClaims(tmp_path).take(KEY)
    (tmp_path / "claims").rename(tmp_path / "away")
    (tmp_path / "claims").write_text("no folder")
    claim.release()
    assert not claim.beat()


@pytest.mark.parametrize("key", ["", "../x", "a/b", "a.1", "x" * 200])
def test_a_key_that_is_no_name_is_refused(tmp_path, key):
    with pytest.raises(ShrinkbenchError, match="cannot be claimed"):
        RunClaims(tmp_path).take(key)


OBSTACLES = {
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "large": lambda path: path.write_bytes(b" " * (2 << 20)),
    "highest number": lambda path: path.with_name(f"{KEY}.999999999.json").write_bytes(b"{}"),
}


@pytest.mark.parametrize("put", OBSTACLES.values(), ids=OBSTACLES)
def test_what_is_no_claim_is_named_and_set_aside_in_place_of_an_endless_wait(tmp_path, put):
    (tmp_path / "claims").mkdir()
    (tmp_path / "runs").mkdir()
    put(tmp_path / "claims" / f"{KEY}.1.json")
    (name,) = files(tmp_path)
    claims, store = RunClaims(tmp_path), ResultStore(tmp_path)
    with pytest.raises(ShrinkbenchError, match=rf"{name} .*store repair"):
        claims.take(KEY)
    assert claims.holders() == claims.remove_stale() == []
    assert [problem.path.name for problem in verify_store(store)] == [name]
    assert len(list(repair_store(store))) == 1
    assert verify_store(store) == []
    assert claims.take(KEY) is not None


@pytest.mark.parametrize("number", ["0", "01", "001"])
def test_a_number_that_no_claim_is_written_with_blocks_nothing(tmp_path, number):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / f"{KEY}.{number}.json").write_bytes(b"{}")
    claims = RunClaims(tmp_path)
    with claims.take(KEY) as claim:
        assert claim.number == 1
        assert [holder.key for holder in claims.holders()] == [KEY]


def test_stale_claims_are_removed_and_living_ones_stay(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_take_and_die, args=(tmp_path,))
    process.start()
    process.join()
    claims = RunClaims(tmp_path)
    claims.take("cd" * 32)
    assert [holder.key for holder in claims.remove_stale()] == [KEY]
    assert [holder.key for holder in claims.holders()] == ["cd" * 32]


@pytest.mark.parametrize("sees_processes", [True, False])
def test_many_processes_that_crash_never_work_on_one_key_at_once(tmp_path, sees_processes):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_compete, args=(tmp_path, number, sees_processes)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode in (0, 9)
    assert not list(tmp_path.glob("broken-*"))
    assert len(list(tmp_path.glob("done-*"))) > 20


def _compete(store, number, sees_processes):
    """Take, enter a room that holds one, leave, release; sometimes die inside, having left the room."""
    if not sees_processes:
        module._machine = lambda: ""
    chance = random.Random(number)
    claims = RunClaims(store, expires_after=0.6)
    for turn in range(150):
        key = f"key{chance.randrange(3)}"
        claim = claims.take(key)
        if claim is None:
            module.time.sleep(0.005)
            continue
        try:
            os.close(os.open(store / f"room-{key}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            (store / f"broken-{number}-{turn}").touch()
        (store / f"done-{number}-{turn}").touch()
        (store / f"room-{key}").unlink(missing_ok=True)
        if number < 3 and turn > 100:
            os._exit(9)
        claim.release()


def test_a_claim_whose_file_somebody_has_closed_writes_into_no_other(tmp_path):
    claim = RunClaims(tmp_path).take("key")
    handle = claim._handle
    with (tmp_path / "another").open("wb+") as file:
        os.dup2(file.fileno(), handle)  # it has the number that was closed
        assert not claim.beat()
        claim.release()
        os.write(handle, b"mine")
    os.close(handle)
    assert (tmp_path / "another").read_bytes() == b"mine"
    assert list((tmp_path / "claims").iterdir()) == []
