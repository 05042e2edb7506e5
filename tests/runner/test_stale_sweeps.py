"""A sweep whose plug-in was edited runs again, whatever that registers; unedited, there is nothing to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PLUGIN = '''
from dataclasses import replace

from torch import nn

from helper import FACTOR
from shrinkbench.datasets import DATASETS
from shrinkbench.models import MODELS
from shrinkbench.pruning import FINETUNINGS, Finetuning, pruning_method
from shrinkbench.pruning.allocations.rules import by_layer, fill, limits_of
from shrinkbench.pruning.schedules.schedule import SCHEDULES, Schedule
from shrinkbench.pruning.units import STRUCTURES, Grouping, Structure, Units
from shrinkbench.training.recipe import RECIPES

SCORE, UPDATE, STRUCTURE, ALLOCATION, SCHEDULE, MODE, NETWORK, DATA, EPOCHS = 1, 1, 1, 1, 1, 1, 8, 1, 1


@pruning_method("own", update=lambda ctx, masks: {n: w * UPDATE for n, w in ctx.weights.items()})
def own(ctx):
    """Own."""
    return {name: SCORE * FACTOR * w.abs() for name, w in ctx.weights.items()}


@by_layer("own-allocation")
def own_allocation(units, budget, ctx):
    """Own."""
    return fill({name: u.total**ALLOCATION for name, u in units.items()}, limits_of(units), budget)


STRUCTURES.add(
    "own-structure",
    Structure(
        "own-structure",
        "own",
        lambda ctx, scores: Grouping({name: Units(STRUCTURE * scores[name]) for name in ctx.weights}, dict),
    ),
)
SCHEDULES.add("own-schedule", Schedule("own-schedule", "own", lambda target: (target,) * SCHEDULE))
FINETUNINGS.add("own-mode", Finetuning("own-mode", f"own {MODE}"))
MODELS.add(
    "own-net",
    replace(
        MODELS.get("digits-cnn"),
        name="own-net",
        build=lambda classes: nn.Sequential(
            nn.Conv2d(1, NETWORK, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(NETWORK, classes),
        ),
    ),
)
DATASETS.add("own-digits", replace(DATASETS.get("digits"), name="own-digits", description=f"{DATA}"))
changes = {"name": "own-recipe", "epochs": EPOCHS}
RECIPES.add("own-recipe", RECIPES.get("digits-finetune").model_copy(update=changes))
'''
ASK = """
import json, os, sys
from contextlib import suppress
from pathlib import Path
import sklearn.datasets, torch._dynamo  # every process below would read them
from shrinkbench.pruning import load_plugin
from shrinkbench.runner import sweep
from shrinkbench.spec import ExperimentSpec

class Counted(Exception):
    pass


for number, folder in enumerate(sys.argv[1:]):
    child = os.fork()
    if child == 0:
        counts = {}
        load_plugin(Path(folder) / "plug.py")
        for name, changes in json.loads(os.environ["GRIDS"]).items():
            grid = {"name": name, "dataset": "digits", "model": "digits-cnn", "method": "own",
                    "weights": "random", "compression": 2, "train_images": 64, "validation_images": 64,
                    "test_images": 64, "finetune": {"epochs": 0}, **changes}
            if "recipe" in changes:
                del grid["finetune"]


            def count(total, todo, name=name):
                counts[name] = todo
                if number:  # of the others, how many there would be is enough
                    raise Counted

            with suppress(Counted):
                sweep(ExperimentSpec(**grid), Path(os.environ["OUT"]) / name, device="cpu", on_plan=count)
        (Path(folder) / "todo.json").write_text(json.dumps(counts))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
GRIDS = {
    "score": {},
    "structure": {"method": "global_magnitude[structure=own-structure]"},
    "allocation": {"method": "global_magnitude[allocation=own-allocation]"},
    "schedule": {"method": "global_magnitude[schedule=own-schedule]"},
    "finetuning": {"method": "global_magnitude[finetuning=own-mode]"},
    "network": {"method": "global_magnitude", "model": "own-net"},
    "dataset": {"method": "global_magnitude", "dataset": "own-digits"},
    "recipe": {"method": "global_magnitude", "recipe": "own-recipe"},
    "control": {"method": "global_magnitude[finetuning=own-mode]", "compression": 1},
    "built-in": {"method": "global_magnitude"},
}
# Nothing built in is run again; a recipe is a value whole, so that its code has no say beyond it.
EXPECTED = {"built-in": [0, 0, 0], "recipe": [0, 1, 0]}
EDITS = {
    "SCORE, UPDATE, ": "SCORE, UPDATE,  ",  # even a blank: the file is what counts
    "= 1, 1, 1, 1, 1, 1, 8, 1, 1": "= 1, 1, 1, 1, 1, 1, 16, 1, 2",
}


def write(folder, plugin=PLUGIN, helper="FACTOR = 1\n"):
    folder.mkdir()
    (folder / "plug.py").write_text(plugin, encoding="utf-8")
    (folder / "helper.py").write_text(helper, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def todo(tmp_path_factory):
    """Runs to do of each grid: at first, again, after each edit, and after an edit of the imported helper."""
    root = tmp_path_factory.mktemp("stale")
    folders = [write(root / "first"), write(root / "again")]
    folders += [write(root / f"edit{n}", PLUGIN.replace(*edit)) for n, edit in enumerate(EDITS.items())]
    folders.append(write(root / "helper", helper="FACTOR = 2\n"))
    environment = {**os.environ, "OUT": str(root / "out"), "GRIDS": json.dumps(GRIDS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *map(str, folders)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / "todo.json").read_text()) for folder in folders]


@pytest.mark.parametrize("grid", GRIDS)
def test_an_edited_plug_in_runs_again_and_an_unedited_one_does_not(todo, grid):
    first, again, *edited = [counts[grid] for counts in todo]
    assert (first, again) == (1, 0)
    assert edited == EXPECTED.get(grid, [1, 1, 1])
