"""Rounds: shares of what is prunable, targets told beforehand, and controls that end as their method."""

import itertools
import math

import pytest
import torch
from sample_networks import ConvNet, seeded
from sampling import sampled
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.pruning import METHODS, budget, prunable_names, prune, rounds_of, training_hook
from shrinkbench.spec import Compression

SHAPE = (3, 8, 8)


def mlp():
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 5))


def batches(*shape):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(16, *shape, generator=generator), torch.randint(3, (16,), generator=generator))
        for _ in range(4)
    ]


def at_once():
    """Methods of several rounds with no training between them."""
    methods = [METHODS.get(name) for name in METHODS if METHODS.origin(name) is None]
    return [m.name for m in methods if m.schedule.rounds != 1 and m.in_one_step]


def counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize(
    ("method", "score"),
    sampled(
        list(
            itertools.product(
                [*at_once(), "global_gradient[schedule=at-initialisation-100]"], ["random", "magnitude"]
            )
        ),
        every=3,
    ),
)
def test_a_control_keeps_of_every_layer_what_its_method_ends_with(method, score):
    network, options = seeded(mlp), {"compression": 3, "batches": batches(20)}
    own = prune(network, method, generator=torch.Generator().manual_seed(4), **options)
    control = prune(network, f"{score}@{method}", generator=torch.Generator().manual_seed(4), **options)
    assert counts(control) == counts(own)


def test_a_round_of_such_a_control_alone_is_refused():
    masks = prune(seeded(mlp), "global_magnitude", compression=1.5, input_shape=(20,))
    with pytest.raises(ShrinkbenchError, match=r"that 'synflow' ends with.*leave masks= out"):
        prune(seeded(mlp), "random@synflow", compression=2, input_shape=(20,), masks=masks)


def test_chance_of_a_control_is_not_that_of_its_method():
    network, data = seeded(ConvNet), batches(*SHAPE)

    def pruned(name):
        return prune(network, name, compression=2, batches=data, generator=torch.Generator().manual_seed(1))

    assert counts(pruned("random@obd_hutchinson")) == counts(pruned("obd_hutchinson"))
    one, other = pruned("layerwise_random"), pruned("random@layerwise_random")
    assert counts(one) == counts(other)
    assert not one.equal(other)


def test_there_is_no_control_of_a_control():
    with pytest.raises(ShrinkbenchError, match="write magnitude@synflow"):
        METHODS.get("magnitude@random@synflow")


def budgets(network, method, compression, shape):
    module = build(network, num_classes=10, seed=0)
    names = prunable_names(module, input_shape=shape)
    parameters = dict(module.named_parameters())
    steps = rounds_of(module, METHODS.get(method), Compression(ratio=compression), input_shape=shape)
    assert steps[-1] == Compression(ratio=compression)
    return [sum(parameters[n].numel() for n in names), *(budget(module, names, s.ratio) for s in steps)]


@pytest.mark.parametrize("compression", [2, 10, 100, 125])
def test_the_factor_of_every_round_is_that_of_prunable_weights(compression):
    kept = budgets("resnet20", "synflow", compression, (3, 32, 32))
    assert len(kept) == 101
    module = build("resnet20", num_classes=10, seed=0)
    total = sum(p.numel() for p in module.parameters())
    factor = ((total / compression - (total - kept[0])) / kept[0]) ** (1 / 100)
    for number, count in enumerate(kept):
        assert abs(count - kept[0] * factor**number) <= 0.5 + 1e-6 * kept[0]


@pytest.mark.parametrize(("method", "share"), [("lottery_ticket", 0.2), ("iterative_magnitude", 0.5)])
@pytest.mark.parametrize("compression", [1.5, 8, 125])
def test_every_round_but_the_last_removes_its_share_of_what_is_prunable(method, share, compression):
    kept = budgets("resnet20", method, compression, (3, 32, 32))
    for before, after in itertools.pairwise(kept[:-1]):
        assert abs(after - (1 - share) * before) <= 1
    assert 1 - share - 1 / kept[-2] <= kept[-1] / kept[-2] <= 1
    assert len(kept) == 1 + math.ceil(math.log(kept[-1] / kept[0]) / math.log(1 - share) - 1e-3)


def test_rounds_of_channels_count_what_channels_can_take():
    module = build("resnet20", num_classes=10, seed=0)
    method = METHODS.get("global_channel_l1[schedule=iterative-20]")
    steps = rounds_of(module, method, Compression(ratio=4), input_shape=(3, 32, 32))
    kept = [1 / step.ratio for step in steps]
    assert all(0.79 < after / before < 0.83 for before, after in zip([1.0, *kept], kept[:-1], strict=False))


@pytest.mark.parametrize(
    "name",
    [
        "iterative_magnitude",
        "synflow",
        "random@synflow",
        "lottery_ticket[structure=filters]",
        "iterative_magnitude[allocation=uniform-plus]",
    ],
)
def test_a_target_out_of_reach_is_named_before_the_first_round(name):
    module = seeded(ConvNet)
    with pytest.raises(CannotMeetTargetError, match=r"compression 500 cannot be met.*target is") as caught:
        rounds_of(module, METHODS.get(name), Compression(ratio=500), input_shape=SHAPE)
    largest = float(str(caught.value).rpartition(" ")[2])
    assert rounds_of(module, METHODS.get(name), Compression(ratio=largest), input_shape=SHAPE)
    with pytest.raises(CannotMeetTargetError):
        rounds_of(module, METHODS.get(name), Compression(ratio=largest * 1.02), input_shape=SHAPE)


def test_a_training_that_prunes_is_not_begun_for_a_target_out_of_reach():
    for name in ("gradual_magnitude", "movement", "rigl", "soft_filter_pruning"):
        with pytest.raises(CannotMeetTargetError, match="compression 500 cannot be met"):
            training_hook(
                seeded(ConvNet), name, compression=500, epochs=2, steps_per_epoch=9, seed=0, input_shape=SHAPE
            )
