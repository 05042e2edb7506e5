"""How many where: budgets, proportions, published formulas."""

import math
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_networks import ConvNet, Odd, ViT, batches, seeded
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError, UnknownNameError
from shrinkbench.models import build
from shrinkbench.pruning import METHODS, LayerCollapseWarning, PruneContext, PruningMethod, prune
from shrinkbench.pruning.allocations.rules import ALLOCATIONS, fill, lamp_score, whole_units
from shrinkbench.pruning.units import STRUCTURES, Units

SHAPE = (3, 8, 8)


def magnitude(ctx):
    return {name: w.abs() for name, w in ctx.weights.items()}


def masks_of(allocation, module, compression=2.0, **options):
    method = PruningMethod(name="test", score=magnitude, allocation=ALLOCATIONS.get(allocation))
    return prune(module, method, compression=compression, input_shape=SHAPE, **options, one_shot=True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 10), st.integers(1, 200)), min_size=1, max_size=6), st.floats(0.01, 1.0)
)
def test_fill_spends_the_budget_within_limits_and_in_proportion(layers, fraction):
    weights = {str(i): w for i, (w, _) in enumerate(layers)}
    limits = {str(i): (0.0, float(size)) for i, (_, size) in enumerate(layers)}
    budget = fraction * sum(size for _, size in layers)
    parts = fill(weights, limits, budget)
    assert math.isclose(sum(parts.values()), budget, rel_tol=1e-9)
    ratios = [parts[k] / weights[k] for k in weights if parts[k] < limits[k][1] * (1 - 1e-9)]
    assert not ratios or max(ratios) - min(ratios) <= 1e-6 * max(ratios)
    assert all(parts[k] <= limits[k][1] + 1e-9 for k in parts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=6), st.floats(0.05, 1.0))
def test_whole_units_come_within_one_unit_of_the_budget(layers, fraction):
    units = {str(i): Units(torch.rand(n), size) for i, (n, size) in enumerate(layers)}
    budget = int(fraction * sum(u.total for u in units.values()))
    shares = fill({k: u.total for k, u in units.items()}, {k: (0, u.total) for k, u in units.items()}, budget)
    counts = whole_units(units, shares, budget)
    used = sum(counts[k] * layers[int(k)][1] for k in units)
    open_sizes = [layers[int(k)][1] for k in units if counts[k] < layers[int(k)][0]]
    assert used <= budget
    assert not open_sizes or budget - used < min(open_sizes)


def density(masks):
    return {name: mask.float().mean().item() for name, mask in masks.items()}


def test_layerwise_is_one_fraction_for_all():
    densities = density(masks_of("layerwise", seeded(ConvNet), 3))
    assert max(densities.values()) - min(densities.values()) < 0.02


def test_uniform_plus_keeps_the_first_layer_and_a_fifth_of_the_last():
    module = seeded(ConvNet)
    masks = masks_of("uniform-plus", module, 2.0, prune_classifier=True)
    densities = density(masks)
    assert densities["stem.weight"] == 1
    assert densities["fc.weight"] >= 0.2
    rest = [densities[f"{name}.weight"] for name in ("grouped", "depthwise", "pointwise")]
    assert max(rest) - min(rest) < 0.02
    assert max(rest) < densities["fc.weight"] + 0.02
    with pytest.raises(CannotMeetTargetError, match="largest possible target is") as caught:
        masks_of("uniform-plus", module, 4.0, prune_classifier=True)
    masks_of("uniform-plus", module, float(str(caught.value).rpartition(" ")[2]), prune_classifier=True)
    sent = pickle.loads(pickle.dumps(caught.value))  # as from a worker
    assert (str(sent), sent.largest) == (str(caught.value), caught.value.largest)


def test_uniform_plus_knows_of_no_first_convolution_in_a_perceptron():
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 40), nn.ReLU(), nn.Linear(40, 20), nn.ReLU())
    module.append(nn.Linear(20, 3))
    densities = density(masks_of("uniform-plus", module, 8.0))
    assert max(densities.values()) - min(densities.values()) < 0.01
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(CannotMeetTargetError, match="first convolution whole and something of every layer"):
        masks_of("uniform-plus", convolutions, 2.0)


