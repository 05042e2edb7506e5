"""Published widths: what is left has the shapes, parameters and multiply-adds of the published networks."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import count_multiply_adds, count_parameters, measure_size
from shrinkbench.models import build, get_model
from shrinkbench.pruning import METHODS, PruneContext, prune
from shrinkbench.pruning.methods.published_widths import (
    masks_of_target,
)
from shrinkbench.spec.targets import TARGETS, Target
from shrinkbench.spec.training_cost import scratch_b
from shrinkbench.surgery.shrinking import shrink
from shrinkbench.training import RECIPES

# Target, the network it is cut from, the card of what is left; parameters and multiply-adds as counted there.
LI = [
    ("li2017:vgg16-a", "cifar-vgg16-l1", "vgg16-a", 5_397_034, 206_279_680),
    ("li2017:resnet56-a", "resnet56", "resnet56-a", 773_336, 112_435_840),
    ("li2017:resnet56-b", "resnet56", "resnet56-b", 735_712, 90_907_264),
    ("li2017:resnet110-a", "resnet110", "resnet110-a", 1_688_522, 212_779_648),
    ("li2017:resnet110-b", "resnet110", "resnet110-b", 1_168_424, 155_124_352),
    ("li2017:resnet34-a", "torchvision/resnet34", "resnet34-a", 20_151_764, 3_100_184_576),
    ("li2017:resnet34-b", "torchvision/resnet34", "resnet34-b", 19_469_372, 2_782_269_440),
]
LARGE = [
    ("li2017:resnet34-a", "resnet34-option-a", "resnet34-option-a-a", 19_977_940, 3_080_916_992),
    ("li2017:resnet34-b", "resnet34-option-a", "resnet34-option-a-b", 19_295_548, 2_763_001_856),
]
THINET = [
    ("thinet:resnet50-70", "resnet50-v1", "thinet-resnet50-70", 16_945_246, 2_440_026_340),
    ("thinet:resnet50-50", "resnet50-v1", "thinet-resnet50-50", 12_381_864, 1_706_426_368),
    ("thinet:resnet50-30", "resnet50-v1", "thinet-resnet50-30", 8_665_318, 1_097_492_539),
    ("thinet:vgg-conv", "torchvision/vgg16", "thinet-vgg-conv", 131_452_552, 4_791_205_888),
    ("thinet:vgg-gap", "vgg16-gap", "thinet-vgg-gap", 8_322_696, 4_668_084_224),
    ("thinet:vgg-tiny", "vgg16-gap", "thinet-vgg-tiny", 1_325_368, 1_004_578_816),
    ("he2017:vgg-16-5x", "torchvision/vgg16", "vgg-16-5x", 130_879_294, 3_515_283_520),
]


def check(target, network, card, parameters, multiply_adds, shape=None, batches=None):
    """Prune, cut out, and compare with the card's network, figure by figure and tensor by tensor."""
    full = get_model(network).input_shape
    if shape or batches or full != (3, 32, 32):
        module = build(network).eval()
        masks = prune(module, target, input_shape=shape or full, batches=batches)
    else:
        module, masks = pruned(target, network)
    small = shrink(module, masks, shape or full)
    assert count_parameters(small) == get_model(card).parameters == parameters
    assert count_multiply_adds(small, full) == get_model(card).multiply_adds == multiply_adds
    template = build(card)
    assert {n: t.shape for n, t in small.state_dict().items()} == {
        n: t.shape for n, t in template.state_dict().items()
    }
    template.load_state_dict(small.state_dict())
    inputs = torch.randn(2, *(shape or full))
    with torch.no_grad():
        torch.testing.assert_close(template.eval()(inputs), small.eval()(inputs), rtol=1e-4, atol=1e-5)


@functools.cache
def pruned(target, network):
    """The network and its masks, made once; nobody changes them."""
    module = build(network).eval()
    return module, prune(module, target, input_shape=(3, 32, 32))


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow) if c[0] != "li2017:resnet56-b" else c for c in LI],
    ids=str,
)
def test_li(case):
    check(*case, shape=(3, 64, 64) if "torchvision" in case[1] else None)


