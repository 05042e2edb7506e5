"""Deciding masks leaves a network and the random state exactly as they were."""

from types import MethodType

import pytest
import torch
from sample_networks import ConvNet, Odd, ViT, batches, seeded

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import prune

METHODS = ("global_magnitude", "layerwise_magnitude", "global_gradient", "layerwise_gradient", "random")


def photograph(module):
    """Everything about a module that scoring could change, in comparable form."""
    return {
        "tensors": {n: t.clone() for n, t in module.state_dict().items()},
        "modes": [child.training for child in module.modules()],
        "hooks": [
            (len(c._forward_hooks), len(c._forward_pre_hooks), len(c._backward_hooks)) for c in module.modules()
        ],
        "gradients": {n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()},
        "trainable": {n: p.requires_grad for n, p in module.named_parameters()},
        "identity": {n: (id(p), p.data_ptr(), p._version) for n, p in module.named_parameters()},
        "random": torch.get_rng_state().clone(),
        "grad mode": torch.is_grad_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


@pytest.mark.parametrize("network", [ConvNet, ViT, Odd])
@pytest.mark.parametrize("method", METHODS)
def test_scoring_leaves_no_trace(method, network):
    module = seeded(network)
    data = batches()
    module.train()
    list(module.children())[-1].eval()  # mixed modes
    module(data[0][0]).sum().backward()  # gradients of the user's own
    before = photograph(module)
    prune(module, method, compression=2, batches=data, one_shot=True)
    after = photograph(module)
    for aspect in before:
        assert same(before[aspect], after[aspect]), aspect


def test_an_error_while_scoring_leaves_no_trace_either():
    module = seeded(ConvNet)
    before = photograph(module)
    with pytest.raises(ShrinkbenchError, match="the loss does not take outputs float32 2x4"):
        prune(
            module, "global_gradient", compression=2, batches=[(torch.zeros(2, 3, 8, 8), torch.tensor([0, 9]))]
        )
    after = photograph(module)
    assert all(same(before[aspect], after[aspect]) for aspect in before)


def in_autocast(module):
    """As Accelerate, and with it Hugging Face's Trainer, prepares a network for bf16."""
    module._original_forward = module.forward
    module.forward = MethodType(torch.autocast("cpu", torch.bfloat16)(module.forward.__func__), module)
    return module


@pytest.mark.parametrize("method", ["snip", "global_gradient", "wanda"])
def test_scores_are_of_the_precision_of_the_weights(method):
    """Those of a training in bf16 were of 8 bits of mantissa, and by them other weights stayed."""
    network, data = seeded(ConvNet), {"compression": 4, "batches": batches(2)}
    expected = prune(network, method, **data)
    with torch.autocast("cpu", torch.bfloat16):
        assert prune(network, method, **data).equal(expected)
        assert network(batches(1)[0][0]).dtype == torch.bfloat16
    prepared = in_autocast(seeded(ConvNet))
    assert prune(prepared, method, **data).equal(expected)
    assert prepared(batches(1)[0][0]).dtype == torch.bfloat16
