"""Networks of fourteen kinds times four methods: budgets are met, zeros lie where masks say, cuts are right."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from network_table import KINDS
from sampling import crossed

from shrinkbench import measure_size, prune, shrink
from shrinkbench.errors import CannotMeetTargetError
from shrinkbench.network.inputs import split_batch
from shrinkbench.network.probe import floating_leaves

METHODS = {"global_magnitude": 1.4, "global_gradient": 1.4, "wanda": 1.4, "channel_l1": 1.15}
SLOW = {"efficientnet", "mobilevit"}  # minutes with Wanda, which goes layer by layer


def pruned(kind, method):
    """Masks at the method's target or, where weights that cannot go leave less, at the largest there is."""
    options = {"batches": kind.batches, "loss": kind.loss}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return prune(kind.network, method, compression=METHODS[method], **options), METHODS[method]
        except CannotMeetTargetError as error:
            largest = error.largest
        return prune(kind.network, method, compression=largest, **options), largest


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *crossed([name for name in KINDS if name not in SLOW], METHODS, every=2),
        *(pytest.param(name, method, marks=pytest.mark.slow) for name in SLOW for method in METHODS),
    ],
)
def test_every_kind_of_network_is_pruned(name, method):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind = KINDS[name]()
    kind.network.eval()
    before = copy.deepcopy(kind.network.state_dict())
    masks, target = pruned(kind, method)
    assert target > 1.1
    assert all(torch.equal(t, before[n]) for n, t in kind.network.state_dict().items())
    example = split_batch(kind.batches[0]).inputs
    size = measure_size(kind.network, example_inputs=example, masks=masks)
    total = sum(p.numel() for p in kind.network.parameters())
    if method == "channel_l1":
        assert size.compression >= target
    else:
        assert abs(size.parameters_kept - total / target) <= 0.5
    masked = copy.deepcopy(kind.network)
    masks.apply(masked)
    weights = dict(masked.named_parameters())
    assert all(not bool(weights[name][~mask].any()) for name, mask in masks.items())
    if method != "channel_l1":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = shrink(kind.network, masks, example_inputs=example)
    assert sum(p.numel() for p in small.parameters()) == size.parameters_kept
    with torch.no_grad():
        for batch in kind.batches:
            outputs = [floating_leaves(split_batch(batch).inputs.call(net.eval())) for net in (masked, small)]
            for one, two in zip(*outputs, strict=True):
                assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)
