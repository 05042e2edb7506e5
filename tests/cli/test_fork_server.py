"""Workers that are forked: begun at once, ended with the sweep, and computing what spawned ones do."""

import os
import signal
import subprocess
import sys
import time

import pytest
from commands import living

from shrinkbench.processes import birth_of
from shrinkbench.results.store import ResultStore

GRID = """
name = "forked"
dataset = "digits"
model = "digits-cnn"
method = "METHOD"
compression = [2, 4]
seed = 0
train_images = 64
test_images = 64
weights = "random"
finetune = { epochs = 1 }
"""
LOOKS = '''
import os, sys
from multiprocessing import parent_process
from pathlib import Path
from shrinkbench import pruning_method

Path(__file__).with_name(f"read-{os.getpid()}").touch()

@pruning_method("looks")
def looks(ctx):
    """Magnitude; notes who its process is."""
    said = [os.getppid() != parent_process().pid, os.environ.get("PYTHONSAFEPATH"), os.environ["MARK"]]
    Path(__file__).with_name("seen").write_text(repr(said))
    return {name: w.abs() for name, w in ctx.weights.items()}
'''
WAITS = '''
import os, time
from pathlib import Path
from shrinkbench import pruning_method

@pruning_method("waits")
def waits(ctx):
    """Magnitude, after a minute."""
    Path(__file__).with_name("waiting").write_text(f"{os.getpid()} {os.getppid()}")
    time.sleep(60)
    return {name: w.abs() for name, w in ctx.weights.items()}
'''

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are spawned elsewhere")


def begin(folder, method, plugin=None, **environment):
    (folder / "grid.toml").write_text(GRID.replace("METHOD", method))
    words = [sys.executable, "-m", "shrinkbench", "sweep", "grid.toml", "--out", "out", "--workers", "2"]
    words += ["--device", "cpu"]
    if plugin is not None:
        (folder / "mine.py").write_text(plugin)
        words += ["--plugin", "mine.py"]
    return subprocess.Popen(
        words,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(there, *, seconds=60):
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_workers_are_forked_with_the_environment_of_the_sweep(tmp_path):
    process = begin(tmp_path, "looks", LOOKS, MARK="here")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert (tmp_path / "seen").read_text() == "[True, None, 'here']"


def test_files_of_the_folder_are_not_imported(tmp_path):
    for name in ("torch", "numpy", "multiprocessing", "shrinkbench", "ctypes"):
        (tmp_path / f"{name}.py").write_text("from pathlib import Path\nPath(__file__ + '.read').touch()\n")
    (tmp_path / "grid.toml").write_text(GRID.replace("METHOD", "random"))
    words = [sys.executable, "-P", "-m", "shrinkbench", "sweep", "grid.toml", "--out", "out", "--device", "cpu"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("*.read"))


@pytest.mark.slow
def test_files_of_the_folder_are_not_imported_by_the_console_script(tmp_path):
    """Python is started there without -P, and so is whatever it starts."""
    inside, script = tmp_path / "inside", tmp_path / "script.py"
    inside.mkdir()
    for name in ("multiprocessing", "torch", "selectors"):
        (inside / f"{name}.py").write_text("from pathlib import Path\nPath(__file__ + '.read').touch()\n")
    (inside / "grid.toml").write_text(GRID.replace("METHOD", "random"))
    script.write_text("from shrinkbench.cli import main\nif __name__ == '__main__':\n    main()\n")
    words = [sys.executable, str(script), "sweep", "grid.toml", "--out", "out", "--device", "cpu"]
    done = subprocess.run(words, cwd=inside, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(inside.glob("*.read"))
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_process_that_ends_before_it_begins_a_run_says_nothing_of_it(tmp_path):
    """Every worker of a script without `if __name__ == "__main__"` begins the sweep anew, and fails."""
    (tmp_path / "script.py").write_text("from shrinkbench.cli import main\nmain()\n")
    (tmp_path / "grid.toml").write_text(GRID.replace("METHOD", "random"))
    words = [sys.executable, "script.py", "sweep", "grid.toml", "--out", "out", "--device", "cpu"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2), done.stderr
    assert "ended itself with exit code" in done.stderr
    assert "before it was begun" in done.stderr
    assert ResultStore(tmp_path / "out").results()[0] == []


@pytest.mark.slow
def test_processes_that_cannot_be_started_are_told(tmp_path):
    """The plug-in has closed what Python starts them by."""
    closes = "import os\nos.closerange(3, 1000)\n" + LOOKS
    process = begin(tmp_path, "looks", closes, MARK="here")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert "no process for runs can be started" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("most", [12, 14])
def test_few_open_files_are_told_in_a_sentence(tmp_path, most):
    """Of no process that may be started: the server would end in a traceback, whoever else goes on."""
    (tmp_path / "grid.toml").write_text(GRID.replace("METHOD", "random"))
    words = [sys.executable, "-m", "shrinkbench", "sweep", "grid.toml", "--out", "out", "--device", "cpu"]
    limited = ["sh", "-c", f'ulimit -n {most}; exec "$@"', "sh", *words, "--workers", "2"]
    done = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "no process for runs can be started" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("whom", ["head", pytest.param("server", marks=pytest.mark.slow)])
def test_killed_processes_leave_no_other_behind(tmp_path, whom):
    process = begin(tmp_path, "waits", WAITS)
    until((tmp_path / "waiting").exists)
    until(lambda: (tmp_path / "waiting").read_text().count(" ") == 1)
    worker, server = map(int, (tmp_path / "waiting").read_text().split())
    assert server != process.pid
    if whom == "head":
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    else:  # its workers go with it, and others take their place
        (tmp_path / "waiting").unlink()
        os.kill(server, signal.SIGKILL)
        until((tmp_path / "waiting").exists)
        process.kill()
        process.wait()
    until(lambda: not birth_of(worker) and not birth_of(server), seconds=20)
    assert ResultStore(tmp_path / "out").results()[0] == []


def test_a_server_whose_head_is_gone_already_reads_nothing():
    environment = {**os.environ, "SHRINKBENCH_STARTED_BY": "1"}
    code = "import shrinkbench.cli.forked"
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 1
    code = "import sys; sys.modules['torch'] = None; import shrinkbench.cli.forked"
    environment["SHRINKBENCH_STARTED_BY"] = str(os.getpid())  # the parent lives: it goes on, to torch
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert b"torch" in done.stderr


@pytest.mark.slow
def test_what_ends_with_the_server_has_not_ended_itself(tmp_path):
    """As often as it is tried: what is stored is true."""
    kills = WAITS.replace("time.sleep(60)", "os.kill(os.getppid(), 9); time.sleep(60)")
    said, _ = begin(tmp_path, "waits", kills).communicate(timeout=120)
    errors = {result.error for result in ResultStore(tmp_path / "out").results()[0] if result.error}
    assert "Traceback" not in said
    assert errors == {
        "worker ended with the process that it was forked from, or itself with exit code 255 twice"
    }


def test_a_command_that_is_refused_leaves_nothing_behind(tmp_path):
    """While the server still reads its modules."""
    process = begin(tmp_path, "no_such_method", MARK_OF_TEST=str(tmp_path))
    assert process.wait(timeout=60) == 2
    until(lambda: not living(f"MARK_OF_TEST={tmp_path}"), seconds=5)
