"""Discrimination-aware pruning: the joint loss and the greedy choice by hand, stages, what is left behind."""

import copy

import pytest
import torch
from sample_networks import as_drawn
from torch import nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.inputs import split_batch
from shrinkbench.pruning import METHODS, prune, training_hook
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.methods.discrimination_aware import Classifier, joint_loss, stages, take_up
from shrinkbench.pruning.prunable import prunable_names
from shrinkbench.pruning.structures.channels import Reader

SHAPE, STEPS, EPOCHS = (2, 6, 6), 3, 2


def network():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 5, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )


def batches(count=2, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(8, *SHAPE, generator=generator), torch.randint(0, 3, (8,), generator=generator))
        for _ in range(count)
    ]


def hook_of(module, method="discrimination_aware", compression=1.5):
    return training_hook(
        module,
        method,
        compression=compression,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        seed=0,
        input_shape=SHAPE,
        batches=lambda generator: batches(4, int(torch.randint(1000, (1,), generator=generator))),
    )


def one_step(module, hook, step, rate=0.05):
    module.train()
    hook.before_step(step)
    inputs, labels = batches(1, step)[0]
    F.cross_entropy(module(inputs), labels).backward()
    hook.after_backward(step)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter -= rate * parameter.grad
            parameter.grad = None
    hook.after_step(step)


def test_the_loss_is_the_error_of_the_outputs_and_that_of_the_classifier():
    module = as_drawn(network).eval()
    ctx = PruneContext(module, prunable_names(module, input_shape=SHAPE), input_shape=SHAPE)
    inputs, labels = batches()[0]
    weight = module[3].weight.detach() * torch.tensor([1.0, 0, 1, 0, 0, 1])[None, :, None, None]
    generator = torch.Generator().manual_seed(1)
    gain, shift, offset = (torch.randn(n, generator=generator) for n in (5, 5, 3))
    classes = torch.randn(3, 5, generator=generator)
    found = joint_loss(
        ctx,
        Reader("3.weight", torch.arange(6)),
        {"3.weight": weight},
        split_batch((inputs, labels)),
        Classifier("5", gain, shift, classes, offset),
    )
    maps = module[:3](inputs)
    before, now = module[3](maps), F.conv2d(maps, weight, module[3].bias, padding=1)
    behind = module[5](now.relu())
    normal = F.batch_norm(behind, None, None, gain, shift, training=True)
    logits = normal.relu().mean((2, 3)) @ classes.T + offset
    chances = logits.softmax(1)[torch.arange(8), labels]
    expected = (before - now).square().sum() / (2 * before.numel()) - chances.log().mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_inputs_come_in_by_the_norm_of_their_gradient():
    """Three of eight units, one by one: each choice and each step of descent written out."""
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    data = [
        (torch.randn(6, 3, generator=torch.Generator().manual_seed(n)).double(), torch.arange(6) % 2)
        for n in (1, 2)
    ]
    names = prunable_names(module, input_shape=(3,))
    ctx = PruneContext(module, names, input_shape=(3,), batches=data, batch_count=2)
    kept, new = take_up(ctx, Reader("2.weight", torch.arange(8)), 3, {}, None)
    weight, taken, now = module[2].weight.detach(), [], torch.zeros(4, 8).double()

    def slope(now, inputs, labels):
        leaf = now.clone().requires_grad_()
        hidden = module[:2](inputs).detach()
        outputs = hidden @ leaf.T + module[2].bias.detach()
        wanted = hidden @ weight.T + module[2].bias.detach()
        error = (outputs - wanted).square().mean() / 2
        logits = outputs.relu() @ module[4].weight.detach().T + module[4].bias.detach()
        return torch.autograd.grad(error + F.cross_entropy(logits, labels), leaf)[0]

    for _ in range(3):
        norms = sum(slope(now, *batch) for batch in data).norm(dim=0)
        norms[taken] = -1
        taken.append(int(norms.argmax()))
        now[:, taken[-1]] = weight[:, taken[-1]]
        for batch in data:
            step = slope(now, *batch)
            now[:, taken] -= 0.01 * step[:, taken]
    assert kept.tolist() == sorted(taken)
    torch.testing.assert_close(new, now)


def test_readers_are_shared_among_up_to_four_stages():
    chosen = [Reader(f"{n}.weight", torch.arange(2)) for n in range(10)]
    assert [len(stage) for stage in stages(chosen)] == [2, 3, 2, 3]
    assert [len(stage) for stage in stages(chosen[:3])] == [1, 1, 1]
    assert [reader for stage in stages(chosen) for reader in stage] == chosen


