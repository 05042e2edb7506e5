"""Workers and heads are killed at random, results and networks are damaged, two heads share one folder.

In the end every run has one outcome, none was carried out to its end twice, and the table is the calm run's.
SHRINKBENCH_CHAOS sets the number of runs, which is 12 otherwise.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shrinkbench.results.store import ResultStore

pytestmark = pytest.mark.slow

RUNS = int(os.environ.get("SHRINKBENCH_CHAOS", "12"))
COMMAND = [sys.executable, "-c", "from shrinkbench.cli import main; main()"]
PLUGIN = '''
import ctypes
from shrinkbench import pruning_method

@pruning_method("poison")
def poison(ctx):
    """Reads where nothing is."""
    ctypes.string_at(0)
'''


def write_grid(folder):
    """A poison run, and half of the others of each method."""
    (folder / "poison.py").write_text(PLUGIN)
    seeds = list(range(max(1, RUNS // 6)))
    (folder / "good.toml").write_text(
        'name = "good"\ndataset = "digits"\nmodel = "digits-cnn"\ncompression = [1, 2, 4]\n'
        f'method = ["global_magnitude", "random"]\nseed = {seeds}\ntrain_images = 200\n'
        "[pretrain]\nepochs = 2\n[finetune]\nepochs = 3\n"
    )
    (folder / "poison.toml").write_text(
        'name = "poison"\ndataset = "digits"\nmodel = "digits-cnn"\ncompression = 2\nmethod = "poison"\n'
        'weights = "random"\ntrain_images = 100\n[finetune]\nepochs = 0\n'
    )


def start(folder, experiment, out, *options):
    words = ["sweep", str(folder / f"{experiment}.toml"), "--out", str(out), "--device", "cpu", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        COMMAND + words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )


def children_of(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def table(root):
    """Every result but for when and where it was made; the poison has none worth comparing."""
    results, _ = ResultStore(root).results()
    good = [result for result in results if result.spec.method.name != "poison"]
    return {result.key: result.model_dump(mode="json", exclude={"provenance"}) for result in good}


def ends_of(root):
    logs = {path.parent.name: path.read_text() for path in root.glob("runs/*/log.txt")}
    return {key: len(re.findall(r"^\S+ end: done$", text, re.MULTILINE)) for key, text in logs.items()}


def wreak_havoc(draw, folder, out, *, until):
    """Two heads, of which one is killed and begun again, and workers that are killed; returns how many were."""
    options = ("--workers", "2", "--max-retries", "20")
    heads = [start(folder, "good", out, *options) for _ in range(2)]
    killed = {"workers": 0, "heads": 0}
    while any(head.poll() is None for head in heads) and time.monotonic() < until:
        time.sleep(draw.uniform(2, 5))
        if killed["heads"] + killed["workers"] >= RUNS:
            continue
        position = draw.randrange(2)
        if heads[position].poll() is not None:
            continue
        if draw.random() < 0.25:
            killed["heads"] += kill(heads[position].pid)
            heads[position].wait()
            heads[position] = start(folder, "good", out, *options)
        elif children := children_of(heads[position].pid):
            killed["workers"] += kill(draw.choice(children))
    for head in heads:
        head.kill()
        head.wait()
    return killed


def test_nothing_is_lost_and_nothing_done_twice(tmp_path):
    draw = random.Random(0)
    write_grid(tmp_path)
    calm, out = tmp_path / "calm", tmp_path / "out"
    # As many threads per process as there, on which the order of sums depends.
    assert start(tmp_path, "good", calm, "--workers", "2").wait() == 0

    killed = wreak_havoc(draw, tmp_path, out, until=time.monotonic() + 60 + 15 * RUNS)
    poison = start(tmp_path, "poison", out, "--workers", "1", "--plugin", str(tmp_path / "poison.py"))
    assert poison.wait() == 1
    assert start(tmp_path, "good", out, "--workers", "2").wait() == 1  # the poison has failed
    assert table(out) == table(calm)
    done = ends_of(out)
    poisoned = [r for r in ResultStore(out).results()[0] if r.spec.method.name == "poison"]
    assert [r.error for r in poisoned] == ["worker died by SIGSEGV twice"]
    assert max(done.values()) == 1

    damaged = draw.choice(sorted(table(out)))
    ResultStore(out).result_path(damaged).write_text('{"schema_version": 2, "key"')
    spec = ResultStore(calm).read(damaged).spec
    pretraining = (spec.control if spec.is_control else spec).pretraining
    network = ResultStore(out).shared_dir("pretrained", pretraining.key) / "weights.safetensors"
    network.write_bytes(network.read_bytes()[:-100])
    assert start(tmp_path, "good", out, "--workers", "2").wait() == 1
    assert table(out) == table(calm)
    status = ResultStore(out).status()
    assert (status.done, status.failed, status.missing) == (len(table(calm)), 1, 0)
    assert not list(out.glob("claims/*"))
    assert list(network.parent.glob(f"{network.name}.damaged-*"))
    print(f"\n{len(table(calm))} runs, {killed['workers']} workers and {killed['heads']} heads killed")
