"""The budget, ties, agreement with torch's own pruning, and clear errors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_networks import ConvNet, Odd, ViT, batches, seeded
from torch import nn
from torch.nn.utils import prune as reference

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError, UnknownNameError
from shrinkbench.pruning import Masks, budget, prunable_names, prune

SHAPE = (3, 8, 8)


def count(module):
    return sum(p.numel() for p in module.parameters())


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["global_magnitude", "layerwise_magnitude"]),
    st.floats(1.0, 4.5),
    st.sampled_from([ConvNet, ViT, Odd]),
)
def test_the_budget_is_met_to_half_a_parameter(method, compression, network):
    module = seeded(network)
    total = count(module)
    masks = prune(module, method, compression=compression, input_shape=SHAPE, one_shot=True)
    kept = total - (masks.total - masks.kept)
    assert abs(kept - total / compression) <= 0.5


def test_random_keeps_each_weight_with_the_probability_of_the_budget():
    module = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 10))
    names = prunable_names(module, input_shape=(300,))
    kept = [
        prune(
            module, "random", compression=4, input_shape=(300,), generator=torch.Generator().manual_seed(s)
        ).kept
        for s in range(20)
    ]
    target = budget(module, names, 4)
    probability = target / 90_000
    deviation = math.sqrt(90_000 * probability * (1 - probability))
    assert abs(sum(kept) / 20 - target) < 4 * deviation / math.sqrt(20)
    assert max(kept) - min(kept) > deviation  # independent draws: counts fluctuate


def test_equal_scores_are_kept_by_position():
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    nn.init.ones_(module[0].weight)
    masks = prune(module, "global_magnitude", compression=24 / 15, input_shape=(4,))
    assert masks["0.weight"].flatten().tolist() == [True] * 7 + [False] * 9


@pytest.mark.parametrize("network", [ConvNet, ViT])
def test_global_magnitude_agrees_with_torch(network):
    ours, theirs = seeded(network), seeded(network)
    masks = prune(ours, "global_magnitude", compression=3, input_shape=SHAPE)
    layers = [(theirs.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2]) for n in masks]
    reference.global_unstructured(
        layers, pruning_method=reference.L1Unstructured, amount=masks.total - masks.kept
    )
    for name, (layer, attribute) in zip(masks, layers, strict=True):
        assert torch.equal(masks[name], getattr(layer, f"{attribute}_mask").bool()), name


@pytest.mark.parametrize("network", [ConvNet, ViT])
def test_layerwise_magnitude_agrees_with_torch(network):
    ours, theirs = seeded(network), seeded(network)
    masks = prune(ours, "layerwise_magnitude", compression=3, input_shape=SHAPE)
    fraction = masks.kept / masks.total
    for name, mask in masks.items():
        assert abs(int(mask.sum()) - fraction * mask.numel()) < 1
        path, _, attribute = name.rpartition(".")
        layer = theirs.get_submodule(path)
        reference.l1_unstructured(layer, attribute, amount=int((~mask).sum()))
        assert torch.equal(mask, getattr(layer, f"{attribute}_mask").bool()), name


def test_compression_one_keeps_everything_and_asks_for_no_data():
    masks = prune(seeded(ConvNet), "global_gradient", compression=1, input_shape=SHAPE)
    assert masks.kept == masks.total


def test_what_is_prunable():
    module = seeded(ConvNet)
    names = prunable_names(module, input_shape=SHAPE)
    assert names == ("stem.weight", "grouped.weight", "depthwise.weight", "pointwise.weight")
    assert "fc.weight" in prunable_names(module, input_shape=SHAPE, prune_classifier=True)
    with_biases = prunable_names(module, input_shape=SHAPE, prune_biases=True)
    assert {"grouped.bias", "pointwise.bias"} < set(with_biases)
    assert "fc.bias" not in with_biases
    assert not any("norm" in name for name in with_biases)
    vit = prunable_names(seeded(ViT), input_shape=SHAPE)
    assert {"blocks.0.attention.in_proj_weight", "blocks.0.attention.out_proj.weight"} < set(vit)
    assert "head.weight" not in vit
    tied = prunable_names(seeded(Odd), input_shape=SHAPE)
    assert "again.weight" in tied
    assert "tied.weight" not in tied


def test_later_rounds_stay_within_earlier_ones():
    module = seeded(ConvNet)
    masks = None
    for compression in (1.5, 2, 3, 4):
        new = prune(module, "global_magnitude", compression=compression, input_shape=SHAPE, masks=masks)
        assert masks is None or new.within(masks)
        nn.init.normal_(module.stem.weight)  # other scores must not bring weights back
        masks = new


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"compression": 0.5}, "compression 0.5 is not a finite number of at least 1"),
        ({"compression": float("nan")}, "compression nan is not a finite number"),
        ({"compression": "x"}, "compression 'x' is not a finite number"),
        ({"method": "global_magnitud"}, "unknown pruning method 'global_magnitud'; did you mean"),
        ({"method": "global_gradient"}, "none was given; pass batches="),
        ({"input_shape": None}, "finding it takes a forward pass; pass batches= or input_shape="),
        ({"input_shape": (5, 8, 8)}, "does not run on one input of shape 5x8x8"),
        ({"batches": []}, "batches= is empty"),
    ],
)
def test_bad_input_is_one_sentence(options, sentence):
    call = {"method": "global_magnitude", "compression": 2, "input_shape": SHAPE, **options}
    if call.get("batches") == []:
        del call["input_shape"]
    with pytest.raises(ShrinkbenchError) as caught:
        prune(seeded(ConvNet), call.pop("method"), **call, one_shot=True)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_target_out_of_reach_names_the_largest_in_reach():
    module = seeded(ConvNet)
    with pytest.raises(CannotMeetTargetError, match=r"largest possible target is [\d.]+") as caught:
        prune(module, "global_magnitude", compression=1e9, input_shape=SHAPE)
    largest = float(str(caught.value).rpartition(" ")[2])
    masks = prune(module, "global_magnitude", compression=largest, input_shape=SHAPE)
    assert masks.kept == 1
    with pytest.raises(CannotMeetTargetError):
        prune(module, "global_magnitude", compression=largest * 1.01, input_shape=SHAPE)


def test_lazy_parameters_and_networks_without_weights_are_refused():
    with pytest.raises(ShrinkbenchError, match="is lazy and has no shape yet"):
        prune(nn.Sequential(nn.LazyLinear(3)), "global_magnitude", compression=2, input_shape=(4,))
    with pytest.raises(ShrinkbenchError, match="no prunable weights"):
        prune(nn.Sequential(nn.ReLU()), "global_magnitude", compression=2, input_shape=(4,))


def test_unknown_names_are_a_kind_of_their_own():
    with pytest.raises(UnknownNameError):
        prune(seeded(ConvNet), "no such method", compression=2, input_shape=SHAPE)


def test_masks_of_another_network_are_refused():
    with pytest.raises(ShrinkbenchError, match=r"no parameter 'stem\.weight'"):
        Masks({"stem.weight": torch.ones(1, dtype=torch.bool)}).apply(seeded(ViT))


def test_one_pass_over_a_generator_of_batches_is_enough():
    masks = prune(seeded(ConvNet), "global_gradient", compression=2, batches=iter(batches(1)))
    again = prune(seeded(ConvNet), "global_gradient", compression=2, batches=batches(1))
    assert masks.equal(again)
