"""The same runs by every executor, and what becomes of runs that end their process."""

import errno
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import load_plugin
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import Workspace, prepare_sweep, sweep
from shrinkbench.runner.executors import (
    Ending,
    InProcess,
    LocalProcesses,
    RayCluster,
    Setting,
    SubmititJobs,
    Task,
)
from shrinkbench.runner.executors.batches import Batch, Work
from shrinkbench.runner.executors.local import _Worker
from shrinkbench.runner.planning import plan
from shrinkbench.runner.shares import Share, assign_shares, visible_gpus
from shrinkbench.runner.sweeping import carry_out, opener
from shrinkbench.spec import ExperimentSpec, parse_value

POISON = '''
import ctypes, os, signal, sys
from shrinkbench import pruning_method

def magnitude(ctx):
    return {name: w.abs() for name, w in ctx.weights.items()}

@pruning_method("good")
def good(ctx):
    """Magnitude."""
    return magnitude(ctx)

@pruning_method("segfault")
def segfault(ctx):
    """Reads where nothing is."""
    ctypes.string_at(0)

@pruning_method("killed")
def killed(ctx):
    """As by the kernel, out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)

@pruning_method("told")
def told(ctx):
    """As by a scheduler, or whoever looks for processes to end."""
    os.kill(os.getpid(), signal.SIGTERM)
    return magnitude(ctx)

@pruning_method("exits")
def exits(ctx):
    """Asks Python to end."""
    sys.exit(0)

@pruning_method("leaves")
def leaves(ctx):
    """Ends the process."""
    os._exit(0)

@pruning_method("interrupts")
def interrupts(ctx):
    """Claims that somebody has typed Ctrl-C."""
    raise KeyboardInterrupt

@pruning_method("forks")
def forks(ctx):
    """Goes on as two."""
    os.fork()
    return magnitude(ctx)

@pruning_method("elsewhere")
def elsewhere(ctx):
    """Changes to another folder."""
    os.chdir("/")
    return magnitude(ctx)

class Odd(BaseException):
    pass

@pruning_method("odd")
def odd(ctx):
    """Raises what only interpreters should."""
    raise Odd("no Exception")

@pruning_method("hangs")
def hangs(ctx):
    """Never returns."""
    while True:
        pass

@pruning_method("greedy")
def greedy(ctx):
    """Asks for more memory than there is."""
    raise MemoryError("too much")
'''

LOST = '''
import torch
from shrinkbench import pruning_method

def refuse(*_, **__):
    raise RuntimeError("CUDA error: device-side assert triggered")

@pruning_method("asserts")
def asserts(ctx):
    """Does what an assertion in a kernel does to its process: whatever it asks of the GPU later fails."""
    torch.cuda.is_initialized = lambda: True
    torch.cuda.synchronize = torch.nn.functional.linear = refuse
    refuse()
'''

FORKING = '''
import multiprocessing, os, time
from pathlib import Path
from shrinkbench import pruning_method

@pruning_method("NAME")
def forking(ctx):
    """Magnitude; starts a process, and ends it."""
    Path(__file__).with_name("here").write_text(os.getcwd())
    Path(__file__).with_name("safe").write_text(str(os.environ.get("PYTHONSAFEPATH")))
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(10,))
    process.start()
    time.sleep(0.3)
    process.terminate()
    process.join()
    Path(__file__).with_name("ended").write_text(str(process.exitcode))
    return {name: w.abs() for name, w in ctx.weights.items()}
'''

MOVED = '''
import os, signal
from pathlib import Path
from shrinkbench import pruning_method

@pruning_method("moved")
def moved(ctx):
    """Magnitude; the first time, the scheduler wants its machine back."""
    place = Path(__file__).with_name("moved")
    if not place.exists():
        place.touch()
        os.kill(os.getpid(), signal.SIGUSR2)
    return {name: w.abs() for name, w in ctx.weights.items()}
'''


def experiment(**fields):
    base = {
        "name": "test",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": ["global_magnitude", "random"],
        "compression": [1, 4],
        "seed": [0],
        "pretrain": {"epochs": 1},
        "finetune": {"epochs": 1},
        "train_images": 100,
    }
    return parse_value(ExperimentSpec, {**base, **fields}, where="test")