@pytest.mark.parametrize("allocation", ["layerwise", "uniform-plus", "erdos-renyi-kernel"])
def test_rounding_empties_no_layer(allocation):
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 300, bias=False), nn.Linear(300, 2, bias=False))
    module.append(nn.Linear(2, 3, bias=False))
    masks = masks_of(allocation, module, 4000.0)
    assert min(int(mask.sum()) for mask in masks.values()) >= 1
    assert masks.kept == round(sum(p.numel() for p in module.parameters()) / 4000) - 6
    with pytest.raises(CannotMeetTargetError, match="keeps a unit of every layer") as caught:
        masks_of(allocation, module, 8000.0)
    largest = float(str(caught.value).rpartition(" ")[2])
    assert masks_of(allocation, module, largest).kept == 2


def test_wanda_keeps_a_weight_of_every_row():
    module = build("resnet20", num_classes=10, seed=0)
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(4, 3, 32, 32, generator=generator), torch.zeros(4, dtype=torch.long))] * 2
    masks = prune(module, "wanda", compression=95, batches=data)
    assert all(bool(mask.flatten(1).any(1).all()) for mask in masks.values())
    with pytest.raises(CannotMeetTargetError, match="one weight of every row stays") as caught:
        prune(module, "wanda", compression=120, batches=data)
    largest = float(str(caught.value).rpartition(" ")[2])
    masks = prune(module, "wanda", compression=largest, batches=data)
    assert {int(count) for mask in masks.values() for count in mask.flatten(1).sum(1)} == {1}


def test_an_emptied_layer_is_named():
    module = seeded(ConvNet)
    with torch.no_grad():
        module.stem.weight.mul_(1e-6)
    with pytest.warns(LayerCollapseWarning, match=r"no weight stays in stem\.weight; "):
        prune(module, "global_magnitude", compression=3, input_shape=SHAPE)
    with warnings.catch_warnings(action="error"):
        prune(module, "layerwise_magnitude", compression=3, input_shape=SHAPE)


def test_erdos_renyi_kernel_follows_its_formula():
    masks = masks_of("erdos-renyi-kernel", seeded(ViT), 4.0)
    scale = {}
    for name, mask in masks.items():
        d = mask.float().mean().item()
        scale[name] = d / (sum(mask.shape) / mask.numel())
        assert d <= 1
    open_ones = [s for name, s in scale.items() if masks[name].float().mean() < 1]
    assert max(open_ones) / min(open_ones) < 1.03  # up to whole weights


def test_lamp_scores_by_the_definition():
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(40, generator=generator)
    scores = lamp_score(w)
    for i in range(40):
        larger = w.abs() >= w[i].abs()
        expected = w[i].double() ** 2 / w[larger].double().square().sum()
        assert math.isclose(scores[i].item(), expected.item(), rel_tol=1e-5)
    assert lamp_score(torch.zeros(3)).tolist() == [0, 0, 0]


def test_the_lamp_allocation_of_magnitude_is_the_global_allocation_of_lamp_scores():
    module = seeded(ConvNet)
    by_allocation = masks_of("lamp", module, 2.5)
    by_score = prune(module, "lamp", compression=2.5, input_shape=SHAPE)
    assert by_allocation.equal(by_score)


def test_lamp_never_empties_a_layer():
    module = seeded(ConvNet)
    nn.init.normal_(module.stem.weight, std=1e-4)
    masks = prune(module, "lamp", compression=3.5, input_shape=SHAPE)
    assert all(bool(mask.any()) for mask in masks.values())


@pytest.mark.parametrize("network", [ConvNet, ViT, Odd])
def test_rowwise_keeps_the_same_number_in_every_row(network):
    masks = masks_of("rowwise", seeded(network), 2.0)
    for mask in masks.values():
        per_row = mask.flatten(1).sum(1)
        assert int(per_row.max() - per_row.min()) <= 1


CONTROLLED = [
    "global_magnitude",
    "global_gradient",
    "lamp",
    "wanda",
    "filter_l1",
    "global_filter_l1",
    "block_magnitude",
    "magnitude_2_4",
    "movement",
    "rigl",
    "kernel_magnitude",
]


@pytest.mark.parametrize("score", ["random", "magnitude"])
@pytest.mark.parametrize("method", CONTROLLED)
def test_controls_have_the_same_layerwise_proportions(method, score):
    module, data = seeded(ConvNet), batches(2)
    control = METHODS.get(f"{score}@{method}")
    assert control.name == f"{score}@{method}"
    assert control.spec.allocation.like == METHODS.get(method).spec
    own = prune(module, method, compression=2, batches=data, one_shot=True)
    other = prune(module, control, compression=2, batches=data, one_shot=True)
    for name, mask in own.items():  # blocks at an edge are smaller than those inside
        slack = 16 if method == "block_magnitude" else 0
        assert abs(int(mask.sum()) - int(other[name].sum())) <= slack, name
    if score == "random":
        assert not own.equal(other)


