"""Workers and heads are killed at random, a result and a network are damaged, two heads share one folder.

In the end every run has one outcome, none was carried out to its end twice, the table is the calm run's, and
the store verifies. SHRINKBENCH_CHAOS sets the number of runs.
"""

import importlib.util
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from shrinkbench.results.store import ResultStore

pytestmark = pytest.mark.slow

RUNS = int(os.environ.get("SHRINKBENCH_CHAOS", "200"))
SEEDS = 5
KILLS, HEADS = 24, 3  # of workers and of heads, spread over the results
PATIENCE = 3600.0
COMMAND = [sys.executable, "-c", "from shrinkbench.cli import main; main()"]
PLACES = {
    "local": ("--workers", "2"),
    "ray": ("--executor", "ray"),
    # A job is a process, which takes longer to begin than to carry out several runs.
    "submitit": ("--executor", "submitit", "--cluster", "local", "--runs-per-job", "16"),
}
PARTS = '''
import ctypes
import torch
from torch import nn
from shrinkbench import pruning_method

def make_data():
    """Bright and dark squares."""
    labels = torch.arange(60) % 2
    images = torch.rand(60, 1, 8, 8) * 0.5 + labels.reshape(-1, 1, 1, 1) * 0.5
    return (images[:20], labels[:20]), (images[20:40], labels[20:40]), (images[40:], labels[40:])

def make_network(num_classes=2):
    """Two convolutions."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, num_classes),
    )

@pruning_method("poison")
def poison(ctx):
    """Reads where nothing is."""
    ctypes.string_at(0)
'''


def write_grid(folder):
    """A control and two methods for each seed, and one run that ends its process."""
    parts = folder / "parts.py"
    parts.write_text(PARTS)
    amounts = [1 + 0.1 * step for step in range(1 + math.ceil((RUNS / SEEDS - 1) / 2))]
    (folder / "grid.toml").write_text(
        f'name = "chaos"\ndataset = "{parts}:make_data"\nmodel = "{parts}:make_network"\nplugin = "{parts}"\n'
        f"[pretrain]\nepochs = 1\n[finetune]\nepochs = 1\n"
        f'[[part]]\nname = "good"\nmethod = ["global_magnitude", "random"]\nseed = {list(range(SEEDS))}\n'
        f"compression = {amounts}\n"
        '[[part]]\nname = "bad"\nmethod = "poison"\nseed = [0]\ncompression = [2]\n'
    )


class Head:
    """A sweep in a process of its own, which is begun again when it was killed."""

    def __init__(self, folder, out, place):
        words = ["sweep", str(folder / "grid.toml"), "--out", str(out), "--device", "cpu"]
        self._words = [*COMMAND, *words, *PLACES[place], "--max-retries", "3"]
        self._log = out.with_name(f"{out.name}-heads.txt")
        self.begin()

    def begin(self):
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._words,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"},
            )

    def lives(self):
        return self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()


def kill_a_worker(draw, out):
    """SIGKILL for a process that works now, as its claim says; whether there was one."""
    pids = set()
    for path in out.glob("claims/*.json"):
        try:
            pids.add(json.loads(path.read_bytes())["pid"])
        except (OSError, ValueError):
            continue
    for pid in draw.sample(sorted(pids), len(pids)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        return True
    return False


def table(root):
    """Every result but for when and where it was made; the poison has none worth comparing."""
    results, problems = ResultStore(root).results()
    assert not problems
    good = [result for result in results if result.spec.method.name != "poison"]
    return {result.key: result.model_dump(mode="json", exclude={"provenance"}) for result in good}


def ends_of(root):
    logs = {path.parent.name: path.read_text() for path in root.glob("runs/*/log.txt")}
    return {key: len(re.findall(r"^\S+ end: done$", text, re.MULTILINE)) for key, text in logs.items()}


def damage(draw, out):
    """Cut a result and a pretrained network short; returns the key of the result."""
    done = [path for path in sorted(out.glob("runs/*/result.json")) if '"done"' in path.read_text()]
    result = draw.choice(done)
    result.write_bytes(result.read_bytes()[:500])
    network = draw.choice(sorted(out.glob("shared/pretrained/*/weights.safetensors")))
    network.write_bytes(network.read_bytes()[:-100])
    return result.parent.name


def wreak_havoc(draw, folder, out, place):
    """Two heads under attack until both have ended: kills of workers and heads, and the damaged result."""
    heads = [Head(folder, out, place) for _ in range(2)]
    workers_at = [RUNS * (step + 0.5) / (KILLS + 2) for step in range(KILLS)]
    heads_at = [RUNS * (step + 1) / (HEADS + 1) for step in range(HEADS)]
    killed, damaged = {"workers": 0, "heads": 0}, None
    end = time.monotonic() + PATIENCE
    try:
        while any(head.lives() for head in heads):
            assert time.monotonic() < end, "nothing moves"
            time.sleep(draw.uniform(0.05, 0.3))
            count = len(list(out.glob("runs/*/result.json")))
            if killed["workers"] < KILLS and count >= workers_at[killed["workers"]]:
                killed["workers"] += kill_a_worker(draw, out)
            living = [head for head in heads if head.lives()]
            if living and killed["heads"] < HEADS and count >= heads_at[killed["heads"]]:
                head = draw.choice(living)
                head.kill()
                head.begin()
                killed["heads"] += 1
            if damaged is None and count >= RUNS / 2:
                damaged = damage(draw, out)
    finally:
        for head in heads:
            head.kill()
    return killed, damaged


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The table of the grid with nothing in its way."""
    folder = tmp_path_factory.mktemp("calm")
    write_grid(folder)
    # As many threads per process as there, on which the order of sums depends.
    assert Head(folder, folder / "out", "local").process.wait() == 1
    return table(folder / "out")


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_lost_and_nothing_done_twice(calm, tmp_path, place):
    if place != "local" and importlib.util.find_spec(place) is None:
        pytest.skip(f"{place} is not installed")
    out = tmp_path / "out"
    write_grid(tmp_path)
    begun = time.monotonic()
    killed, damaged = wreak_havoc(random.Random(place), tmp_path, out, place)
    seconds = time.monotonic() - begun
    assert Head(tmp_path, out, "local").process.wait() == 1  # the poison has failed
    told = (tmp_path / "out-heads.txt").read_text()
    differing = [key for key, row in table(out).items() if calm.get(key) != row]
    print(
        f"\n{place}: {len(calm) + 1} runs, {killed['workers']} workers and {killed['heads']} heads killed, "
        f"{seconds:.0f} s, {len(table(out))} outcomes, {len(differing)} differ"
    )
    assert not differing, told[-3000:]
    assert table(out).keys() == calm.keys()
    assert (killed["workers"] >= 20 and killed["heads"] >= 2) or RUNS < 200
    (poisoned,) = [r for r in ResultStore(out).results()[0] if r.spec.method.name == "poison"]
    assert re.match(r"worker died (by SIGSEGV|under Ray|in job)", poisoned.error)
    ends = ends_of(out)
    assert max(count for key, count in ends.items() if key != damaged) == 1
    assert ends[damaged] <= 2
    status = ResultStore(out).status()
    assert (status.done, status.failed, status.missing) == (len(calm), 1, 0)
    verified = subprocess.run([*COMMAND, "store", "verify", str(out)], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout
    assert len(list(out.glob("shared/pretrained/*/weights.safetensors.damaged-*"))) == 1
    assert not list(out.glob("claims/*"))
    assert not list(out.glob("runs/*/.*.tmp"))