def test_training_adds_the_gradients_of_the_classifiers_loss():
    module = as_drawn(network).train()
    hook = hook_of(module)
    assert hook._ends == ["3"]  # two layers read channels alone; the second stage has the final loss
    before = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        hook.of("classes", "3").normal_(generator=torch.Generator().manual_seed(0))
    inputs, labels = hook._batch(1)
    classes = hook.of("classes", "3").detach().clone()
    hook.before_step(1)
    hook.after_backward(1)
    norm = module[1]
    normal = F.batch_norm(module[0](inputs), None, None, norm.weight, norm.bias, training=True)
    maps = module[3](module[2](normal))
    features = F.batch_norm(maps, None, None, training=True).relu().mean((2, 3))
    loss = F.cross_entropy(features @ classes.T, labels)
    wanted = [module[0].weight, module[1].weight, module[3].weight]
    for parameter, gradient in zip(wanted, torch.autograd.grad(loss, wanted), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    assert module[5].weight.grad is None  # it lies behind
    assert not torch.equal(hook.of("classes", "3"), classes)
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())  # statistics, too


def test_stages_are_pruned_one_after_another():
    module = as_drawn(network)
    hook = hook_of(module)
    counts = []
    for step in range(1, STEPS * EPOCHS + 1):
        one_step(module, hook, step)
        counts.append([int(hook.masks[f"{n}.weight"].flatten(1).any(1).sum()) for n in (0, 3)])
    first, second = counts[3]
    assert counts[:2] == [[6, 8]] * 2
    assert counts[2:5] == [[first, 8]] * 3
    assert first < 6
    assert counts[5][0] == first
    assert counts[5][1] < 8
    assert second == 8
    assert hook.settled
    assert not hook.masks.new_weights  # nobody writes back what training has moved since
    assert hook.beside == ()
    total = sum(p.numel() for p in module.parameters())
    removed = hook.masks.total - hook.masks.kept
    assert total - removed <= total / 1.5 < total - removed + 80
    assert not METHODS.get("discrimination_aware").in_one_step


def test_a_training_stopped_and_taken_up_goes_on_bit_for_bit():
    whole, first, second = (as_drawn(network) for _ in range(3))
    one, two = hook_of(whole), hook_of(first)
    for step in range(1, 7):
        one_step(whole, one, step)
    for step in range(1, 5):
        one_step(first, two, step)
    three = hook_of(second)
    three.load_state_dict(copy.deepcopy(two.state_dict()))
    second.load_state_dict(first.state_dict())
    for step in (5, 6):
        one_step(second, three, step)
    assert one.masks.equal(three.masks)
    assert all(torch.equal(t, whole.state_dict()[n]) for n, t in second.state_dict().items())


def test_targets_that_are_no_labels_are_refused():
    numbers = Classifier("5", torch.ones(5), torch.zeros(5), torch.zeros(3, 5), torch.zeros(3))
    with pytest.raises(ShrinkbenchError, match="not labels, one for each example; choose another method"):
        numbers.loss(torch.randn(4, 5, 2, 2), torch.randn(4, 3), last=False)


def test_networks_without_chained_channels_are_refused_before_the_training():
    module = nn.Sequential(nn.Conv2d(2, 3, 6), nn.Flatten(), nn.Linear(3, 3))
    with pytest.raises(ShrinkbenchError, match="read by one; choose a method of structure 'channels'"):
        hook_of(module, compression=1.1)


def test_networks_keep_what_tells_classes_apart():
    """One channel alone carries the label; the strongest filters do not."""
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        for layer in (module[0], module[2]):
            layer.bias.zero_()
            layer.weight.copy_(torch.diag(torch.tensor([0.3, 3.0, 3.0, 3.0])))
        module[4].weight.copy_(torch.tensor([[9.0, 0, 0, 0], [-9.0, 0, 0, 0]]))
        module[4].bias.copy_(torch.tensor([-0.5, 0.5]))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(64, 4, generator=generator)
    inputs[:, 1:] *= 0.05
    labels = (inputs[:, 0] < 0.6).long()
    masks = prune(
        module,
        "discrimination_aware",
        compression=1.6,
        batches=[(inputs, labels)],
        input_shape=(4,),
        one_shot=True,
    )
    assert masks["0.weight"][0].all()
