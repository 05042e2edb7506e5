"""Trained thresholds and gates, SR-STE and ITOP: one step by hand, the target, and going on."""

import copy
import itertools

import pytest
import torch
from test_dense_beneath import EPOCHS, STEPS, batches, density_of, follow, hook_of, linear, zeros_hold
from torch import nn

from shrinkbench.pruning import METHODS, prune
from shrinkbench.pruning.schedules.gated import soft_top_k

GATED = ["soft_threshold_reparameterization", "continuous_sparsification", "spartan"]
ALL = [*GATED, "sr_ste", "set_itop", "rigl_itop"]


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("compression", [2.0, 4.0])
def test_the_target_is_met_and_what_is_masked_is_zero(method, compression):
    module = linear()
    hook = follow(method, module, torch.optim.SGD(module.parameters(), lr=0.2), compression=compression)
    total = sum(p.numel() for p in module.parameters())
    assert abs(sum(int(m.sum()) for m in hook.masks.values()) - total / compression) <= 0.5
    assert zeros_hold(module, hook)
    assert hook.settled


@pytest.mark.parametrize("method", ALL)
def test_training_goes_on_bit_for_bit(method):
    """Stopped after 15 of 40 steps and taken up by another hook, optimizer and network."""
    whole, module = linear(), linear()
    follow(method, whole, torch.optim.SGD(whole.parameters(), lr=0.2, momentum=0.9))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9)
    hook = hook_of(method, module)
    hook.start(optimizer)
    for step, (inputs, labels) in enumerate(batches(), start=1):
        if step == 16:
            state = copy.deepcopy((module.state_dict(), optimizer.state_dict(), hook.state_dict()))
            module = linear(seed=5)
            optimizer = torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9)
            hook = hook_of(method, module)
            module.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
            hook.start(optimizer)
            hook.load_state_dict(state[2])
        hook.before_step(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), labels).backward()
        hook.after_backward(step)
        optimizer.step()
        hook.after_step(step)
        if step % STEPS == 0:
            hook.after_epoch(step // STEPS)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), module.parameters(), strict=True))


@pytest.mark.parametrize("method", GATED)
def test_what_beneath_and_gates_are_given_is_the_derivative_of_what_computes(method):
    """Against autograd on the same expression; Spartan's hard top k lets gradients through."""
    module = linear()
    hook = hook_of(method, module)
    hook._step = 7
    if method.startswith("soft"):
        hook.gates = {name: torch.tensor(-2.0) for name in hook.gates}
    if method.startswith("cont"):
        hook.gates = {n: torch.linspace(-0.2, 0.2, g.numel()).view_as(g) for n, g in hook.gates.items()}
    leaves = {name: w.clone().requires_grad_() for name, w in hook._dense.items()}
    gates = {name: g.clone().requires_grad_() for name, g in hook.gates.items()}
    if method.startswith("soft"):
        passed = {n: w.sign() * (w.abs() - gates[n].sigmoid()).clamp(min=0) for n, w in leaves.items()}
    elif method.startswith("cont"):
        sharp = 200 ** (7 / 30)
        passed = {n: w * (sharp * gates[n]).sigmoid() for n, w in leaves.items()}
    else:
        total, sharp = 88, 1 + 9 * 7 / 30
        kept = round(total + 7 / 8 * (44 - total))
        flat = torch.cat([w.flatten() for w in leaves.values()]).double()
        mean = flat.detach().abs().mean()
        soft = soft_top_k(flat.detach().abs() / mean, kept, sharp)
        tau = (flat.detach().abs() / mean - (soft / (1 - soft)).log() / sharp).mean()
        # the implicit function: the sum of the masks stays
        slope = (soft * (1 - soft)).detach()
        moved = flat.abs() / mean
        shift = (slope * moved).sum() / slope.sum()
        masks = (sharp * (moved - tau - (shift - shift.detach()))).sigmoid()
        torch.testing.assert_close(masks, soft)
        split = (flat * masks).split([w.numel() for w in leaves.values()])
        passed = {n: part.view_as(w) for (n, w), part in zip(leaves.items(), split, strict=True)}
        top = torch.cat([w.abs().flatten() for w in hook._dense.values()]).topk(kept).values.min()
        for name, value in hook.passed().items():
            expected = passed[name].detach().float() * (hook._dense[name].abs() >= top)
            torch.testing.assert_close(value, expected)
    gradients = {n: torch.randn(w.shape, generator=torch.Generator().manual_seed(3)) for n, w in leaves.items()}
    sum((gradients[n] * value).sum() for n, value in passed.items()).backward()
    before = {name: g.clone() for name, g in hook.gates.items()}
    found = hook.learn(gradients)
    for name, leaf in leaves.items():
        torch.testing.assert_close(found[name], leaf.grad, rtol=2e-5, atol=1e-6)
    for name, gate in gates.items():
        moved = before[name] - 0.1 * gate.grad
        if method.startswith("soft"):  # 88 weights of a network at 2x: more pass than 44, so the pull is on
            many = sum(int((w.abs() > gates[n].sigmoid()).sum()) for n, w in leaves.items()) > 44
            moved = moved * torch.tensor(-6 / 30 if many else 0.0).exp()
        torch.testing.assert_close(hook.gates[name], moved, rtol=1e-4, atol=1e-5)


def test_soft_top_k_sums_to_k_and_rises_with_the_value():
    values = torch.tensor([0.1, 3.0, -1.0, 0.4, 0.39]).double()
    for count, sharpness in itertools.product((1, 2, 4), (0.5, 5.0, 50.0)):
        found = soft_top_k(values, count, sharpness)
        assert float(found.sum()) == pytest.approx(count, abs=1e-4)
        assert bool((found[values.argsort()].diff() >= 0).all())
    assert soft_top_k(values, 5, 1.0).tolist() == [1.0] * 5


def test_what_gates_rank_is_not_what_magnitude_ranks():
    for method in GATED[:2]:
        module = linear()
        hook = hook_of(method, module)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        hook.start(optimizer)
        for step, (inputs, labels) in enumerate(batches(), start=1):
            if step == 29 and method.startswith("soft"):  # layers whose thresholds have come apart
                hook.gates = {n: torch.tensor(-1.5 - 4.0 * i) for i, n in enumerate(hook.gates)}
            hook.before_step(step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs), labels).backward()
            hook.after_backward(step)
            optimizer.step()
            hook.after_step(step)
            if hook.settled:
                break
        assert step == 30  # three quarters of 40
        with torch.no_grad():
            for name, parameter in hook.setting.parameters.items():
                parameter.copy_(hook._dense[name])
        plain = prune(module, "global_magnitude", compression=2, input_shape=(5,), prune_classifier=True)
        assert not hook.masks.equal(plain), method