@pytest.mark.parametrize("score", ["random", "magnitude"])
def test_every_method_has_controls(score):
    for method in [m for m in METHODS if "doctest" not in m]:
        own = METHODS.get(method)
        while_training = own.schedule.during is not None and not own.schedule.decided_last
        if while_training and own.allocation.scope == "global":
            with pytest.raises(ShrinkbenchError, match="are known only after its training"):
                METHODS.get(f"{score}@{method}")
            continue
        control = METHODS.get(f"{score}@{method}")
        assert (control.spec.score.name, control.spec.allocation.like) == (score, METHODS.get(method).spec)


def test_where_units_are_whole_layers_a_control_keeps_as_much_in_the_whole_network():
    """The same number in every layer would leave nothing to choose."""
    module = build("resnet20")
    own = prune(module, "branch_l1", compression=2, input_shape=(3, 32, 32))
    others = [
        prune(
            module,
            "random@branch_l1",
            compression=2,
            input_shape=(3, 32, 32),
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in range(4)
    ]
    assert any(not own.equal(other) for other in others)
    largest = max(p.numel() for p in module.parameters()) * 2 + 256  # one branch of the last stage
    assert all(abs(own.kept - other.kept) <= largest for other in others)
    assert METHODS.get("random@branch_l1").spec.allocation.like == METHODS.get("branch_l1").spec


def test_a_control_by_the_methods_own_score_is_the_method():
    module = seeded(ConvNet)
    own = prune(module, "global_magnitude", compression=3, input_shape=SHAPE)
    assert prune(module, "magnitude@global_magnitude", compression=3, input_shape=SHAPE).equal(own)


def test_controls_of_methods_for_transformers():
    module = seeded(ViT)
    own = prune(module, "head_magnitude", compression=1.3, input_shape=SHAPE)
    other = prune(module, "random@head_magnitude", compression=1.3, input_shape=SHAPE)
    assert {n: int(m.sum()) for n, m in own.items()} == {n: int(m.sum()) for n, m in other.items()}


def test_controls_stay_within_earlier_rounds():
    module = seeded(ConvNet)
    masks = None
    for round_, compression in enumerate((1.5, 2, 3)):
        generator = torch.Generator().manual_seed(round_)
        new = prune(
            module,
            "random@global_magnitude",
            compression=compression,
            input_shape=SHAPE,
            masks=masks,
            generator=generator,
        )
        assert masks is None or new.within(masks)
        total = sum(p.numel() for p in module.parameters())
        assert abs(total - (new.total - new.kept) - total / compression) <= 0.5
        masks = new
        masks.apply(module)


def test_names_that_make_no_control_are_told():
    with pytest.raises(UnknownNameError, match="unknown score 'randm'"):
        METHODS.get("randm@global_magnitude")
    with pytest.raises(UnknownNameError, match="unknown pruning method 'nothing'"):
        METHODS.get("random@nothing")
    late = METHODS.get("movement[allocation=global]")
    METHODS.add("late", late)
    with pytest.raises(ShrinkbenchError, match="known only after its training"):
        METHODS.get("random@late")
    with pytest.raises(ShrinkbenchError, match="known only after its training"):
        METHODS.get("random@gradual_magnitude[allocation=lamp]")  # by the weights that training makes


def test_variants_change_single_axes():
    variant = METHODS.get("lottery_ticket[finetuning=rewind-weights-3, schedule=iterative-35]")
    assert variant.finetuning.epoch == 3
    assert variant.schedule(2)[0] == pytest.approx(1 / 0.65)
    assert variant.name == "lottery_ticket[schedule=iterative-35,finetuning=rewind-weights-3]"
    assert METHODS.get("global_magnitude[structure=1:4]").structure.pattern == (1, 4)
    with pytest.raises(ShrinkbenchError, match="write axis=value"):
        METHODS.get("lottery_ticket[rewind]")
    with pytest.raises(UnknownNameError, match="unknown schedule 'now'"):
        METHODS.get("lottery_ticket[schedule=now]")


def test_allocations_that_rank_weights_refuse_other_structures():
    ctx = PruneContext(seeded(ConvNet), ["stem.weight"], input_shape=SHAPE)
    units = STRUCTURES.get("filters").group(ctx, magnitude(ctx)).units
    for name in ("rowwise", "lamp"):
        with pytest.raises(ShrinkbenchError, match="use it with structure 'weights'"):
            ALLOCATIONS.get(name)(units, 100, ctx)
