"""The law on networks of a user's own: cut right, or left whole and named, or refused in a sentence."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from made_networks import OWN, make_kind
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.metrics import count_parameters, measure_size
from shrinkbench.network.coupling import LeftWholeWarning
from shrinkbench.network.probe import classifier_weights, floating_leaves
from shrinkbench.pruning import prune
from shrinkbench.pruning.prunable import UnreadWarning
from shrinkbench.surgery.shrinking import shrink

# What torch-pruning takes for something else than it is: the layer that has to stay whole.
MISREAD = {
    **dict.fromkeys(("flip", "roll", "gather", "sort", "softmax-over-channels", "channel-shuffle"), "a"),
    **dict.fromkeys(("maxout", "sum-over-groups", "channels-swapped-with-rows"), "a"),
    "mean-over-channels-taken-off": "a",
    "permute-and-flatten": "conv",
    "linear-over-pixels": "conv",
    "gate-at-zero": "b",
    "layer-scale-of-zeros": "b",
    "last-batch-norm-of-zeros": "b",
    "branch-that-is-switched-off": "b",
    "saturated": "net.a",
    "two-heads": "hidden",
    "auxiliary-head": "a",
}
# Networks of which other layers are cut all the same.
RIGHT = {
    *("sigmoid", "two-towers", "u-net", "squeeze-and-excite", "siamese", "feature-pyramid", "swiglu"),
    *("lstm", "gru", "grouped-query-attention", "token-mixing", "auxiliary-head", "two-heads"),
    *("chunk-gate", "functional-glu", "group-norm"),
}


def opened(module: nn.Module) -> nn.Module:
    """The module with gates that are not zero, so that the outputs show every branch."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            if bool((parameter == 0).all()):
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return module


def leaves(module: nn.Module, shape: tuple[int, ...]) -> list[torch.Tensor]:
    inputs = torch.randn((3, *shape), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    with torch.no_grad():
        return floating_leaves(module(inputs))


def prune_within_reach(module, method, shape, compression=2.0):
    """Masks at ``compression``, or at the largest possible one, which the refusal names."""
    try:
        return prune(module, method, compression=compression, input_shape=shape)
    except CannotMeetTargetError as error:
        largest = float(re.search(r"the largest possible target is ([\d.]+)$", str(error))[1])
    return prune(module, method, compression=largest, input_shape=shape)


@pytest.mark.parametrize("name", OWN)
def test_every_output_of_the_small_network_is_the_masked_one_s(name):
    module, shape = make_kind(name)
    module = opened(module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            masks = prune_within_reach(make_kind(name)[0], "channel_l1", shape)
        except ShrinkbenchError:
            masks = None
    assert masks is not None or name not in RIGHT
    named = [str(w.message) for w in caught if issubclass(w.category, LeftWholeWarning)]
    if name in MISREAD:
        assert any(f"'{MISREAD[name]}'" in sentence for sentence in named), named
    if masks is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = shrink(module, masks, shape)
    masks.apply(module)
    for one, other in zip(leaves(module.double(), shape), leaves(small.double(), shape), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9 * float(one.abs().max()))
    assert count_parameters(small) == measure_size(module, shape, masks).parameters_kept
    small.train()(torch.randn((3, *shape), dtype=torch.float64))  # training runs too


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_what_is_unreadable_stops_no_other_group(name):
    module, shape = make_kind(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masks = prune_within_reach(module, "channel_l1", shape)
    assert masks.kept < masks.total


def test_each_output_has_a_classifier():
    module, shape = make_kind("two-heads")
    assert {"a.weight", "b.weight"} <= classifier_weights(module, shape)
    module, shape = make_kind("feature-pyramid")
    assert {"l2.weight", "l3.weight"} <= classifier_weights(module, shape)


def test_parameters_that_no_evaluation_reads_are_named():
    module, shape = make_kind("auxiliary-head")
    with pytest.warns(UnreadWarning, match="never reads 'aux.weight', 'aux_fc.weight'"):
        prune(module, "global_magnitude", compression=2, input_shape=shape)