@pytest.mark.slow
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_li_with_option_a(case):
    check(*case, shape=(3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize("case", THINET, ids=str)
def test_reconstructing_targets(case):
    """VGG's linear layers fix the size of the image; one image is enough to choose by."""
    size = 224 if "vgg" in case[1] else 64
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    check(*case, shape=(3, size, size), batches=[(images, torch.zeros(1, dtype=torch.int64))])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "parameters", "multiply_adds"),
    [(70, 16_949_086, 2_601_392_356), (50, 12_385_704, 1_822_031_872), (30, 8_669_158, 1_166_283_835)],
)
def test_thinet_on_the_network_of_liu(kept, parameters, multiply_adds):
    """The same widths with the stride in the 3x3 convolution; their code adds 3,840 biases of projections."""
    module = build("torchvision/resnet50").eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batches = [(images, torch.zeros(1, dtype=torch.int64))]
    masks = prune(module, f"thinet:resnet50-{kept}", input_shape=(3, 64, 64), batches=batches)
    small = shrink(module, masks, (3, 64, 64))
    assert count_parameters(small) == parameters - (256 + 512 + 1024 + 2048)
    assert count_multiply_adds(small, (3, 224, 224)) == multiply_adds
    card = get_model(f"thinet-resnet50-{kept}-v1.5")
    assert (card.parameters, card.multiply_adds) == (parameters, multiply_adds)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "card", "multiply_adds"),
    [
        ("torchvision/resnet50", "resnet-50-2x", 2_730_129_076),
        ("resnet50-v1", "resnet-50-2x-v1", 2_599_320_244),
    ],
)
def test_regression_samples_the_inputs_of_blocks(network, card, multiply_adds):
    """ResNet-50-2x: the released networks add 3,840 biases of projections, as those of ThiNet do."""
    module = build(network).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batches = [(images, torch.zeros(1, dtype=torch.int64))]
    masks = prune(module, "he2017:resnet-50-2x", input_shape=(3, 64, 64), batches=batches)
    masked = copy.deepcopy(module)
    masks.apply(masked)
    small = shrink(module, masks, (3, 64, 64))
    assert count_parameters(small) == get_model(card).parameters - (256 + 512 + 1024 + 2048)
    assert get_model(card).parameters == 19_697_424
    assert count_multiply_adds(small, (3, 224, 224)) == get_model(card).multiply_adds == multiply_adds
    with torch.no_grad():
        torch.testing.assert_close(small(images), masked(images), rtol=1e-3, atol=1e-4)


def test_inputs_are_sampled_by_regression_and_the_stream_stays_whole():
    """What two blocks of a small network read of their streams; the weights left are the least-squares ones."""
    module = build("resnet20").eval()
    batches = [(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.zeros(16).long())]
    target = Target("test", {"layer1.1.conv1.weight": 7, "layer1.1.conv1": 12}, "regression", "he2017channel")
    names = [n for n, p in module.named_parameters() if p.dim() > 1 and "linear" not in n and "fc" not in n]
    ctx = PruneContext(module, names, batches=batches, input_shape=(3, 32, 32))
    masks = masks_of_target(ctx, target)
    weight = masks["layer1.1.conv1.weight"]
    read, filters = weight.flatten(2).any(2).any(0), weight.flatten(1).any(1)
    assert (int(read.sum()), int(filters.sum())) == (7, 12)
    assert torch.equal(weight, (filters[:, None] & read)[:, :, None, None].expand_as(weight))
    assert "layer1.0.conv2.weight" not in masks or bool(masks["layer1.0.conv2.weight"].all())
    before = module.layer1[1].conv1.weight.detach().clone()
    inputs = stream(module, batches[0][0])
    wanted = torch.nn.functional.conv2d(inputs, before, padding=1)
    errors = []
    for values in (masks.new_weights["layer1.1.conv1.weight"], before * weight):
        found = torch.nn.functional.conv2d(inputs, values, padding=1)
        errors.append(float((found - wanted)[:, filters].square().mean()))
    assert errors[0] < errors[1]  # least squares makes up for the inputs that are gone


