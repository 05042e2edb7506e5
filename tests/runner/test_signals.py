"""What a terminal or a scheduler sends to all processes of a sweep ends it in order, wherever its tasks run."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from commands import living

from shrinkbench.results.store import ResultStore

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

COMMAND = [sys.executable, "-c", "from shrinkbench.cli import main; main()"]
PLACES = {
    "local": ("--workers", "2"),
    "ray": ("--executor", "ray"),
    "submitit": ("--executor", "submitit", "--cluster", "local"),
}
GRID = """
name = "long"
dataset = "digits"
model = "digits-cnn"
weights = "random"
method = "random"
compression = [2, 3, 4, 5, 6, 8]
seed = [0]
train_images = 100
[finetune]
epochs = 300
"""


def hear_signals():
    """What starts the tests in the background, as by ``nohup``, has them ignored, and a sweep does so too."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def logs(out):
    return [path.read_text() for path in out.glob("runs/*/log.txt")]


def send(number, out, place, *, alone=False):
    """A sweep that is sent ``number``, with all its processes, while runs train: its exit code and words."""
    mark = f"SHRINKBENCH_TEST_MARK={out}"
    (out.parent / "grid.toml").write_text(GRID)
    words = ["sweep", str(out.parent / "grid.toml"), "--out", str(out), "--device", "cpu", *PLACES[place]]
    head = subprocess.Popen(
        [*COMMAND, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=hear_signals,
        env={**os.environ, **dict([mark.split("=")]), "OMP_NUM_THREADS": "1"},
    )
    try:
        until = time.monotonic() + 120
        while not any("epoch 2:" in log for log in logs(out)):
            assert time.monotonic() < until
            assert head.poll() is None
            time.sleep(0.05)
        (os.kill if alone else os.killpg)(head.pid, number)
        told = head.communicate(timeout=120)[0]
        while left := living(mark):
            assert time.monotonic() < until + 60, left
            time.sleep(0.1)
    finally:
        head.kill()
    return head.returncode, told


@pytest.fixture(params=PLACES)
def place(request):
    if request.param != "local" and importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def test_interrupted_once_a_sweep_ends_what_runs(place, tmp_path):
    code, told = send(signal.SIGINT, tmp_path / "out", place)
    assert code == 130, told
    assert "Traceback" not in told
    assert all(re.search("end: done$", log.strip()) for log in logs(tmp_path / "out"))
    assert not list((tmp_path / "out" / "claims").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_told_to_end_every_run_stops_after_its_epoch(place, number, tmp_path):
    code, told = send(number, tmp_path / "out", place)
    assert code == 128 + number, told
    assert "Traceback" not in told
    begun = logs(tmp_path / "out")
    assert all(re.search("end: (done|interrupted: .*)$", log.strip()) for log in begun)
    assert ResultStore(tmp_path / "out").status().done == sum("end: done" in log for log in begun)
    assert not list((tmp_path / "out" / "claims").iterdir())


def test_no_process_outlives_a_head_that_is_killed(place, tmp_path):
    code, _ = send(signal.SIGKILL, tmp_path / "out", place, alone=True)
    assert code == -signal.SIGKILL


STARTS_ANOTHER = '''
import subprocess
from pathlib import Path
from shrinkbench import pruning_method

@pruning_method("waits")
def waits(ctx):
    """Magnitude, once another program has ended."""
    if not Path(__file__).with_name("free").exists():
        Path(__file__).with_name("waiting").touch()
        subprocess.run(["sleep", "60"], check=True)
    return {name: weight.abs() for name, weight in ctx.weights.items()}
'''


@pytest.mark.parametrize(
    ("command", "number"), [("sweep", signal.SIGTERM), ("run", signal.SIGTERM), ("run", signal.SIGINT)]
)
def test_what_fails_as_programs_of_a_method_end_by_the_same_signal_is_no_result(tmp_path, command, number):
    (tmp_path / "mine.py").write_text(STARTS_ANOTHER)
    grid = GRID.replace('"random"\ncompression = [2, 3, 4, 5, 6, 8]', '"waits"\ncompression = 2')
    (tmp_path / "grid.toml").write_text(grid.replace("300", "1"))
    sweep = [*COMMAND, "sweep", "grid.toml", "--out", "out", "--device", "cpu", "--plugin", "mine.py"]
    words = sweep
    if command == "run":
        planned = subprocess.run(
            [*sweep, "--write-plan"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        words = [*COMMAND, "run", planned.stdout.split()[0], "--store", "out", "--plugin", "mine.py"]
    head = subprocess.Popen(
        words,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_signals,
    )
    until = time.monotonic() + 120
    while not (tmp_path / "waiting").exists():
        assert time.monotonic() < until
        assert head.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(head.pid, number)
    _, told = head.communicate(timeout=60)
    assert head.returncode == 128 + number, told
    assert "Traceback" not in told
    assert ResultStore(tmp_path / "out").status().failed == 0
    (tmp_path / "free").touch()
    assert subprocess.run(sweep, cwd=tmp_path, capture_output=True, check=False).returncode == 0