def poisoned(*methods):
    return experiment(method=list(methods), weights="random", compression=[2], finetune={"epochs": 0})


def results(root):
    found = {p.parent.name: json.loads(p.read_text()) for p in root.glob("runs/*/result.json")}
    for fields in found.values():
        del fields["provenance"]
    return found


@pytest.fixture(scope="module")
def one_thread():
    """The order of sums follows from the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def calm(one_thread, tmp_path_factory):
    root = tmp_path_factory.mktemp("calm")
    assert sweep(experiment(), root, device="cpu", executor=InProcess()).done == 4
    return results(root)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "poison.py"
    path.write_text(POISON)
    return path


def sweep_poison(plugin, out, *methods, **options):
    load_plugin(plugin)
    notes = []
    status = sweep(poisoned(*methods), out, device="cpu", plugins=[plugin], on_note=notes.append, **options)
    return status, {r.spec.method.name: r.error for r in ResultStore(out).results()[0]}, notes


def test_processes_give_the_table_of_this_process(calm, tmp_path, monkeypatch):
    monkeypatch.setattr("shrinkbench.runner.executors.local.available_cores", lambda: 2)
    assert sweep(experiment(), tmp_path, device="cpu", executor=LocalProcesses(2)).done == 4
    assert results(tmp_path) == calm
    assert not list(tmp_path.glob("claims/*"))
    for log in tmp_path.glob("runs/*/log.txt"):
        lines = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
        assert lines[0].startswith("start: digits digits-cnn")
        assert lines[-1] == "end: done"


def test_a_process_speaks_for_its_own_task_alone():
    here, there = multiprocessing.Pipe()
    task, other = (Task("run", key * 64, None) for key in "ab")
    worker = _Worker(multiprocessing.current_process(), here, task)
    there.send((os.getpid() + 1, task, Ending("died", "of a copy")))
    there.send((os.getpid(), other, Ending("died", "of the task before")))
    assert worker._receive() is None
    there.send((os.getpid(), task, Ending("done")))
    assert worker._receive() == Ending("done")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")
def test_jobs_give_the_table_of_this_process(one_thread, tmp_path):
    one = experiment(method="random", compression=[4], weights="random")
    assert sweep(one, tmp_path / "here", device="cpu", executor=InProcess()).done == 1
    assert sweep(one, tmp_path / "jobs", device="cpu", executor=SubmititJobs("local")).done == 1
    assert results(tmp_path / "jobs") == results(tmp_path / "here")


def sweep_forking(folder, name, executor):
    """A sweep of a method that starts a process of its own."""
    path = folder / "mine" / "own.py"
    path.parent.mkdir()
    path.write_text(FORKING.replace("NAME", name))
    load_plugin(path)
    one = experiment(method=name, compression=[4], weights="random")
    sweep(one, folder / "out", device="cpu", plugins=[path], executor=executor, max_retries=0)
    return path.parent


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")
def test_a_job_imports_nothing_from_the_folder_of_the_sweep(one_thread, tmp_path, monkeypatch):
    """It is in the path of what Python starts with -m; what somebody's code starts is as ever."""
    monkeypatch.chdir(tmp_path)
    for name in ("random", "torch", "submitit", "cloudpickle"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'a').write(__name__)\nraise ImportError\n")
    mine = sweep_forking(tmp_path, "in_jobs", SubmititJobs("local"))
    assert not (tmp_path / "imported").exists()
    assert ((mine / "safe").read_text(), (mine / "ended").read_text()) == ("None", f"{-signal.SIGTERM}")


def test_a_job_finds_the_modules_that_the_sweep_finds_after_all_else(one_thread, tmp_path, monkeypatch):
    """Where the sweep is of a script, say, and helpers lie beside that."""
    monkeypatch.setattr("shrinkbench.runner.executors.batches.hear_alone", lambda *numbers: None)
    monkeypatch.setattr("sys.path", ["", str(tmp_path), "/first"])
    work = Work(Setting(Workspace(root=tmp_path, device="cpu"), {}), 1)
    monkeypatch.setattr("sys.path", ["/first"])
    work(Batch(tmp_path / "batch", ()))
    assert sys.path == ["/first", str(Path.cwd()), str(tmp_path)]


