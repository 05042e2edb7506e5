"""Every shipped experiment of a paper against the settings that the paper prints, typed by hand."""

from __future__ import annotations

import functools
import tomllib
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from places import ROOT
from torch import nn

from shrinkbench.cli.listing import entries
from shrinkbench.datasets import DATASETS, Dataset, cifar, imagenet
from shrinkbench.models import build, get_model, known_weights
from shrinkbench.pruning.allocations.by_pattern import Pattern, ShapePoint
from shrinkbench.report.conditions import part_of_recipe
from shrinkbench.runner.forecast import epochs_of_task, graph_of
from shrinkbench.spec import (
    IMAGENET_NORMALISATION,
    UNPRUNED,
    ChannelFraction,
    Compression,
    FractionPerLayer,
    read_experiments,
)
from shrinkbench.training import RECIPES

planning = import_module("shrinkbench.runner.planning")  # the package exports the function of the same name
PUBLISHED = tomllib.loads((ROOT / "tests" / "published_settings.toml").read_text())
COLUMNS = ("part", "network", "dataset", "training", "finetuning", "seeds", "unit", "amounts")
ROWS = [
    dict(zip(COLUMNS, [f"{prefix}{row[0]}", *row[1:]], strict=True))
    for study, prefix in (("blalock", ""), ("rethinking", "rethinking-"))
    for row in PUBLISHED["experiments"][study]
]
DIFFERENCES = PUBLISHED["differences"]
HELD_OUT = {"cifar10": cifar.HOLD_OUT, "cifar100": cifar.HOLD_OUT, "imagenet": imagenet.HOLD_OUT}
OWN = {"quickstart", "language-small", "cifar10-resnet20-matrix", "cifar10-resnet20-matrix-small"}
"""Experiments that no paper has."""
PARTS = {
    part.name: part
    for path in sorted((ROOT / "experiments").glob("*.toml"))
    if not path.stem.endswith("-small")
    for part in read_experiments(path)
    if part.reference in ("blalock2020state", "liu2019rethinking") and part.name not in OWN
}


class AllData:
    """A workspace that has every dataset, as far as planning looks at it."""

    def dataset(self, name):
        images = range(10**6)
        return Dataset(
            card=DATASETS.get(name), train=images, validation=images, test=images, revision="r", class_names=()
        )


@pytest.fixture(scope="module")
def runs_of(tmp_path_factory):
    """The planned runs of a part, without any weights file or pattern at hand."""
    folder = tmp_path_factory.mktemp("patterns")
    point = ShapePoint(compression=2, networks=1, stages=((0.5,) * 9,))
    Pattern(kind="kernels", source="made", points=(point,)).save(folder / "rethinking-figure-4.json")

    def locate(source, *, card):
        (entry,) = [entry for entry in known_weights(card) if entry.name == source]
        return SimpleNamespace(
            name=entry.name, sha256="0" * 64, normalisation=IMAGENET_NORMALISATION, path=Path(source)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "locate_weights", locate)
        patch.chdir(folder)
        yield functools.cache(lambda name: planning.plan(PARTS[name], AllData()).runs)


def recipes_of(runs):
    """Every training that the runs ask for: ``training`` or ``finetuning``, its recipe and its data."""
    found = {}
    for run in runs:
        trains_first = run.method.start == "initialisation"
        if run.pretraining is not None:
            found["training", run.pretraining.recipe, run.data] = None
        if run.search is not None:
            found["training" if trains_first else "finetuning", run.search, run.data] = None
        part = part_of_recipe(run.method)
        if part != "none":
            found["training" if part == "pretraining" else "finetuning", run.recipe, run.data] = None
    return list(found)


def ours(field, recipe, data):
    """What a recipe, or what it is applied to, has for a field of the published settings."""
    if field == "early_stopping":
        return recipe.early_stopping is not None
    if field == "held_out":
        return HELD_OUT[data.name]
    if field == "std":
        return list(data.normalisation.std)
    value = getattr(recipe, field)
    return list(value) if isinstance(value, tuple) else value


def excused(field, setting, dataset, published, value):
    """The listed difference of just this field, setting, dataset and pair of values."""
    for number, difference in enumerate(DIFFERENCES):
        if (
            difference.get("field") == field
            and (difference["settings"] == ["*"] or setting in difference["settings"])
            and dataset in difference.get("datasets", [dataset])
            and (difference["published"], difference["ours"]) == (published, value)
        ):
            return number
    return None


