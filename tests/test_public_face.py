"""What ``import shrinkbench`` offers, and that names of functions and modules do not hide each other."""

import importlib
import json
import pkgutil
import re
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import torch
from places import ROOT

import shrinkbench
from shrinkbench._moved import MOVED

TAUGHT = {  # what the pages of version 0.1.0 imported, by the module they imported it from
    "pruning.allocation": ("layerwise",),
    "pruning.finetuning": ("rewind_weights",),
    "pruning.scheduling": ("iterative", "Schedule", "SCHEDULES"),
    "pruning.structure": ("filters", "STRUCTURES"),
    "pruning.structured.patterns": ("layer_widths", "stage_pattern"),
    "pruning.structured.guided": ("allocation_of", "Pattern"),
    "pruning.surgery": ("shrink",),
    "report.compare": ("at_equal", "pairwise", "winners"),
    "report.html": ("write_report",),
    "report.observations": ("observe", "Observations"),
    "report.ranks": ("rank_methods",),
    "report.stats": ("summarise",),
    "budget": ("scratch_b", "training_cost"),
    "measures": ("Quality", "Size"),
    "probe": ("trace", "classifier_of"),
}

IMPORTED = """
shrinkbench: Masks, pruning_method, prune, Upholder, measure_size
shrinkbench.datasets: DATASETS, DatasetCard, load_extra, InMemoryImages, load_dataset
shrinkbench.detection: build_detector, mean_average_precision, prune_detector, read_voc, train_detector
shrinkbench.detection: CLASSES, VOC_RECIPE, DetectionImages, Detector
shrinkbench.errors: ShrinkbenchError
shrinkbench.literature: load_corpus
shrinkbench.literature.overlay: overlay, read_own
shrinkbench.literature.overlay_figure: draw_overlay
shrinkbench.metrics: count_multiply_adds, measure_size
shrinkbench.metrics.latency: Conditions, time_forward
shrinkbench.models: MODELS, ModelCard, build, get_model, load_weights
shrinkbench.probe: weight_parameters
shrinkbench.pruning: METHODS, Masks, Upholder, prune
shrinkbench.pruning.allocation: layerwise
shrinkbench.pruning.coupling: Coupling, couple
shrinkbench.pruning.finetuning: rewind_weights
shrinkbench.pruning.scheduling: iterative
shrinkbench.pruning.selection: keep_highest
shrinkbench.pruning.structure: filters
shrinkbench.pruning.structured.guided: allocation_of
shrinkbench.pruning.structured.patterns: layer_widths, stage_pattern
shrinkbench.pruning.surgery: shrink
shrinkbench.report.compare: at_equal, pairwise, winners
shrinkbench.report.gaps: plan_repair
shrinkbench.report.html: write_report
shrinkbench.report.observations: observe
shrinkbench.results.store: existing_store
shrinkbench.spec: IMAGENET_NORMALISATION, Recipe
shrinkbench.training: RECIPES, train
""".strip().splitlines()  # by the pages of version 0.1.0, and what these go on with


def python(code):
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)