def test_no_run_is_given_to_a_process_that_was_told_to_end(plugin, tmp_path):
    """By the system, say; the sweep goes on."""
    one = LocalProcesses(1)
    status, _, notes = sweep_poison(plugin, tmp_path, "told", "good", "random", executor=one, max_retries=0)
    assert status.done == 3, notes


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_process_of_ray_imports_nothing_from_the_folder_of_the_sweep(one_thread, tmp_path, monkeypatch):
    """Runs find themselves in it, though."""
    monkeypatch.chdir(tmp_path)
    for name in ("torch", "shrinkbench", "cloudpickle"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'a').write(__name__)\nraise ImportError\n")
    mine = sweep_forking(tmp_path, "in_ray", RayCluster())
    assert not (tmp_path / "imported").exists()
    assert (mine / "here").read_text() == str(tmp_path)


def test_what_a_method_forks_hears_what_ends_it(tmp_path):
    mine = sweep_forking(tmp_path, "in_processes", LocalProcesses(1))
    assert (mine / "ended").read_text() == f"{-signal.SIGTERM}"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")
def test_a_job_that_is_told_to_make_room_goes_on_later(one_thread, tmp_path):
    path = tmp_path / "moved.py"
    path.write_text(MOVED)
    load_plugin(path)
    (tmp_path / "moved").touch()  # no signal in the calm run
    one = experiment(method="moved", compression=[4], weights="random", finetune={"epochs": 2})
    assert sweep(one, tmp_path / "here", device="cpu", plugins=[path]).done == 1
    (tmp_path / "moved").unlink()
    executor = SubmititJobs("local")
    assert (
        sweep(one, tmp_path / "jobs", device="cpu", plugins=[path], executor=executor, max_retries=0).done == 1
    )
    assert results(tmp_path / "jobs") == results(tmp_path / "here")
    (log,) = (tmp_path / "jobs").glob("runs/*/log.txt")
    assert log.read_text().count(" start: ") == 2


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_ray_gives_the_table_of_this_process(calm, tmp_path):
    assert sweep(experiment(), tmp_path, device="cpu", executor=RayCluster()).done == 4
    assert results(tmp_path) == calm


def test_a_run_that_ends_its_process_or_does_anything_to_it_harms_no_other(plugin, tmp_path, monkeypatch):
    """One dies and is tried again; others fork, move to another folder, and raise what is no Exception."""
    monkeypatch.chdir(tmp_path)
    methods, one = ("segfault", "forks", "elsewhere", "odd", "good"), LocalProcesses(1)
    status, errors, notes = sweep_poison(plugin, Path("out"), *methods, executor=one)
    assert (status.total, status.done, status.failed, len(notes)) == (5, 3, 2, 1)
    told = {"segfault": "worker died by SIGSEGV twice", "odd": "Odd: no Exception"}
    assert errors == dict.fromkeys(methods) | told
    assert not list((tmp_path / "out" / "claims").iterdir())


@pytest.mark.slow
def test_every_way_to_end_a_process_is_named(plugin, tmp_path):
    executor = LocalProcesses(2, time_limit=9)
    methods = ("killed", "exits", "leaves", "interrupts", "hangs", "good")
    status, errors, _ = sweep_poison(plugin, tmp_path / "out", *methods, executor=executor, max_retries=0)
    assert status.done == 1
    assert errors == {
        "killed": "worker died by SIGKILL",
        "exits": "worker called sys.exit(0)",
        "leaves": "worker ended itself with exit code 0",
        "interrupts": "worker raised KeyboardInterrupt",
        "hangs": "worker was stopped at the time limit of 0.15 minutes",
        "good": None,
    }


def test_what_the_disk_fails_of_a_run_that_is_done_leaves_its_result(tmp_path, monkeypatch):
    fields = {"method": "random", "compression": [2], "weights": "random", "finetune": {"epochs": 0}}
    sweep(experiment(**fields), tmp_path, device="cpu")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shrinkbench.runner.execution.latencies", fail)
    notes = []
    assert sweep(experiment(**fields, latency=[1]), tmp_path, device="cpu", on_note=notes.append).done == 1
    assert "random 2x seed 0 could not be carried out, and its earlier result stays: OSError" in notes[-1]


