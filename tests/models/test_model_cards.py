"""Every registered network is what its card says, counted by two independent counters."""

from __future__ import annotations

import re

import pytest
import torch
from places import ROOT
from sampling import sampled
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from shrinkbench.cli.listing import describe_model, entries
from shrinkbench.cli.tables import print_description
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import MODELS, ModelCard, build, get_model
from shrinkbench.network.probe import classifier_weights, trace

BATCH_NORM = nn.BatchNorm1d | nn.BatchNorm2d


@pytest.mark.parametrize("names", ["VGG-16", ["VGG-16"], ("",), ("A; B",), (16,)])
def test_names_in_papers_are_a_tuple_of_names(names):
    with pytest.raises(ShrinkbenchError, match="published_as of the network 'x' is"):
        ModelCard(name="x", build=lambda classes: nn.Linear(1, classes), published_as=names)


def test_names_in_papers_are_told(capsys):
    assert describe_model("vgg16-gap", None)["published_as"] == ["VGG-GAP", "VGG-16"]
    rows = {row["name"]: row["published_as"] for row in entries("models")}
    assert (rows["sss-resnet-50"], rows["digits-cnn"]) == (["ResNet-50"], [])
    print_description(describe_model("lenet5", None))
    assert "in papers" in capsys.readouterr().out


def on_meta(name: str, num_classes: int | None = None) -> nn.Module:
    card = get_model(name)
    with torch.device("meta"):
        return card.build(num_classes or card.num_classes)


