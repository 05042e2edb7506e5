"""torchvision's and timm's classifiers by name, and names that need one."""

from __future__ import annotations

import re
import sys

import pytest
import torchvision

from shrinkbench.errors import ShrinkbenchError, UnknownNameError
from shrinkbench.models import MODELS, build, get_model
from shrinkbench.models.ambiguous import AMBIGUOUS, AmbiguousNameError
from shrinkbench.spec import IMAGENET_NORMALISATION

NAMED = [
    *("resnet18", "resnet50", "vgg16_bn", "alexnet", "mobilenet_v2"),
    *("efficientnet_b0", "convnext_tiny", "swin_t", "vit_b_16"),
]
ALL = torchvision.models.list_models(module=torchvision.models)


def check_against_metadata(name: str) -> None:
    card = get_model(f"torchvision/{name}")
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    heads = {"inception_v3": 27_161_264 - 23_834_568}  # a second head that only training uses
    assert card.parameters == meta["num_params"] - heads.get(name, 0)
    assert card.multiply_adds == pytest.approx(meta["_ops"] * 1e9, rel=0.01, abs=6e5)  # printed to 1e6
    assert card.num_classes == len(meta["categories"]) == 1000


@pytest.mark.parametrize("name", NAMED)
def test_counts_agree_with_torchvisions_metadata(name):
    check_against_metadata(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ALL) - set(NAMED)))
def test_counts_of_every_classifier_agree_with_torchvisions_metadata(name):
    check_against_metadata(name)
    card = get_model(f"torchvision/{name}")
    assert card.reference
    assert len(card.definition) > 40
    for entry in card.weights:
        assert entry.url is not None
        assert entry.url.startswith("https://download.pytorch.org/models/")
        assert entry.sha256 is not None
        assert entry.sha256 in entry.url


def test_weights_of_an_enum():
    card = get_model("torchvision/resnet50")
    by_name = {entry.name: entry for entry in card.weights}
    assert card.weights[0].name == "IMAGENET1K_V2"
    assert by_name["IMAGENET1K_V1"].sha256 == "0676ba61"
    assert by_name["IMAGENET1K_V1"].published_top1 == 0.7613
    assert by_name["IMAGENET1K_V1"].normalisation == IMAGENET_NORMALISATION
    assert "resize 232" in by_name["IMAGENET1K_V2"].note


def test_spellings_lead_to_one_card():
    assert get_model("TorchVision/ResNet-18") is get_model("torchvision/resnet18")


def test_a_separator_may_tell_two_networks_apart():
    sizes = {n: get_model(f"torchvision/{n}").parameters for n in ("regnet_x_16gf", "regnet_x_1_6gf")}
    assert sizes == {"regnet_x_16gf": 54_278_536, "regnet_x_1_6gf": 9_190_136}
    with pytest.raises(UnknownNameError, match="it has regnet_x_16gf, regnet_x_1_6gf"):
        get_model("torchvision/regnetx16gf")


def test_a_vit_offers_the_weights_of_its_image_size_alone():
    assert [e.name for e in get_model("torchvision/vit_b_16").weights] == [
        "IMAGENET1K_V1",
        "IMAGENET1K_SWAG_LINEAR_V1",
    ]


def test_heads_for_training_alone_are_left_out():
    import torch

    with torch.device("meta"):
        module = get_model("torchvision/googlenet").build(10)
    assert not [n for n, _ in module.named_parameters() if n.startswith("aux")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision/resnet51", "torchvision has no classifier 'resnet51'; it has resnet50"),
        ("mobilenet_v2", "did you mean 'torchvision/mobilenet_v2'"),
        ("resnet-21", "unknown model 'resnet-21'; did you mean"),
        ("elsewhere/resnet18", "unknown model 'elsewhere/resnet18'"),
    ],
)
def test_unknown_names_say_what_is_meant(name, message):
    with pytest.raises(UnknownNameError, match=message):
        get_model(name)


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_name_lists_real_candidates_with_their_counts(name):
    assert name not in MODELS
    with pytest.raises(AmbiguousNameError, match="means several networks") as raised:
        get_model(name.upper())
    lines = str(raised.value).splitlines()[1:]
    assert len(lines) == len(AMBIGUOUS[name]) >= 2
    assert all(line.split()[0] == candidate for line, candidate in zip(lines, AMBIGUOUS[name], strict=True))


def test_the_counts_beside_ambiguous_names_are_right():
    said = {candidate: text for table in AMBIGUOUS.values() for candidate, text in table.items()}
    for candidate, text in said.items():
        figure, unit = re.search(r"([\d,]+) (parameters|multiply-adds)$", text).groups()
        if candidate.startswith("timm/"):
            pytest.importorskip("timm")
        card = get_model(candidate)
        counted = card.parameters if unit == "parameters" else card.multiply_adds
        assert counted == int(figure.replace(",", "")), candidate


def test_vgg_with_batch_norm_is_as_ambiguous_as_without():
    with pytest.raises(AmbiguousNameError, match="cifar-vgg16-l1"):
        get_model("VGG-16_bn")


def test_timm_models():
    pytest.importorskip("timm")
    card = get_model("timm/deit_tiny_patch16_224")
    assert card.parameters == 5_717_416  # published as 5.7M
    assert card.multiply_adds == pytest.approx(1.26e9, rel=0.02)  # published as 1.3e9
    assert card.weights[0].url is not None
    tagged = get_model("timm/resnet50.tv_in1k")
    assert (tagged.parameters, tagged.multiply_adds) == (25_557_032, 4_089_184_256)
    assert [e.name for e in tagged.weights] == ["tv_in1k"]
    assert build("timm/resnet18", num_classes=10).fc.out_features == 10
    with pytest.raises(UnknownNameError, match=r"timm .* has no model 'resnet51'; did you mean timm/resnet5"):
        get_model("timm/resnet51")
    with pytest.raises(UnknownNameError, match=r"resnet50 has no weights 'nope'; it has resnet50\.a1_in1k"):
        get_model("timm/resnet50.nope")


def test_without_timm_the_message_says_how_to_get_it(monkeypatch):
    from shrinkbench.models import timm_models

    monkeypatch.setitem(sys.modules, "timm", None)
    timm_models.make_card.cache_clear()
    with pytest.raises(ShrinkbenchError, match=r"need the optional package timm; install it with: pip install"):
        get_model("timm/resnet18")