def test_what_memory_fails_stays_missing(plugin, tmp_path):
    status, errors, notes = sweep_poison(plugin, tmp_path / "out", "greedy", "good", "exits", max_retries=0)
    assert (status.done, status.failed, status.missing) == (1, 1, 1)
    assert "greedy" not in errors
    assert [note for note in notes if "greedy" in note and "is missing" in note]


def test_a_run_that_loses_its_process_the_gpu_fails_no_other(tmp_path, monkeypatch):
    """A process of its own is replaced; in this one, what comes later stays missing."""
    for place, name in ((torch.cuda, "is_initialized"), (torch.cuda, "synchronize"), (nn.functional, "linear")):
        monkeypatch.setattr(place, name, getattr(place, name))
    monkeypatch.setattr("shrinkbench.runner.executors.performing._lost", threading.Event(), raising=False)
    path = tmp_path / "lost.py"
    path.write_text(LOST)
    for number, (executor, done) in enumerate([(LocalProcesses(1), 1), (InProcess(), 0)]):
        out = tmp_path / str(number)
        status, errors, notes = sweep_poison(path, out, "asserts", "random", executor=executor)
        assert (status.done, status.failed, status.missing) == (done, 1, 1 - done)
        assert "device-side assert" in errors["asserts"]
        assert [note for note in notes if "has lost this process its GPU" in note] == notes
        assert bool(notes) != bool(done)


@pytest.mark.slow
def test_a_plug_in_that_fails_in_the_worker_says_so(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import multiprocessing\nfrom shrinkbench import pruning_method\n"
        "if multiprocessing.parent_process() is not None:\n    raise OSError('no licence here')\n"
        "@pruning_method('licensed')\ndef licensed(ctx):\n    'Magnitude.'\n    return dict(ctx.weights)\n"
    )
    load_plugin(path)
    with pytest.raises(
        ShrinkbenchError, match=r"the plug-in .*mine.py fails in line 4: OSError: no licence here"
    ):
        sweep(poisoned("licensed"), tmp_path / "out", device="cpu", plugins=[path], executor=LocalProcesses())


def test_gpus_go_round():
    assert [share.gpu for share in assign_shares(4, cores=8, gpus=["0", "1", "2"])] == ["0", "1", "2", "0"]
    assert assign_shares(2, cores=8) == (Share(4), Share(4))
    assert visible_gpus(4, visible="GPU-a,GPU-b,GPU-c,GPU-d", index=2) == ("GPU-c",)
    assert visible_gpus(3) == ("0", "1", "2")
    with pytest.raises(ShrinkbenchError, match=r"--device cuda:3: this machine shows 2 CUDA devices"):
        visible_gpus(2, index=3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LocalProcesses(0), "--workers 0"),
        (lambda: LocalProcesses(100_000_000), "more than the 1024 processes"),
        (lambda: LocalProcesses(time_limit=0), "a time limit of 0 s"),
        (lambda: SubmititJobs("local", time_limit=-60), "a time limit of -60 s"),
        (lambda: SubmititJobs("local", cpus=0), "1 runs, 0 cores"),
        (lambda: SubmititJobs("local", runs_per_job=0), "of 0 runs"),
    ],
)
def test_numbers_that_are_none_are_refused_at_once(make, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence):
        make()


def test_a_refused_sweep_leaves_nothing_behind(tmp_path):
    for options in ({"workers": 0}, {"max_retries": -1}):
        with pytest.raises(ShrinkbenchError):
            sweep(experiment(), tmp_path / "out", device="cpu", **options)
        assert not (tmp_path / "out").exists()


class _Job:
    """A job of submitit's; it is over, and has left no file of submitit's."""

    job_id = "1"

    def __init__(self, folder, batch):
        self.paths = type("Paths", (), {"result_pickle": folder / "absent"})
        self.batch, self.state, self.cancelled = batch, "FINISHED", False

    def done(self):
        return self.state == "FINISHED"

    def stderr(self):
        return "out of luck\nat last\n"

    def cancel(self):
        self.cancelled = True


def _end(jobs, number):
    for job in jobs:
        job.cancelled, job.state = True, "FINISHED"


