"""Schedules that let pruned weights come back: feedback, surgery, Top-KAST, AC/DC, MEST, GraNet."""

import itertools
import math

import pytest
import torch
from torch import nn

from shrinkbench.pruning import METHODS, training_hook
from shrinkbench.pruning.schedules.gradual import cubic_density

STEPS, EPOCHS = 10, 4


def linear(*, seed=0, outputs=6):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, outputs, bias=False))


def hook_of(method, module, compression=2.0, *, epochs=EPOCHS, steps_per_epoch=STEPS):
    return training_hook(
        module,
        method,
        compression=compression,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        seed=0,
        input_shape=(5,),
        prune_classifier=True,
    )


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS * EPOCHS):
        yield torch.randn(16, 5, generator=generator), torch.randint(0, 6, (16,), generator=generator)


def follow(method, module, optimizer, watch=lambda *_: None, compression=2.0):
    """A plain training loop; ``watch(step, hook)`` is called after each step."""
    hook = hook_of(method, module, compression)
    hook.start(optimizer)
    for step, (inputs, labels) in enumerate(batches(), start=1):
        hook.before_step(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), labels).backward()
        hook.after_backward(step)
        optimizer.step()
        hook.after_step(step)
        watch(step, hook)
        if step % STEPS == 0:
            hook.after_epoch(step // STEPS)
    return hook


def density_of(hook):
    return sum(int(m.sum()) for m in hook.masks.values()) / sum(m.numel() for m in hook.masks.values())


def zeros_hold(module, hook):
    return all(not p.detach()[~hook.masks[name]].any() for name, p in module.named_parameters())


def test_feedback_equals_the_papers_rule_written_out():
    """``w <- w - eta * g(m * w)``, masks the top of ``|w|`` over the whole network, decided after each step."""
    module, twin, rate = linear(), linear(), 0.5
    dense = {name: p.detach().clone() for name, p in twin.named_parameters()}
    total = sum(w.numel() for w in dense.values())
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in dense.items()}
    kept = []
    for step, (inputs, labels) in enumerate(batches(), start=1):
        for name, p in twin.named_parameters():
            p.data = dense[name] * masks[name]
        twin.zero_grad()
        nn.functional.cross_entropy(twin(inputs), labels).backward()
        dense = {name: dense[name] - rate * p.grad for name, p in twin.named_parameters()}
        budget = math.floor(total * cubic_density(step / (STEPS * EPOCHS // 2), 0.5) + 0.5)
        flat = torch.cat([w.abs().flatten() for w in dense.values()])
        least = flat.sort(descending=True).values[budget - 1]
        masks = {name: w.abs() >= least for name, w in dense.items()}
        kept.append(budget)
    seen = []
    hook = follow(
        "dynamic_pruning_with_feedback",
        module,
        torch.optim.SGD(module.parameters(), lr=rate),
        lambda step, hook: seen.append(sum(int(m.sum()) for m in hook.masks.values())),
    )
    assert all(abs(a - b) <= 1 for a, b in zip(seen, kept, strict=True))  # halves are rounded either way
    assert seen[-1] == kept[-1]
    for name, p in module.named_parameters():
        assert torch.equal(hook.masks[name], masks[name])
        torch.testing.assert_close(p.detach(), dense[name] * masks[name])


def test_what_surgery_keeps_holds_on_within_a_margin():
    module = linear()
    hook = hook_of("dynamic_network_surgery", module, 2.0)
    weight = dict(module.named_parameters())["0.weight"]
    with torch.no_grad():  # 20 of 40 stay: 19 large ones, and of 1.0 and 1.1 the one that was kept
        flat = torch.full((40,), 0.1)
        flat[:19], flat[19], flat[20] = 3.0, 1.0, 1.1
        weight.copy_(flat.reshape(8, 5))
        for other in list(module.parameters())[1:]:
            other.fill_(1.0)
    hook.before_step(1)
    held = torch.zeros(40, dtype=torch.bool)
    held[:20] = True
    hook.masks = type(hook.masks)({**dict(hook.masks), "0.weight": held.reshape(8, 5)})
    end = STEPS * EPOCHS // 2
    hook.after_step(end)
    assert bool(hook.masks["0.weight"].flatten()[19])
    assert not bool(hook.masks["0.weight"].flatten()[20])
    with torch.no_grad():
        weight.view(-1)[19], weight.view(-1)[20] = 1.0, 1.3  # past 1.1 / 0.9 of it
    hook._dense["0.weight"].copy_(weight)
    hook.after_step(end)
    assert not bool(hook.masks["0.weight"].flatten()[19])
    assert bool(hook.masks["0.weight"].flatten()[20])


@pytest.mark.parametrize(
    "method",
    ["dynamic_pruning_with_feedback", "dynamic_network_surgery", "top_kast", "ac_dc", "mest", "granet"],
)
@pytest.mark.parametrize("compression", [1.5, 4.0])
def test_the_target_is_met_and_what_is_masked_is_zero(method, compression):
    module = linear()
    hook = follow(method, module, torch.optim.Adam(module.parameters(), lr=0.01), compression=compression)
    total = sum(p.numel() for p in module.parameters())
    assert abs(sum(int(m.sum()) for m in hook.masks.values()) - total / compression) <= 0.5
    assert zeros_hold(module, hook)
    assert hook.settled


@pytest.mark.parametrize("method", ["dynamic_pruning_with_feedback", "dynamic_network_surgery", "top_kast"])
def test_pruned_weights_come_back(method):
    module, seen = linear(), []
    follow(
        method,
        module,
        torch.optim.SGD(module.parameters(), lr=0.5),
        lambda step, hook: seen.append({n: m.clone() for n, m in hook.masks.items()}),
    )
    late = seen[STEPS * EPOCHS // 2 :]
    assert any(bool((b[n] & ~a[n]).any()) for a, b in itertools.pairwise(late) for n in a)


def test_top_kast_moves_no_weight_that_the_backward_pass_does_not_reach():
    module = linear()
    before, moved = {}, []

    def watch(step, hook):
        for name, dense in hook._dense.items():
            if name in before:
                old, reached = before[name]
                assert torch.equal(dense[~reached], old[~reached])
                moved.append(bool((dense[reached] != old[reached]).any()))
            before[name] = (dense.clone(), hook._reached[name].clone())
            assert bool((hook._reached[name] | ~hook.masks[name]).all())
        sizes = [sum(int(m.sum()) for m in masks.values()) for masks in (hook.masks, hook._reached)]
        assert sizes == [22, 44]  # a quarter of 88 weights, and twice that

    follow("top_kast", module, torch.optim.SGD(module.parameters(), lr=0.1), watch, compression=4.0)
    assert any(moved)


def test_alternating_phases_are_dense_and_compressed_in_turn():
    module, densities = linear(), []
    hook = follow(
        "ac_dc",
        module,
        torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9),
        lambda step, hook: densities.append(density_of(hook)),
    )
    # Of 40 steps: dense until 4, then every 2 steps in turn, compressed from 32 on.
    expected = [hook.phase_after(step) for step in range(1, 41)]
    assert expected[:3] == [-1] * 3
    assert expected[3] == 0
    assert expected[31:] == [14] * 9
    assert [d == 0.5 for d in densities] == [phase % 2 == 0 for phase in expected]
    assert 1.0 in densities[4:31]


@pytest.mark.parametrize("steps", [20, 24, 28, 34, 46, 1400])
def test_alternating_phases_are_of_one_length_whatever_the_steps(steps):
    hook = hook_of("ac_dc", linear(), epochs=1, steps_per_epoch=steps)
    first, last = max(steps // 10, 1), max(steps * 4 // 5, 1)
    for step in range(1, steps + 1):
        expected = -1 if step < first else 14 if step >= last else min((step - first) * 20 // steps, 13)
        assert hook.phase_after(step) == expected


def test_elastic_mutation_drops_by_weight_and_gradient_ever_less():
    module = linear()
    hook = hook_of("mest", module)
    parameter = module[0].weight
    for p in module.parameters():
        p.grad = torch.full_like(p, 2.0)
    hook.after_backward(STEPS)
    for p in module.parameters():
        p.grad = None
    assert torch.equal(hook.worth("0.weight", parameter), parameter.detach().abs() + 0.02)
    assert [round(hook.fraction(epoch), 4) for epoch in range(EPOCHS + 1)] == [0.3, 0.2561, 0.15, 0.0439, 0.0]


def test_granet_falls_cubically_from_half_density():
    module, densities = linear(), []
    follow(
        "granet",
        module,
        torch.optim.SGD(module.parameters(), lr=0.1),
        lambda step, hook: densities.append(density_of(hook)),
        compression=4.0,
    )
    first = hook_of("granet", linear(), 4.0)
    assert density_of(first) == 0.5
    for name, p in first.setting.module.named_parameters():  # what is kept has its initial value, not zero
        assert torch.equal(p != 0, first.masks[name])
    end = int(0.75 * STEPS * EPOCHS)
    for step, density in enumerate(densities, start=1):
        wanted = 0.5 * cubic_density(min(step / end, 1), 0.5)
        assert abs(density - wanted) <= 0.5 / 88 + 1e-9, step
    assert METHODS.get("granet").spec.schedule.parameters["fraction"] == 0.5


@pytest.mark.parametrize(("epochs", "every"), [(1, 1), (4, 2), (20, 10), (400, 100)])
def test_top_kast_decides_every_hundred_steps_or_twenty_times(epochs, every, monkeypatch):
    module = linear()
    hook = training_hook(
        module,
        "top_kast",
        compression=4.0,
        epochs=epochs,
        steps_per_epoch=STEPS,
        seed=0,
        input_shape=(5,),
        prune_classifier=True,
    )
    decided = []
    decide = type(hook)._decide

    def noting(self, step):
        decided.append(step)
        decide(self, step)

    monkeypatch.setattr(type(hook), "_decide", noting)
    for now in range(1, 2 * every + 1):
        hook.before_step(now)
        hook.after_backward(now)
        hook.after_step(now)
    assert decided == [every, 2 * every]
