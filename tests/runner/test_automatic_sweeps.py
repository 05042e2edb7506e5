"""Methods that find the architecture themselves, through a whole sweep, on networks for the digits."""

from __future__ import annotations

import pytest
from sampling import sampled
from torch import nn

from shrinkbench.models import MODELS, ModelCard
from shrinkbench.models.cifar_resnet import CifarResNet
from shrinkbench.models.densenet import CifarDenseNet
from shrinkbench.models.preresnet import cifar_preresnet
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.spec import ExperimentSpec, parse_value

MODES = ("scratch-e", "scratch-b")


def on_one_channel(module, name):
    """The network with a stem for grey images."""
    stem = module.get_submodule(name)
    setattr(module, name, nn.Conv2d(1, stem.out_channels, 3, padding=1, bias=False))
    return module


NETWORKS = {
    "tiny-preresnet": lambda n: on_one_channel(cifar_preresnet(11, n, gain=0.5), "stem"),
    "tiny-densenet": lambda n: on_one_channel(CifarDenseNet(2, n, stem=16, bottleneck=False), "conv1"),
    "tiny-resnet": lambda n: on_one_channel(
        CifarResNet(((16,) * 2, (32,) * 2, (64,) * 2), n, shortcut="A"), "conv1"
    ),
}


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    for table in ("_entries", "_spellings"):
        monkeypatch.setattr(MODELS, table, dict(getattr(MODELS, table)))
    for name, build in NETWORKS.items():
        card = ModelCard(
            name=name,
            family="test",
            definition="for this test",
            reference="shrinkbench",
            input_shape=(1, 8, 8),
            num_classes=10,
            parameters=0,
            multiply_adds=0,
            agrees_with="",
            build=build,
        )
        MODELS.add(name, card)


def run(root, model, method, **amount):
    spec = {
        "name": "test",
        "dataset": "digits",
        "model": model,
        "method": [method, *(f"{method}[finetuning={mode}]" for mode in MODES)],
        **amount,
        "train_images": 64,
        "validation_images": 20,
        "test_images": 20,
        "pretrain": {"epochs": 2},
        "finetune": {"epochs": 1},
    }
    status = sweep(parse_value(ExperimentSpec, spec, where="test"), root, device="cpu")
    results, _ = ResultStore(root).results()
    assert (status.done, status.failed) == (len(results), 0), [r.error for r in results]
    return {(r.spec.method.finetuning.name, r.spec.amount.label): r for r in results}


def check_scratch(results, amount, epochs):
    """The same architecture, for the same epochs and for the same computation."""
    found = results["continue", amount]
    equal, longer = (results[mode, amount] for mode in MODES)
    assert found.layers == equal.layers == longer.layers
    assert equal.epochs_run == epochs
    assert longer.epochs_run == int(epochs * longer.size.multiply_adds / longer.size.multiply_adds_kept)
    return found


@pytest.mark.parametrize(
    ("model", "percent"), sampled([("tiny-preresnet", 40), ("tiny-densenet", 60)], every=2)
)
def test_network_slimming_with_channel_selection(model, percent, tmp_path):
    results = run(tmp_path, model, "network_slimming_residual", channels=percent / 100)
    found = check_scratch(results, f"{percent}% of channels", epochs=2)
    assert (found.spec.search.epochs, found.epochs_run) == (2, 1)  # sparse training, then fine-tuning
    module = NETWORKS[model](10)
    norms = [f"{n}.weight" for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)]
    kept = sum(found.layers[n].kept for n in norms)
    total = sum(m.num_features for m in module.modules() if isinstance(m, nn.BatchNorm2d))
    assert kept == total - int(total * percent / 100)


@pytest.mark.slow
def test_sparse_structure_selection_takes_whole_branches(tmp_path):
    results = run(tmp_path, "tiny-resnet", "sparse_structure_selection", compression=1.3)
    found = check_scratch(results, "1.3x", epochs=2)
    assert (found.spec.search, found.epochs_run) == (None, 2)  # no fine-tuning
    assert found.size.compression >= 1.3 - 1e-3
    convolutions = {n: d.kept for n, d in found.layers.items() if "conv" in n and "layer" in n}
    for name, kept in convolutions.items():
        assert (kept == 0) == (convolutions[name.replace("conv1", "conv2")] == 0), name
    assert 0 in convolutions.values()


@pytest.mark.parametrize(
    ("method", "percents"),
    [
        ("soft_filter_pruning", (40,)),
        pytest.param("soft_filter_pruning_pretrained", (10, 40), marks=pytest.mark.slow),
    ],
)
def test_soft_filter_pruning_takes_its_share_of_filters(method, percents, tmp_path):
    results = run(tmp_path, "tiny-resnet", method, fraction_per_layer=[p / 100 for p in percents])
    module = NETWORKS["tiny-resnet"](10)
    filters = {f"{n}.weight": m.out_channels for n, m in module.named_modules() if isinstance(m, nn.Conv2d)}
    projections = {name for name in filters if "downsample" in name}
    for percent in percents:
        found = check_scratch(results, f"{percent}% per layer", epochs=2)
        for name, number in filters.items():
            removed = 0 if name in projections else int(number * percent / 100 + 1e-9)
            assert found.layers[name].outputs == number - removed, name
    assert found.spec.method.start == ("trained" if "pretrained" in method else "initialisation")
