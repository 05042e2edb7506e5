"""A plug-in that is edited makes other runs: no result of an older version is taken for the present one."""

import json
import os
import subprocess
import sys

import pytest

AXES = ("score", "structure", "allocation", "schedule", "finetuning", "update")

PLUGIN = """
from torch import nn
import helper
from dataclasses import replace
from shrinkbench import pruning_method
from shrinkbench.datasets import DATASETS
from shrinkbench.models import MODELS
from shrinkbench.pruning import FINETUNINGS, Finetuning
from shrinkbench.pruning.allocations.rules import by_layer, fill
from shrinkbench.pruning.schedules.schedule import SCHEDULES, Schedule
from shrinkbench.pruning.scores.magnitude import magnitude
from shrinkbench.pruning.units import SINGLE_WEIGHTS, STRUCTURES
from shrinkbench.training.recipe import RECIPES

SETTING = 1

@by_layer("my-allocation")
def share(units, budget, ctx):
    "Own."
    limits = {n: (0, u.total) for n, u in units.items()}
    return fill({n: u.total ** SETTING for n, u in units.items()}, limits, budget)

STRUCTURES.add("my-structure", replace(SINGLE_WEIGHTS, name="my-structure", description=str(SETTING)))
SCHEDULES.add("my-schedule", Schedule("my-schedule", "own", lambda target: (1 + SETTING / 9, target)))
FINETUNINGS.add("my-mode", Finetuning("my-mode", "own", epoch=SETTING))
MODELS.add("my-net", replace(MODELS.get("digits-cnn"), name="my-net", build=lambda n: nn.Linear(SETTING, n)))
DATASETS.add("my-data", replace(DATASETS.get("digits"), name="my-data", splits=str(SETTING)))
RECIPES.add("my-recipe", RECIPES.get("digits-train").model_copy(update={"epochs": SETTING}))

@MODELS.add_resolver
def family(name):
    return replace(MODELS.get("digits-cnn"), name=name) if name.startswith("mine/") else None

def renew(ctx, masks):
    return {}

@pruning_method("own_score")
def own(ctx):
    "Own."
    return {n: w.abs() * helper.FACTOR for n, w in ctx.weights.items()}

pruning_method("own_update", update=renew)(magnitude)
pruning_method("own_batches", batch_count=SETTING)(magnitude)
pruning_method("own_unregistered", finetuning=Finetuning("unnamed", "own", epoch=SETTING))(magnitude)
"""

ASK = """
import json, os, sys
from pathlib import Path
from shrinkbench.pruning import METHODS, load_plugin
from shrinkbench.pruning.code import outside_sources
from shrinkbench.datasets import DATASETS
from shrinkbench.libraries import torchvision
from shrinkbench.models import MODELS
from shrinkbench.training.recipe import RECIPES

torchvision()  # every process below would read it


def answer(folder):
    load_plugin(folder / 'plug.py')
    found = {}
    for name in json.loads(sys.argv[1]):
        method = METHODS.get(name)
        spec = method.spec
        own = {"whole": list(spec.sources) or None, "key": spec.model_dump_json()}
        found[name] = {**outside_sources(method), **own}
    for registry, names in (
        (MODELS, ("my-net", "mine/net", "digits-cnn")),
        (DATASETS, ("my-data", "digits")),
        (RECIPES, ("my-recipe", "digits-train")),
    ):
        found |= {name: registry.source(name) for name in names}
    (folder / "answer.json").write_text(json.dumps(found))


for folder in map(Path, sys.argv[2:]):  # each in a process that has loaded no other
    child = os.fork()
    if child == 0:
        answer(folder)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""

METHODS = {
    "own_score": {"score"},
    "own_update": {"score", "update"},
    "own_batches": {"score"},
    "own_unregistered": {"score", "finetuning"},
    "own_score[schedule=iterative-30]": {"score"},
    "own_batches[structure=1:4]": {"score"},
    "global_magnitude": set(),
    "global_magnitude[allocation=my-allocation]": {"allocation"},
    "global_magnitude[structure=my-structure]": {"structure"},
    "global_magnitude[schedule=my-schedule]": {"schedule"},
    "global_magnitude[finetuning=my-mode]": {"finetuning"},
    "random@own_score": {"allocation"},
    "random@global_magnitude[allocation=my-allocation]": {"allocation"},
    "own@global_magnitude": {"score"},
}


def write(folder, plugin=PLUGIN, helper="FACTOR = 1\n"):
    folder.mkdir(parents=True)
    (folder / "plug.py").write_text(plugin, encoding="utf-8")
    (folder / "helper.py").write_text(helper, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What the plug-in says as written, from another folder, edited, and with its helper edited."""
    root = tmp_path_factory.mktemp("plugins")
    folders = (
        write(root / "as_written"),
        write(root / "moved" / "elsewhere"),
        write(root / "edited", PLUGIN.replace("SETTING = 1", "SETTING = 2")),
        write(root / "helper_edited", helper="FACTOR = 2\n"),
    )
    command = [sys.executable, "-c", ASK, json.dumps(list(METHODS)), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads((folder / "answer.json").read_text()) for folder in folders)


def test_a_plug_in_that_is_moved_keeps_every_digest(answers):
    as_written, moved, _, _ = answers
    assert as_written == moved


@pytest.mark.parametrize("name", METHODS)
def test_an_edit_changes_the_axes_that_the_plug_in_brings(answers, name):
    as_written, _, *edits = answers
    axes = {axis for axis in AXES if as_written[name][axis] is not None}
    assert axes == METHODS[name]
    for edited in edits:
        assert {axis for axis in AXES if as_written[name][axis] != edited[name][axis]} == METHODS[name]
        assert (as_written[name]["key"] != edited[name]["key"]) == bool(METHODS[name])
        assert (as_written[name]["whole"] is None) == (not METHODS[name])


@pytest.mark.parametrize("name", ["my-net", "mine/net", "my-data", "my-recipe"])
def test_an_edit_changes_networks_datasets_and_recipes(answers, name):
    as_written, _, *edits = answers
    assert len({as_written[name], *(edited[name] for edited in edits)}) == 3


@pytest.mark.parametrize("name", ["digits-cnn", "digits", "digits-train"])
def test_what_is_built_in_is_as_it_was(answers, name):
    assert {answer[name] for answer in answers} == {None}