def departures(setting, recipe, data):
    """Where a recipe leaves a published setting: field, published, ours, number of the listed difference."""
    for field, published in PUBLISHED["settings"][setting].items():
        value = ours(field, recipe, data)
        close = field == "std" and published == pytest.approx(value, abs=6e-4)
        if value != published and not close:
            yield field, published, value, excused(field, setting, data.name, published, value)


def closest(settings, recipe):
    """Of several fine-tunings of one part the one of as many epochs."""
    names = [settings] if isinstance(settings, str) else settings
    same = [name for name in names if PUBLISHED["settings"][name].get("epochs") == recipe.epochs]
    return (same or names)[0]


@functools.cache
def weights_of(name, classes):
    """Parameters of a network, and how many of them are weights of convolutions."""
    module = build(name, num_classes=classes)
    convolutions = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))
    return sum(p.numel() for p in module.parameters()), convolutions


def amount_of(run, unit):
    """How much a run prunes, in the paper's unit."""
    classes = DATASETS.get(run.data.name).num_classes
    if unit == "networks":
        return run.method.base.partition(":")[2].replace("-", "").lower()
    if unit == "% of channels":
        assert isinstance(run.amount, ChannelFraction)
        return 100 * run.amount.fraction
    if unit == "% of filters in each layer":
        assert isinstance(run.amount, FractionPerLayer)
        return 100 * run.amount.fraction
    assert isinstance(run.amount, Compression)
    if unit == "ratio":
        return run.amount.ratio
    parameters, convolutions = weights_of(run.model.name, classes)
    if unit == "parameters":
        return parameters / run.amount.ratio
    return 100 * (1 - 1 / run.amount.ratio) * parameters / convolutions


TOLERANCE = {"ratio": {"rel": 1e-9}, "parameters": {"rel": 1e-3}}


def test_every_part_of_every_experiment_is_in_the_table_once():
    assert sorted(row["part"] for row in ROWS) == sorted(PARTS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["part"])
def test_settings_are_those_of_the_paper(row, runs_of):
    runs = runs_of(row["part"])
    networks = row["network"] if isinstance(row["network"], list) else [row["network"]]
    assert {run.model.name for run in runs} == set(networks)
    assert {run.data.name for run in runs} == {row["dataset"]}
    assert len({run.seed for run in runs}) == row["seeds"]
    assert not any(run.prune_classifier or run.prune_biases for run in runs)
    trained = recipes_of(runs)
    unlisted = [
        (role, recipe.name, field, published, value)
        for role, recipe, data in trained
        for field, published, value, excuse in departures(closest(row[role], recipe), recipe, data)
        if excuse is None
    ]
    assert unlisted == []
    told = [row["finetuning"]] if isinstance(row["finetuning"], str) else row["finetuning"]
    tuned = [recipe for role, recipe, _ in trained if role == "finetuning"]
    assert len({recipe.epochs for recipe in tuned}) == len([name for name in told if name != "none"])


@pytest.mark.parametrize("row", [row for row in ROWS if row["unit"] != "drawn"], ids=lambda row: row["part"])
def test_amounts_are_those_of_the_paper(row, runs_of):
    found = {amount_of(run, row["unit"]) for run in runs_of(row["part"]) if run.amount != UNPRUNED}
    if row["unit"] == "networks":
        assert found == {name.replace("-", "").rstrip("%").lower() for name in row["amounts"]}
        return
    # A round removes whole weights, and the table's percentages have three digits.
    assert sorted(found) == pytest.approx(sorted(row["amounts"]), **TOLERANCE.get(row["unit"], {"abs": 0.06}))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["part"])
def test_methods_are_those_of_the_paper(row, runs_of):
    """Methods of Blalock et al.; of Liu et al. the ways to train, each of which has all amounts of a table."""
    published = next(ways for start, ways in PUBLISHED["methods"].items() if row["part"].startswith(start))
    found = {}
    for run in runs_of(row["part"]):
        way = run.method.finetuning.name if row["part"].startswith("rethinking") else run.method.name
        if run.amount != UNPRUNED:
            found.setdefault(way, set()).add((run.amount, run.seed))
    assert set(found) == set(published)
    assert all(runs == found[published[0]] for runs in found.values())


