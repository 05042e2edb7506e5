"""Nothing is on the wrong device: the walk on a device that refuses what a GPU refuses."""

import device_walk
import numpy as np
import other_device
import pytest
import torch
from other_device import OTHER, WrongDevice
from torch import nn
from torch.nn import functional as F

QUICK = {
    "global_magnitude",
    "channel_l1",
    "rigl",
    "evaluate_tasks",
    "train_smaller",
    "use_masks_of_a_file",
    "equal computation",
}


def some_now(names, quick):
    """All of ``names``; those that are not ``quick`` are left to the slow runs."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(autouse=True)
def _device(monkeypatch):
    other_device.install()
    # Forward over reverse mode ends the process where a device is made of Python; reverse twice is the same.
    monkeypatch.setattr(torch.func, "hessian", lambda f: torch.func.jacrev(torch.func.jacrev(f)))
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda *a: None)
    make = torch.tensor  # it reaches past whatever is made of Python
    monkeypatch.setattr(torch, "tensor", lambda *a, device=None, **k: make(*a, **k).to(device))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x + torch.ones(3, 4),
        lambda x: torch.cat([x, torch.ones(1, 4)]),
        lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
        lambda x: x.masked_fill_(torch.ones(3, 4, dtype=torch.bool), 0),
        lambda x: torch.ones(3)[torch.arange(2, device=OTHER)],
        lambda x: x.index_fill_(0, torch.tensor([1]), 0),
        lambda x: x.index_add_(0, torch.tensor([1]), x[:1]),
        lambda x: nn.Linear(4, 2)(x),
        lambda x: F.cross_entropy(x, torch.zeros(3, dtype=torch.int64)),
        lambda x: torch.equal(x, torch.zeros(3, 4)),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
        lambda x: torch.rand(3, device=OTHER, generator=torch.Generator()),
        lambda x: torch.randperm(3, device=OTHER),
        lambda x: torch.rand_like(x),
        lambda x: torch._foreach_mul_([x], [torch.ones(3, 4)]),
        lambda x: x.__setitem__(0, torch.ones(4)) or x.add_(torch.ones(4)),
    ],
)
def test_what_a_gpu_refuses_is_refused(wrong):
    with pytest.raises(WrongDevice):
        wrong(torch.zeros(3, 4, device=OTHER))


def test_what_a_gpu_takes_is_taken():
    x = torch.zeros(3, 4, device=OTHER)
    x[torch.arange(2)] = 1.0
    x[0] = torch.ones(4)
    x.copy_(torch.ones(3, 4))
    assert float((x * torch.tensor(2.0)).sum()) == 24
    assert x[torch.tensor([True, False, True])].shape == (2, 4)
    assert x.cpu().numpy().shape == (3, 4)
    assert torch.where(x > 0, x, torch.tensor(0.0)).device.type == OTHER


@pytest.mark.parametrize("name", some_now(device_walk.OWN, QUICK))
def test_masks_are_those_of_the_cpu(name):
    there, here = device_walk.decide(name, OTHER), device_walk.decide(name, "cpu")
    assert there.keys() == here.keys()
    for kind, masks in here.items():
        if isinstance(masks, str):
            assert there[kind] == masks
        else:
            assert all(torch.equal(there[kind][n].cpu(), mask) for n, mask in masks.items())


@pytest.mark.parametrize("name", some_now(device_walk.DURING, QUICK))
def test_a_training_that_prunes_goes_on_on_another_device(name, tmp_path):
    device_walk.train_and_resume(name, OTHER, tmp_path)


@pytest.mark.parametrize("optimizer", some_now(["sgd", "adam", "adamw"], {"adam"}))
def test_fine_tuning_goes_on_on_another_device(optimizer, tmp_path):
    device_walk.fine_tune(OTHER, tmp_path, optimizer=optimizer)


@pytest.mark.parametrize("step", some_now(device_walk.STEPS_OF_WALK, QUICK))
def test_step(step, tmp_path):
    device_walk.STEPS_OF_WALK[step](OTHER, tmp_path)


@pytest.mark.parametrize("name", some_now(device_walk.RUNS, QUICK))
def test_run(name, tmp_path):
    device_walk.carry_out(device_walk.RUNS[name], OTHER, tmp_path)