class _Jobs:
    """What submitit was given, by the call; ``started`` are the jobs, in order."""

    def __init__(self, folder):
        self.folder, self.calls, self.started = folder, [], []

    def take(self, executor, work, batches):
        self.calls.append([len(batch.tasks) for batch in batches])
        self.started += (fresh := [_Job(self.folder, batch) for batch in batches])
        return fresh


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Makes executors whose jobs submitit takes and loses, and what it was given."""
    submitit = pytest.importorskip("submitit")
    given = _Jobs(tmp_path)
    monkeypatch.setattr(submitit.AutoExecutor, "map_array", lambda *of: given.take(*of))
    monkeypatch.setattr("shrinkbench.runner.executors.on_submitit.available_cores", lambda: 2)
    monkeypatch.setattr("shrinkbench.runner.executors.on_submitit._signal", _end)  # they are no processes
    monkeypatch.setattr("shrinkbench.runner.executors.on_submitit._POLL", 0)

    def make(**options):
        executor = SubmititJobs("local", **options)
        executor.start(Setting(Workspace(root=tmp_path)), tasks=1)
        return executor

    return make, given


def _tasks(names):
    return [Task("run", name, None) for name in names]


def _keys(ended):
    return [(task.key, ending.kind) for task, ending in ended]


def test_a_scheduler_that_takes_no_job_and_cancels_none_is_told_in_a_sentence(jobs, monkeypatch):
    make, given = jobs

    def refuse(*_):
        raise OSError("sbatch: error: invalid partition")

    executor = make()
    executor.submit(_tasks("a"))
    given.take = refuse
    with pytest.raises(ShrinkbenchError, match="takes no job: sbatch: error: invalid partition; mend"):
        executor.submit(_tasks("b"))
    (job,) = given.started
    job.cancel = refuse
    executor.close()


def test_a_job_whose_tasks_have_all_ended_is_not_cancelled(jobs):
    make, given = jobs
    executor = make()
    executor.submit(_tasks("ab"))
    first, second = given.started
    first.state = second.state = "RUNNING"  # it has told of its task, and leaves
    first.batch.tell(0, Ending("done"))
    assert _keys(executor.completed(0)) == [("a", "done")]
    executor.close()
    assert (first.cancelled, second.cancelled) == (False, True)


def test_jobs_without_a_queue_are_as_many_as_the_cores(jobs):
    make, given = jobs
    make().submit(_tasks("abcdefg"))
    assert given.calls == [[1, 1]]


def test_a_job_that_left_nothing_is_waited_for_beside_the_others(jobs, monkeypatch):
    make, _ = jobs
    executor = make()
    executor.submit(_tasks("a"))
    assert executor.completed(0) == []  # its file may come late, on a shared disk
    monkeypatch.setattr("shrinkbench.runner.executors.on_submitit._PATIENCE", {"local": -1.0})
    ((_, ending),) = executor.completed(0)
    assert (ending.kind, ending.sentence) == ("died", "died in job 1 (finished; at last)")


def test_few_runs_are_spread_over_the_jobs_and_many_fill_them(jobs):
    make, given = jobs
    make(runs_per_job=4).submit(_tasks("abc"))
    make(runs_per_job=4).submit(_tasks("abcdefghijkl"))
    assert given.calls == [[2, 1], [4, 4]]


def test_a_job_that_dies_loses_the_run_that_it_was_at_and_no_other(jobs, monkeypatch):
    monkeypatch.setattr("shrinkbench.runner.executors.on_submitit._PATIENCE", {"local": -1.0})
    make, given = jobs
    executor = make(runs_per_job=4)
    executor.submit(_tasks("abcdefg"))
    first, second = given.started
    first.state = second.state = "RUNNING"
    first.batch.tell(0, Ending("done"))
    assert _keys(executor.completed(0)) == [("a", "done")]  # told while the job goes on
    first.batch.tell(1, Ending("failed", "for a reason"))
    first.state = "FINISHED"
    assert _keys(executor.completed(0)) == [("b", "failed"), ("c", "died")]
    second.batch.tell(0, Ending("done"))
    # The one that was not begun has gone to another job, which is lost as well.
    assert _keys(executor.completed(0)) == [("e", "done"), ("d", "died")]
    assert [task.key for task in given.started[-1].batch.tasks] == ["d"]


def test_jobs_that_run_end_the_run_that_they_are_at_and_queued_ones_are_given_back(jobs):
    make, given = jobs
    executor = make(runs_per_job=2)
    executor.submit(_tasks("abcde"))
    running, queued = given.started
    running.state, queued.state = "RUNNING", "PENDING"
    assert [task.key for task in executor.drain()] == ["e", "c", "d"]
    assert queued.cancelled
    assert not running.cancelled
    assert running.batch.stopped


def test_a_job_begins_nothing_more_when_it_is_told_to_stop_and_nothing_twice(tmp_path, monkeypatch):
    begun = []

    def perform(task, setting, *, own_process):
        begun.append(task.key)
        if task.key == "b":
            batch.stop()
        return Ending("done")

    monkeypatch.setattr("shrinkbench.runner.executors.batches.perform", perform)
    batch = Batch(tmp_path / "batch", tuple(_tasks("abc")))
    batch.tell(0, Ending("failed", "before it was put in the queue again"))
    Work(Setting(Workspace(root=tmp_path)), threads=torch.get_num_threads())(batch)
    assert begun == ["b"]
    assert [batch.ending(number).kind for number in range(3)] == ["failed", "done", "interrupted"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")
def test_jobs_of_several_runs_lose_none_to_one_that_ends_its_process(plugin, tmp_path):
    executor = SubmititJobs("local", runs_per_job=3)
    status, errors, _ = sweep_poison(
        plugin, tmp_path / "out", "segfault", "good", "exits", executor=executor, max_retries=0
    )
    assert (status.done, status.failed) == (1, 2)
    assert errors["segfault"].startswith("worker died in job")
    assert errors["exits"] == "worker called sys.exit(0)"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_time_limit_under_ray_ends_what_hangs(plugin, tmp_path):
    executor = RayCluster(time_limit=36)  # a worker that begins imports torch within it
    status, errors, _ = sweep_poison(
        plugin, tmp_path / "out", "hangs", "good", "segfault", executor=executor, max_retries=0
    )
    assert status.done == 1
    assert errors == {
        "hangs": "worker was stopped at the time limit of 0.6 minutes",
        "segfault": "worker died by SIGSEGV",
        "good": None,
    }


def test_what_others_have_carried_out_since_it_was_planned_is_left(tmp_path):
    one = experiment(method="random", compression=[4], weights="random")
    prepared = prepare_sweep(one, tmp_path, device="cpu")
    assert sweep(one, tmp_path, device="cpu").done == 1
    is_open = opener(prepared.setting.workspace, retry_failed=False)
    carry_out(prepared.todo, prepared.setting, InProcess(), is_open=is_open)
    (log,) = tmp_path.glob("runs/*/log.txt")
    assert log.read_text().count(" start: ") == 1


def test_a_finished_run_leaves_nothing_of_a_killed_attempt(tmp_path):
    one = experiment(method="random", compression=[4], weights="random")
    (run,) = plan(one, Workspace(root=tmp_path)).runs
    folder = ResultStore(tmp_path).run_dir(run.key)
    folder.mkdir(parents=True)
    (folder / ".checkpoint-0.pt.host-17-0123abcd.tmp").write_bytes(b"a part")
    (folder / "mine.tmp").write_bytes(b"of somebody else")
    assert sweep(one, tmp_path, device="cpu").done == 1
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "mine.tmp", "result.json"]


def test_a_damaged_checkpoint_is_told_by_the_sweep(tmp_path):
    one = experiment(method="random", compression=[4], weights="random")
    (run,) = plan(one, Workspace(root=tmp_path)).runs
    checkpoint = ResultStore(tmp_path).run_dir(run.key) / "checkpoint-0.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"no checkpoint")
    notes = []
    assert sweep(one, tmp_path, device="cpu", on_note=notes.append).done == 1
    assert [note for note in notes if str(checkpoint) in note and note.endswith("its training begins anew")]
    assert "note: the checkpoint" in (checkpoint.parent / "log.txt").read_text()


def test_processes_begin_before_their_tasks_and_no_more_than_there_are(tmp_path):
    before = set(multiprocessing.active_children())
    for tasks in (0, 1, 5):
        executor = LocalProcesses(2)
        executor.start(Setting(Workspace(root=tmp_path)), tasks=tasks)
        assert len(set(multiprocessing.active_children()) - before) == min(tasks, 2)
        executor.close()
        assert set(multiprocessing.active_children()) == before