def test_penalties_are_those_of_the_paper(runs_of):
    found = {
        (run.method.base, run.method.schedule.parameters["penalty"])
        for row in ROWS
        for run in runs_of(row["part"])
        if run.method.base in PUBLISHED["penalties"] and "penalty" in run.method.schedule.parameters
    }
    assert found == set(PUBLISHED["penalties"].items())


@pytest.mark.parametrize("name", PUBLISHED["recipes"])
def test_recipes_that_no_experiment_names_are_those_of_the_paper(name):
    recipe = RECIPES.get(name)
    for field, published in PUBLISHED["recipes"][name].items():
        value = ours(field, recipe, None)
        assert value == published or excused(field, name, "voc2007", published, value) is not None, field


def test_every_listed_difference_is_one(runs_of):
    used = {
        excuse
        for row in ROWS
        for role, recipe, data in recipes_of(runs_of(row["part"]))
        for *_, excuse in departures(closest(row[role], recipe), recipe, data)
    }
    for name, fields in PUBLISHED["recipes"].items():
        for field, published in fields.items():
            used.add(excused(field, name, "voc2007", published, ours(field, RECIPES.get(name), None)))
    assert used >= {number for number, difference in enumerate(DIFFERENCES) if "field" in difference}


def test_every_difference_is_a_row_of_the_page():
    page = (ROOT / "docs" / "reproduction.md").read_text()
    rows = [f"| {d['what']} | {d['paper']} | {d['here']} | {d['why']} |" for d in DIFFERENCES]
    assert [row for row in rows if row not in page] == []
    table = page.split("## What differs, and why")[1]
    assert sum(line.startswith("| ") for line in table.splitlines()) == len(rows) + 1  # its head


def test_the_page_names_every_experiment():
    page = (ROOT / "docs" / "reproduction.md").read_text()
    stems = {path.stem for path in (ROOT / "experiments").glob("*.toml")}
    named = {stem for stem in stems if f"`{stem}`" in page or f"`{stem.removesuffix('-small')}`" in page}
    assert stems - named <= OWN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.02),
        ("epochs", 41),
        ("batch_size", 128),
        ("weight_decay", 5e-4),
        ("optimizer", "adam"),
    ],
)
def test_a_wrong_value_is_found(field, value, runs_of):
    run = next(run for run in runs_of("rethinking-table-1-vgg16") if not run.method.from_scratch)
    wrong = run.recipe.model_copy(update={field: value})
    found = [name for name, _, _, excuse in departures("tune-40", wrong, run.data) if excuse is None]
    assert found == [field]


def test_every_network_of_the_table_is_known():
    for row in ROWS:
        for name in row["network"] if isinstance(row["network"], list) else [row["network"]]:
            assert get_model(name).name == name


def cost_of(path, runs_of):
    """Runs and epochs of an experiment, networks to begin with and controls included."""
    runs = [run for part in read_experiments(path) for run in runs_of(part.name)]
    tasks = graph_of(runs, lambda task: False, {})
    images = {"cifar10": 45_000, "cifar100": 45_000, "imagenet": 1_268_356}
    seen = sum(epochs_of_task(task) * images[task.spec.data.name] for task in tasks)
    return f"| `{path.stem}` | {len(runs):,} | {sum(map(epochs_of_task, tasks)):,} | {seen / 1e6:,.0f} |"


def test_the_page_tells_what_every_experiment_costs(runs_of):
    page = (ROOT / "docs" / "reproduction.md").read_text()
    paths = sorted(
        path
        for path in (ROOT / "experiments").glob("*.toml")
        if path.stem not in OWN and not path.stem.endswith("-small")
    )
    rows = [cost_of(path, runs_of) for path in paths]
    assert [row for row in rows if row not in page] == []


def test_the_list_counts_the_runs_that_are_planned(runs_of):
    found = {row["name"]: row["runs"] for row in entries("experiments")}
    for path in (ROOT / "experiments").glob("*.toml"):
        parts = [part.name for part in read_experiments(path)]
        if set(parts) <= set(PARTS):
            assert found[path.stem] == sum(len(runs_of(part)) for part in parts), path.stem