def test_every_public_name_is_there_and_is_listed():
    for name in shrinkbench.__all__:
        assert getattr(shrinkbench, name) is not None, name
    assert dir(shrinkbench) == sorted(shrinkbench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        _ = shrinkbench.prun


def test_the_version_is_the_installed_one():
    assert shrinkbench.__version__ == version("shrinkbench")


def test_one_version_is_stated():
    stated = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[1]
    assert f"\nversion: {stated}\n" in (ROOT / "CITATION.cff").read_text()


def test_importing_the_package_imports_nothing_heavy():
    found = python(
        "import sys, shrinkbench\ndir(shrinkbench)\n"
        "print({'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules) or 'light')"
    )
    assert found.stdout.strip() == "light", found


FULL = {  # the registry that is touched first -> what is then found
    "STRUCTURES": {
        "STRUCTURES": ("weights", "filters", "channels", "heads", "branches"),
        "ALLOCATIONS": ("global", "layerwise", "lamp"),
        "SCHEDULES": ("one-shot", "gradual-cubic", "rigged-lottery"),
        "FINETUNINGS": ("continue", "scratch-b"),
        "METHODS": ("global_magnitude", "thinet", "network_slimming:70", "li2017:vgg16-a", "random@wanda"),
    },
    "MODELS": {"MODELS": ("resnet20", "resnet56-a", "torchvision/resnet18")},
    "DATASETS": {"DATASETS": ("digits", "cifar10", "imagenet")},
    "RECIPES": {"RECIPES": ("cifar-finetune", "digits-train")},
}


TOUCH = """
import json, os, sys
import torch, torchvision  # read once for all; shrinkbench is read in each child anew

for first, expected in json.loads(sys.argv[1]).items():
    child = os.fork()
    if child == 0:
        import shrinkbench
        getattr(shrinkbench, first)
        for where, names in expected.items():
            for name in names:
                getattr(shrinkbench, where).get(name)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, first
"""


@pytest.mark.slow
def test_a_registry_that_is_touched_first_is_full():
    command = [sys.executable, "-c", TOUCH, json.dumps(FULL)]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_a_network_is_built_by_its_public_name():
    from shrinkbench import models

    assert shrinkbench.build_model is models.build
    assert shrinkbench.build_model("digits-cnn", num_classes=3, seed=1)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def packages():
    yield shrinkbench
    for found in pkgutil.walk_packages(shrinkbench.__path__, "shrinkbench."):
        if found.ispkg:
            yield importlib.import_module(found.name)


@pytest.mark.parametrize("package", packages(), ids=lambda package: package.__name__)
def test_no_function_hides_a_module(package):
    inside = {found.name for found in pkgutil.iter_modules(package.__path__)}
    hidden = {name for name in inside if not isinstance(vars(package).get(name, package), ModuleType)}
    offered = inside.intersection(getattr(package, "__all__", ()))
    assert not hidden | offered


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_warns_and_gives_what_the_new_one_holds(old):
    for path in [path for path in sys.modules if path == f"shrinkbench.{old}"]:
        del sys.modules[path]
    with pytest.warns(DeprecationWarning, match=rf"^shrinkbench\.{old} has moved to shrinkbench\.") as caught:
        module = importlib.import_module(f"shrinkbench.{old}")
    assert all(new in str(caught[-1].message) for new in MOVED[old])
    for new in MOVED[old]:
        held = vars(importlib.import_module(f"shrinkbench.{new}"))
        own = {n: v for n, v in held.items() if getattr(v, "__module__", "") == f"shrinkbench.{new}"}
        assert all(getattr(module, name) is value for name, value in own.items())


@pytest.mark.parametrize("old", TAUGHT)
def test_what_the_pages_of_the_last_version_taught_still_runs(old):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = importlib.import_module(f"shrinkbench.{old}")
    homes = [importlib.import_module(f"shrinkbench.{new}") for new in MOVED[old]]
    for name in TAUGHT[old]:
        assert any(getattr(module, name) is vars(home).get(name) for home in homes)


@pytest.mark.parametrize("line", IMPORTED)
def test_every_import_of_the_last_version_still_works(line):
    module, _, names = line.partition(": ")
    for loaded in [loaded for loaded in sys.modules if loaded == module and module.partition(".")[2] in MOVED]:
        del sys.modules[loaded]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        exec(f"from {module} import {names}", found := {})
    assert not [name for name in names.split(", ") if name not in found]
    warned = [warning for warning in told if issubclass(warning.category, DeprecationWarning)]
    assert bool(warned) == (module.partition(".")[2] in MOVED)


def test_old_paths_are_not_in_the_way():
    for old in MOVED:
        parent, _, name = f"shrinkbench.{old}".rpartition(".")
        if parent.removeprefix("shrinkbench.") in MOVED:
            continue
        package = importlib.import_module(parent)
        assert name not in {found.name for found in pkgutil.iter_modules(package.__path__)}
        assert getattr(vars(package).get(name), "__name__", f"{parent}.{name}") == f"{parent}.{name}"
    for unknown in ("shrinkbench.pruning.allocatoin", "shrinkbench.pruning.structured.none", "shrinkbench.x"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(unknown)
    with pytest.raises(ImportError, match="cannot import name 'no_such'"):
        exec("from shrinkbench.pruning.allocation import no_such")


def test_the_warning_points_at_the_import():
    found = python("import shrinkbench.measures")
    assert "DeprecationWarning: shrinkbench.measures has moved to shrinkbench.spec.measures" in found.stderr
    assert "<string>:1" in found.stderr
    assert python("import sys, shrinkbench.measures\nassert 'torch' not in sys.modules").returncode == 0


def test_no_module_has_more_than_400_lines():
    package = Path(shrinkbench.__file__).parent
    lengths = {path.relative_to(package): len(path.read_text().splitlines()) for path in package.rglob("*.py")}
    assert len(lengths) > 400
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}
