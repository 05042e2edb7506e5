"""Within masks of any shape, all methods meet their target and bring nothing back."""

import pytest
import torch
from sample_networks import ConvNet, batches, seeded
from sampling import sampled
from test_conformance import NAMES
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.metrics import measure_size
from shrinkbench.pruning import METHODS, Masks, prune

SHAPE = (3, 8, 8)
ONCE = [name for name in NAMES if METHODS.get(name).amount is None]
MUST = ["wanda", "wanda_2_4", "owl_wanda", "dsnot", "obc", "phew", "global_magnitude[allocation=rowwise]"]


def uneven(net):
    """Masks under which some filters are whole, some have a few weights and some have none."""
    generator = torch.Generator().manual_seed(5)
    masks = {}
    for name, p in net.named_parameters():
        if p.dim() > 1 and not name.startswith("fc"):
            masks[name] = torch.rand(p.shape, generator=generator) > 0.45
            masks[name][0] = False
            masks[name][1] = torch.rand(p.shape[1:], generator=generator) > 0.9
    return Masks(masks)


@pytest.mark.parametrize("name", [*sampled([n for n in ONCE if n not in MUST], every=4), *MUST])
def test_uneven_masks_are_kept_to_and_the_target_is_met(name):
    net = seeded(ConvNet)
    given = uneven(net)
    given.apply(net)
    total = sum(p.numel() for p in net.parameters())
    target = 0.8 * (total - given.total + given.kept)
    options = {"batches": batches(2, 4), "input_shape": SHAPE, "one_shot": True, "masks": given}
    try:
        found = prune(net, name, compression=total / target, **options)
    except ShrinkbenchError:  # of networks and structures
        assert name not in MUST
        return
    method, kept = METHODS.get(name), total - found.total + found.kept
    assert found.within(given)
    if method.allocation.exact:
        assert kept <= target + 0.5
        if method.structure.name == "weights" or method.structure.pattern:
            assert kept == pytest.approx(target, abs=0.5)


def test_rows_that_hold_less_than_their_share_keep_it_and_the_others_make_up_for_it():
    net = nn.Linear(6, 3, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.arange(1.0, 19.0).reshape(3, 6))
    given = torch.ones(3, 6, dtype=torch.bool)
    given[1, 1:] = False
    options = {"batches": [(torch.ones(4, 6), None)], "prune_classifier": True}
    found = prune(net, "wanda", compression=2, masks=Masks({"weight": given}), **options)
    assert found["weight"].sum(1).tolist() == [4, 1, 4]
    assert found["weight"][0].tolist() == [False, False, True, True, True, True]


def test_what_is_gone_goes_before_inputs_that_are_always_zero():
    """Their weights cost nothing, and would take the places of those that are gone."""
    torch.manual_seed(0)
    net, x = nn.Linear(8, 4, bias=False), torch.randn(16, 8)
    x[:, :5] = 0
    given = torch.ones(4, 8, dtype=torch.bool)
    given[3] = False
    given[2, 5:] = False
    found = prune(
        net, "obc", compression=2, batches=[(x, None)], prune_classifier=True, masks=Masks({"weight": given})
    )
    assert found.kept == 16
    assert found.within(Masks({"weight": given}))


@pytest.mark.parametrize("name", ["channel_l1", "filter_l1", "kernel_magnitude", "magnitude@channel_l1"])
@pytest.mark.parametrize("target", [{"compression": 2.4}, {"speedup": 2.4}, {"compression": 1.1}])
def test_units_count_as_what_another_structure_has_left_of_them(name, target):
    """Else what earlier masks took of the units that stay would go on top of the target."""
    net = seeded(ConvNet)
    generator = torch.Generator().manual_seed(5)
    given = Masks(
        {
            n: torch.rand(p.shape, generator=generator) > 0.5
            for n, p in net.named_parameters()
            if p.dim() > 1 and not n.startswith("fc")
        }
    )
    found = prune(net, name, input_shape=SHAPE, masks=given, **target)
    before, size = measure_size(net, SHAPE, given), measure_size(net, SHAPE, found)
    asked = max(next(iter(target.values())), 1)
    reached = size.theoretical_speedup if "speedup" in target else size.compression
    already = before.theoretical_speedup if "speedup" in target else before.compression
    assert found.within(given)
    assert asked * 0.998 < reached < max(asked, already) * 1.4


def test_an_unreachable_target_is_told_with_what_is_gone_already():
    net = seeded(ConvNet)
    given = Masks({n: torch.rand(p.shape) > 0.5 for n, p in net.named_parameters() if p.dim() == 4})
    with pytest.raises(CannotMeetTargetError) as refused:
        prune(net, "channel_l1", input_shape=SHAPE, masks=given, compression=1000)
    total = sum(p.numel() for p in net.parameters())
    least = refused.value.least
    found = prune(net, "channel_l1", input_shape=SHAPE, masks=given, compression=total / least)
    assert total - found.total + found.kept == least