def parameters_of(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def torch_multiply_adds(module: nn.Module, shape: tuple[int, ...], *, dtype: torch.dtype | None = None) -> int:
    """PyTorch's own counter, halved."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module.eval()(torch.empty(1, *shape, device="meta", dtype=dtype))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    "name",
    sampled(
        [pytest.param(n, marks=pytest.mark.slow) if n == "resnet1202" else n for n in MODELS.names()], every=4
    ),
)
def test_figures_of_the_card_are_exact(name):
    card = get_model(name)
    module = on_meta(name)
    assert parameters_of(module) == card.parameters
    dtype = torch.int64 if card.takes == "tokens" else None
    assert torch_multiply_adds(module, card.input_shape, dtype=dtype) == card.multiply_adds


@pytest.mark.parametrize(
    "name",
    [
        *("digits-cnn", "lenet5-caffe", "alexnet-2012", "cifar-vgg", "cifar-vgg16", "resnet56", "preresnet56"),
        *(
            "resnet20-projection",
            pytest.param("densenet-bc-100", marks=pytest.mark.slow),
            "wrn-28-10",
            "resnet50-v1",
            "vit-cifar",
            "sss-resnet-26",
        ),
        *("resnet-50-2x", "thinet-vgg-gap", "vgg11-slimming"),
    ],
)
def test_probe_counts_the_same_and_finds_the_classifier(name):
    card = get_model(name)
    module = on_meta(name)
    traced = trace(module, card.input_shape)
    assert traced.multiply_adds == card.multiply_adds
    assert traced.output_shape == (1, card.num_classes)
    assert len([n for n in classifier_weights(module, card.input_shape) if n.endswith("weight")]) == 1


# Counts published or counted by hand elsewhere; none was taken from this library.
@pytest.mark.parametrize(
    ("name", "num_classes", "parameters"),
    [
        ("cifar-vgg", 100, 15_038_116),
        ("cifar-vgg16", 100, 14_770_212),
        ("cifar-vgg19", 100, 20_081_188),
        ("cifar-vgg16-bias", 100, 14_774_436),
        ("cifar-vgg16-l1", 100, 15_033_892),
        ("preresnet56", 100, 613_556),
        ("preresnet110", 100, 1_169_972),
        ("preresnet164", 100, 1_726_388),
        ("densenet40", 100, 1_100_428),
        ("densenet40-paper", 100, 1_060_132),
        ("densenet-bc-100", 100, 800_032),
        ("densenet-c-100", 100, 4_129_600),
    ],
)
def test_parameters_at_100_classes(name, num_classes, parameters):
    assert parameters_of(on_meta(name, num_classes)) == parameters


def test_hand_counts():
    lenet5 = (25 * 1 + 1) * 6 + (25 * 6 + 1) * 16 + 401 * 120 + 121 * 84 + 85 * 10
    assert get_model("lenet5").parameters == lenet5
    convolutions, norms = 9 * (32 + 32 * 32 + 32 * 64 + 64 * 64), 2 * (32 + 32 + 64 + 64)
    assert get_model("digits-cnn").parameters == convolutions + norms + 65 * 10
    products = 64 * 9 * (32 + 32 * 32) + 16 * 9 * (32 * 64 + 64 * 64) + 64 * 10
    assert get_model("digits-cnn").multiply_adds == products
    width, hidden, tokens = 192, 768, 65
    block = (
        4 * width + 3 * width * (width + 1) + width * (width + 1) + hidden * (width + 1) + width * (hidden + 1)
    )
    vit = 48 * width + width + width + tokens * width + 6 * block + 2 * width + 10 * (width + 1)
    assert get_model("vit-cifar").parameters == vit
    products = tokens * (4 * width * width + 2 * width * hidden) + 2 * tokens * tokens * width
    assert get_model("vit-cifar").multiply_adds == 64 * 48 * width + 6 * products + 10 * width


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("cifar-vgg", 4_736),
        ("cifar-vgg16", 4_224),
        ("cifar-vgg19", 5_504),
        ("preresnet56", 4_048),
        ("preresnet110", 8_080),
        ("preresnet164", 12_112),
        ("densenet40", 9_360),
        ("densenet40-paper", 9_048),
        ("densenet-bc-100", 11_994),
        ("densenet-c-100", 36_234),
        ("vgg11-slimming", 10_944),
    ],
)
def test_population_of_batch_norm_channels(name, channels):
    norms = [m for m in on_meta(name).modules() if isinstance(m, BATCH_NORM)]
    assert sum(m.num_features for m in norms) == channels


@pytest.mark.parametrize("name", MODELS.names())
def test_card_is_full(name):
    card = get_model(name)
    assert card.name == name
    assert len(card.definition) > 40
    assert card.agrees_with
    assert card.family
    assert card.num_classes >= 2
    assert card.weights or card.weights_note
    for entry in card.weights:
        assert entry.licence
        assert entry.source.startswith("https://")
        assert entry.url is not None
        if entry.sha256 is None:  # what Git knows the file by is as good, and no accuracy need be published
            assert re.fullmatch(r"[0-9a-f]{40}", entry.git_blob)
            assert "not published" in entry.note
        else:
            assert re.fullmatch(r"[0-9a-f]{8,64}", entry.sha256)
            assert 0 < entry.published_top1 < 1
        assert len(entry.normalisation.mean) == len(entry.normalisation.std) == card.input_shape[0]
    if card.pruned_from is not None:
        assert card.parameters < get_model(card.pruned_from).parameters
        assert card.multiply_adds < get_model(card.pruned_from).multiply_adds


def test_references_are_in_the_bibliography():
    from shrinkbench.models.torchvision_models import REFERENCES

    keys = set(re.findall(r"@\w+\{([^,]+),", (ROOT / "docs" / "references.bib").read_text()))
    used = {card.reference for _, card in MODELS.items()} | set(REFERENCES.values()) | {"wightman2019timm"}
    assert used <= keys


def test_figures_in_namesakes_are_those_of_the_network_they_name():
    checked = 0
    for _, card in MODELS.items():
        for name, text in card.namesakes.items():
            figures = [int(f.replace(",", "")) for f in re.findall(r"([\d,]{5,}) parameters", text)]
            if name in MODELS and len(figures) == 1 and "more" not in text and "fewer" not in text:
                assert get_model(name).parameters == figures[0], (card.name, name)
                checked += 1
    assert checked > 20


def test_names_are_found_however_they_are_spelt():
    assert get_model("ResNet-20") is get_model("resnet_20") is get_model("resnet20")


def test_initial_weights_follow_the_seed_and_leave_the_global_state():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again, other = build("digits-cnn", seed=1), build("digits-cnn", seed=1), build("digits-cnn", seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    weight = first.features[0].weight
    assert torch.equal(weight, again.features[0].weight)
    assert not torch.equal(weight, other.features[0].weight)


def test_number_of_classes_is_checked():
    assert build("lenet5", num_classes=7).fc3.out_features == 7
    with pytest.raises(ShrinkbenchError, match="at least one class, not 0"):
        build("lenet5", num_classes=0)
