"""The group lasso: its subgradient, and what it does to whole channels."""

import torch
from torch import nn

from shrinkbench.pruning import training_hook


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(16, 2)
        )


def hook_of(module, epochs=1):
    return training_hook(
        module,
        "group_lasso",
        compression=1.3,
        epochs=epochs,
        steps_per_epoch=2,
        seed=0,
        input_shape=(1, 6, 6),
    )


def test_the_subgradient_is_that_of_the_norms():
    module = network()
    hook = hook_of(module)
    weight = module[0].weight
    norms = weight.flatten(1).norm(dim=1).sum() + weight.transpose(0, 1).flatten(1).norm(dim=1).sum()
    (expected,) = torch.autograd.grad(5e-4 * norms, weight)
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    hook.after_backward(1)
    torch.testing.assert_close(weight.grad, expected)
    assert not module[2].bias.grad.any()


def test_an_empty_filter_gets_no_push():
    module = network()
    hook = hook_of(module)
    with torch.no_grad():
        module[0].weight[2] = 0
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    hook.after_backward(1)
    assert torch.isfinite(module[0].weight.grad).all()
    assert not module[0].weight.grad[2].any()


def test_whole_channels_go_after_the_last_epoch():
    module = network()
    hook = hook_of(module, epochs=2)
    hook.after_epoch(1)
    assert not hook.settled
    hook.after_epoch(2)
    assert hook.settled
    lost = 0
    for name in ("0.weight", "2.weight"):
        rows = (
            hook.masks[name].any(dim=1).flatten(1) if name in hook.masks else torch.ones(1, 1, dtype=torch.bool)
        )
        assert bool((rows.all(1) | ~rows.any(1)).all())
        lost += int((~rows.any(1)).sum())
    assert lost
