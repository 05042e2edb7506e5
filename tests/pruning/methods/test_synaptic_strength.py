"""Strengths of kernels and their penalty, by hand."""

import itertools

import numpy as np
import pytest
import torch
from sample_networks import as_drawn
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, prune, training_hook


def fed_by_norms():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def hook_of(module, compression=1.3):
    return training_hook(
        module,
        "synaptic_strength",
        compression=compression,
        epochs=2,
        steps_per_epoch=2,
        seed=0,
        input_shape=(1, 5, 5),
    )


def test_the_strength_of_a_kernel_is_its_norm_times_the_scale_in_front_of_it():
    module = as_drawn(fed_by_norms)
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([2.0, -0.5, 0.0]))
    weight, first = module[3].weight.detach().numpy(), module[0].weight.detach().numpy()
    strengths = np.zeros((4, 3))
    for k, i in itertools.product(range(4), range(3)):
        strengths[k, i] = [2.0, 0.5, 0.0][i] * np.sqrt((weight[k, i] ** 2).sum())
    own = np.sqrt((first**2).sum((2, 3)))  # nothing but the image feeds the first layer
    flat = np.concatenate([own.ravel(), strengths.ravel()])
    masks = prune(module, "synaptic_strength", compression=1.4, input_shape=(1, 5, 5), one_shot=True)
    kept = np.concatenate([masks[f"{n}.weight"].numpy()[:, :, 0, 0].ravel() for n in (0, 3)])
    gone = int((~kept).sum())
    assert gone == 5  # 45 of 158 parameters go at 1.4
    assert set(np.flatnonzero(~kept)) == set(np.argsort(flat, kind="stable")[:gone])


def test_the_penalty_is_that_of_the_products():
    module = as_drawn(fed_by_norms)
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([2.0, -0.5, 0.7]))
        module[3].weight[1, 2] = 0
    hook = hook_of(module)
    weight, scale = (p.detach().double().requires_grad_() for p in (module[3].weight, module[1].weight))
    squares = weight.square().sum((2, 3))
    present = squares > 0
    (scale.abs() * torch.where(present, torch.where(present, squares, 1).sqrt(), 0)).sum().mul(1e-4).backward()
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    hook.after_backward(1)
    torch.testing.assert_close(module[3].weight.grad.double(), weight.grad, rtol=1e-5, atol=1e-10)
    torch.testing.assert_close(module[1].weight.grad.double(), scale.grad, rtol=1e-5, atol=1e-10)
    assert not module[0].weight.grad.any()
    assert not module[7].weight.grad.any()


def test_kernels_go_after_the_last_epoch_and_not_before():
    module = as_drawn(fed_by_norms)
    hook = hook_of(module)
    hook.after_epoch(1)
    assert not hook.settled
    hook.after_epoch(2)
    assert hook.settled
    kernels = hook.masks["3.weight"].flatten(2)
    assert torch.equal(kernels.any(2), kernels.all(2))
    assert not METHODS.get("synaptic_strength").in_one_step


def test_networks_whose_convolutions_no_norm_feeds_are_refused():
    plain = as_drawn(lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)))
    with pytest.raises(ShrinkbenchError, match="choose a network with batch norm or another method"):
        prune(plain, "synaptic_strength", compression=1.1, input_shape=(1, 5, 5), one_shot=True)