def test_sr_ste_equals_its_rule_written_out():
    """``w <- w - eta (g(m w) + 2e-4 (1 - m) w)``, two of four along the inputs, masks of the dense weights."""

    def network():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False))

    def masks_of(dense):
        runs = {n: w.abs().view(len(w), -1, 4) for n, w in dense.items()}
        return {n: (r >= r.topk(2, -1).values[..., 1:]).view(dense[n].shape) for n, r in runs.items()}

    from shrinkbench.pruning import training_hook

    module, twin, rate = network(), network(), 0.5
    dense = {name: p.detach().clone() for name, p in twin.named_parameters()}
    hook = training_hook(
        module,
        "sr_ste",
        compression=2,
        epochs=2,
        steps_per_epoch=STEPS,
        seed=0,
        input_shape=(8,),
        prune_classifier=True,
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 2 * STEPS + 1):
        inputs = torch.randn(16, 8, generator=generator)
        labels = torch.randint(0, 4, (16,), generator=generator)
        masks = masks_of(dense)
        for name, p in twin.named_parameters():
            p.data = dense[name] * masks[name]
        twin.zero_grad()
        nn.functional.cross_entropy(twin(inputs), labels).backward()
        dense = {
            name: dense[name] - rate * (p.grad + 2e-4 * ~masks[name] * dense[name])
            for name, p in twin.named_parameters()
        }
        hook.before_step(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), labels).backward()
        hook.after_backward(step)
        optimizer.step()
        hook.after_step(step)
        for name, mask in masks_of(dense).items():
            assert torch.equal(hook.masks[name], mask)
            torch.testing.assert_close(hook._dense[name], dense[name])


@pytest.mark.parametrize(("method", "moments"), [("rigl_itop", 9), ("set_itop", 9)])
def test_itop_exchanges_seldom_and_to_the_end(method, moments):
    module, changes, before = linear(), [], {}

    def watch(step, hook):
        assert density_of(hook) == 0.5
        if before and any(not torch.equal(before[n], m) for n, m in hook.masks.items()):
            changes.append(step)
        before.update({n: m.clone() for n, m in hook.masks.items()})

    follow(method, module, torch.optim.SGD(module.parameters(), lr=0.2), watch)
    every = STEPS * EPOCHS // 10
    assert set(changes) <= {every * n for n in range(1, moments + 1)}
    assert max(changes) > 0.75 * STEPS * EPOCHS  # where RigL has stopped
    assert METHODS.get(method).spec.schedule.parameters["fraction"] == 0.5