def stream(module, images):
    """What arrives at the second block of the first stage."""
    seen = []
    handle = module.layer1[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        module(images)
    handle.remove()
    return seen[0]


# Scratch-B on the networks that pruning leaves, by the multiply-adds that masks keep.
@pytest.mark.parametrize(
    ("target", "network", "epochs"),
    [
        pytest.param("li2017:vgg16-a", "cifar-vgg16-l1", 243, marks=pytest.mark.slow),
        pytest.param("li2017:resnet56-a", "resnet56", 178, marks=pytest.mark.slow),
        pytest.param("li2017:resnet56-b", "resnet56", 220, marks=pytest.mark.slow),
        pytest.param("li2017:resnet110-a", "resnet110", 190, marks=pytest.mark.slow),
        pytest.param("li2017:resnet110-b", "resnet110", 260, marks=pytest.mark.slow),
    ],
)
def test_scratch_b_epochs_follow_from_the_masks(target, network, epochs):
    module, masks = pruned(target, network)
    size = measure_size(module, (3, 32, 32), masks)
    recipe = RECIPES.get("cifar-train")
    assert scratch_b(recipe, large=size.multiply_adds, small=size.multiply_adds_kept).epochs == epochs


def test_the_filters_of_smallest_norm_go():
    module, masks = pruned("li2017:resnet56-b", "resnet56")
    norms = module.layer1[2].conv1.weight.abs().sum((1, 2, 3))
    kept = masks["layer1.2.conv1.weight"].flatten(1).any(1)
    assert int(kept.sum()) == 6
    assert norms[kept].min() > norms[~kept].max()
    assert "layer2.0.conv1.weight" not in masks or bool(masks["layer2.0.conv1.weight"].all())  # a skipped layer


def test_every_target_is_checked_against_a_card():
    """By pruning the large network, above: parameters, multiply-adds and shapes."""
    checked = {case[0] for case in (*LI, *THINET)} | {"he2017:resnet-50-2x"}
    assert checked == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_the_network_of_the_card_has_the_widths_of_the_target(target):
    with torch.device("meta"):
        module = get_model(card_of(target)).build(10)
    convolutions = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]
    for path, width in target.kept.items():
        if path.endswith(".weight"):
            assert module.get_parameter(path).shape[1] == width, path
        else:
            layer = convolutions[int(path[1:])] if path.startswith("#") else module.get_submodule(path)
            assert layer.out_channels == width, path


def card_of(target):
    family, _, name = target.name.partition(":")
    return f"thinet-{name}" if family == "thinet" else name


def test_every_target_names_its_network_and_reference():
    for name, target in TARGETS.items():
        method = METHODS.get(name)
        assert method.name == name == target.name
        assert method.reference == target.reference
        assert method.structure.name == "channels"


@pytest.mark.slow
def test_a_mismatched_network_is_told():
    with pytest.raises(
        ShrinkbenchError, match=r"keeps 14 filters of layer 'layer1.3.conv1', and this network has no"
    ):
        prune(build("resnet20"), "li2017:resnet56-a", input_shape=(3, 32, 32))
    images = [(torch.zeros(2, 3, 32, 32), torch.zeros(2).long())]
    with pytest.raises(
        ShrinkbenchError, match=r"35 inputs in 'layer1.0.conv1.weight', and this network has not"
    ):
        prune(build("resnet20"), "he2017:resnet-50-2x", input_shape=(3, 32, 32), batches=images)
    with pytest.raises(ShrinkbenchError, match="this network has 16 filters there"):
        prune(build("resnet56"), "li2017:resnet34-a", input_shape=(3, 32, 32))


def test_an_unknown_target_names_the_known_ones():
    with pytest.raises(ShrinkbenchError, match="choose li2017:resnet56-a"):
        METHODS.get("li2017:resnet57-a")


@pytest.mark.slow
def test_controls_of_a_target_keep_as_much_whatever_compression_is_asked_for():
    module, target = pruned("li2017:resnet56-a", "resnet56")
    for score in ("magnitude", "random"):
        control = prune(
            module,
            f"{score}@li2017:resnet56-a",
            input_shape=(3, 32, 32),
            generator=torch.Generator().manual_seed(0),
        )
        assert {n: int(control[n].sum()) for n in target} == {n: int(m.sum()) for n, m in target.items()}
        assert all(bool(control[n].all()) for n in control.keys() - target.keys())
