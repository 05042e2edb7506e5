"""Noise and gates that are trained beside the weights: formulas by hand, folding, and what is left behind."""

import math
from types import SimpleNamespace

import pytest
import torch
from sample_networks import as_drawn
from sampling import sampled
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, training_hook
from shrinkbench.pruning.methods.variational_dropout import divergence
from shrinkbench.training import loop

UNIT_METHODS = [
    "l0_hard_concrete",
    "bayesian_compression",
    "structured_bayesian_pruning",
    "variational_information_bottleneck",
]
STEPS, EPOCHS, BATCH = 2, 2, 10  # 20 training examples


class Joined(nn.Module):
    """Two convolutions whose channels one layer reads joined, and a residual sum before the classifier."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.first, self.second = nn.Conv2d(7, 5, 1), nn.Conv2d(5, 5, 1)
        self.head = nn.Linear(5 * 4, 2)

    def forward(self, x):
        x = torch.cat([torch.relu(self.norm(self.left(x))), torch.relu(self.right(x))], 1)
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.second(x))
        return self.head(nn.functional.avg_pool2d(x, 2).flatten(1))


def linear():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def hook_of(module, method, shape, compression=1.5, **options):
    return training_hook(
        module,
        method,
        compression=compression,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        seed=0,
        input_shape=shape,
        **options,
    )


def one_step(module, hook, shape, step=1):
    generator = torch.Generator().manual_seed(step)
    module.train()
    hook.before_step(step)
    inputs = torch.randn(BATCH, *shape, generator=generator)
    nn.functional.cross_entropy(module(inputs), torch.arange(BATCH) % 2).backward()
    hook.after_backward(step)


def count_hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def set_numbers(hook, kind, name, values):
    with torch.no_grad():
        hook.of(kind, name).copy_(torch.as_tensor(values))


def test_the_divergence_is_the_approximation_in_print():
    # 0.63576 (1 - sigmoid(1.8732)) + log(2) / 2 at alpha = 1; nothing where the noise is all.
    assert (
        abs(float(divergence(torch.tensor(0.0))) - (0.63576 / (1 + math.exp(1.8732)) + math.log(2) / 2)) < 1e-6
    )
    assert float(divergence(torch.tensor(30.0))) < 1e-6
    # Far from the prior it grows as -log(alpha) / 2: 0.63576 + 10 at log alpha = -20.
    assert abs(float(divergence(torch.tensor(-20.0))) - 10.63576) < 1e-4


@pytest.mark.parametrize("convolution", [False, True])
def test_noise_of_weights_reaches_outputs_as_if_each_example_had_weights_of_its_own(convolution):
    layer = nn.Conv2d(2, 3, 3, stride=2, padding=1) if convolution else nn.Linear(2, 3)
    shape = (2, 5, 5) if convolution else (2,)
    end = nn.Sequential(nn.Flatten(), nn.Linear(27 if convolution else 3, 2))
    module = nn.Sequential(layer, end)
    hook = hook_of(module, "sparse_variational_dropout", shape, 1.01)
    set_numbers(hook, "noise", "0.weight", torch.randn(layer.weight.shape))
    one = torch.randn(1, *shape)
    rows = 6000 if not convolution else 3000
    hook.before_step(1)
    layer.train()
    with torch.no_grad():
        seen = layer(one.expand(rows, *shape))
        variances = hook.of("noise", "0.weight").exp()
        if convolution:
            expected = nn.functional.conv2d(one.square(), variances, stride=2, padding=1)
        else:
            expected = nn.functional.linear(one.square(), variances)
    plain = layer.eval()(one)
    deviation = expected[0].sqrt()
    assert ((seen.mean(0) - plain[0]).abs() < 5 * deviation / rows**0.5 + 1e-3).all()
    torch.testing.assert_close(seen.var(0), expected[0], rtol=0.1, atol=1e-3)
    assert torch.equal(layer(one), plain)  # in evaluation there is none


def test_weights_with_the_most_noise_go():
    module = as_drawn(linear)
    hook = hook_of(module, "sparse_variational_dropout", (4,), 1.3)
    one_step(module, hook, (4,))
    weight = module[0].weight
    with torch.no_grad():
        weight.fill_(1.0)
    set_numbers(hook, "noise", "0.weight", torch.arange(24.0).reshape(6, 4) - 10)
    hook.after_epoch(EPOCHS)
    kept = hook.masks["0.weight"].flatten()
    assert kept.sum() == 12  # 39 of 51 parameters would stay at 1.3; 12 go
    assert kept[:12].all()
    assert not kept[12:].any()
    assert count_hooks(module) == 0


def test_the_penalty_is_the_divergence_per_training_example():
    module = as_drawn(linear)
    hook = hook_of(module, "sparse_variational_dropout", (4,), 1.3)
    one_step(module, hook, (4,))
    log_alpha = hook.of("noise", "0.weight") - (module[0].weight.square() + 1e-8).log()
    torch.testing.assert_close(hook.penalty(), divergence(log_alpha).sum() / (STEPS * BATCH))
    said = hook_of(as_drawn(linear), "sparse_variational_dropout", (4,), 1.3, batch_size=50)
    assert said.examples == 100


def test_hard_concrete_gates():
    module = as_drawn(Joined)
    hook = hook_of(module, "l0_hard_concrete", (1, 4, 4), 1.1)
    name = next(iter(hook.groups))
    values = torch.linspace(-3, 3, hook.groups[name].units)
    set_numbers(hook, "open", name, values)
    hook.before_step(1)
    with torch.no_grad():
        gates = hook.sample(name, 10_000)
    assert gates.min() == 0
    assert gates.max() == 1
    chance = torch.sigmoid(values - 2 / 3 * math.log(0.1 / 1.1))
    torch.testing.assert_close((gates > 0).float().mean(0), chance, rtol=0, atol=0.02)
    torch.testing.assert_close(hook.mean(name), (torch.sigmoid(values) * 1.2 - 0.1).clamp(0, 1))
    # All gates open: the penalty is its strength; all shut: nothing.
    for group in hook.groups:
        set_numbers(hook, "open", group, torch.full((hook.groups[group].units,), 30.0))
    assert abs(float(hook.penalty().detach()) - 0.5) < 1e-6
    for group in hook.groups:
        set_numbers(hook, "open", group, torch.full((hook.groups[group].units,), -30.0))
    assert float(hook.penalty().detach()) < 1e-6


@pytest.mark.parametrize(
    ("mean", "spread"), [(0.0, -5.0), (-1.0, 0.0), (-6.0, 1.5), (2.0, -1.0), (-19.0, -2.0)]
)
def test_log_normal_moments_and_divergence_are_the_integrals(mean, spread):
    module = as_drawn(linear)
    hook = hook_of(module, "structured_bayesian_pruning", (4,), 1.1)
    set_numbers(hook, "mean", "0", torch.full((6,), mean))
    set_numbers(hook, "spread", "0", torch.full((6,), spread))
    place = torch.linspace(-20, 0, 400_001, dtype=torch.float64)
    log_density = -((place - mean) / math.exp(spread)).square() / 2
    density = (log_density - log_density.max()).exp()
    step = 20 / 400_000
    weight = torch.full_like(place, step)
    weight[0] = weight[-1] = step / 2
    density = density / (density * weight).sum()
    moments = [(density * weight * (order * place).exp()).sum() for order in (1, 2)]
    with torch.no_grad():
        for order, expected in zip((1, 2), moments, strict=True):
            torch.testing.assert_close(hook.moment("0", order)[0], expected, rtol=1e-4, atol=1e-12)
        inside = density > 0
        divergence_ = (weight * density * (density.clamp_min(1e-300).log() + math.log(20)))[inside].sum()
        torch.testing.assert_close(hook.divergence("0")[0], divergence_, rtol=1e-3, atol=1e-3)
        ratio = moments[0] / (moments[1] - moments[0] ** 2).sqrt()
        torch.testing.assert_close(hook.learned()["0"][0].double(), ratio, rtol=2e-2, atol=1e-3)
        hook.before_step(1)
        gates = hook.sample("0", 20_000)
        assert gates.min() >= 0
        assert gates.max() <= 1
        torch.testing.assert_close(gates.double().mean(), moments[0], rtol=0.05, atol=1e-6)


def test_the_bottleneck_starts_with_log_of_one_plus_the_signal():
    module = as_drawn(linear)
    hook = hook_of(module, "variational_information_bottleneck", (4,), 1.1, batch_size=BATCH)
    expected = 6 * 0.5 * math.log(1 + math.exp(9)) / 20
    assert abs(float(hook.penalty().detach()) - expected) < 1e-5


def test_bayesian_compression_adds_the_divergence_of_the_weights_behind():
    module = as_drawn(linear)
    hook = hook_of(module, "bayesian_compression", (4,), 1.1, batch_size=BATCH)
    weight = module[2].weight.detach()
    gates = 6 * float(divergence(torch.tensor(-9.0)))
    behind = 0.5 * (18 * (math.exp(-9) - 1 + 9) + float(weight.square().sum()))
    assert abs(float(hook.penalty().detach()) - (gates + behind) / 20) < 1e-4


@pytest.mark.parametrize("method", sampled(UNIT_METHODS, every=2))
def test_folded_weights_compute_what_gates_did(method):
    module = as_drawn(Joined)
    hook = hook_of(module, method, (1, 4, 4), 1.2)
    for step in (1, 2):
        one_step(module, hook, (1, 4, 4), step)
    for name, group in hook.groups.items():
        for kind in ("open", "mean"):
            if f"{kind}/{name}" in hook._numbers:
                set_numbers(hook, kind, name, torch.linspace(-1.5, 0.5, group.units))
    module.eval()
    inputs = torch.randn(3, 1, 4, 4)
    with torch.no_grad():
        gated = module(inputs)
        hook.finish()
        torch.testing.assert_close(module(inputs), gated, rtol=1e-4, atol=1e-5)
    assert count_hooks(module) == 0


@pytest.mark.parametrize("method", sampled(UNIT_METHODS, every=4))
def test_units_with_the_least_go_and_gates_are_drawn_for_each_example(method):
    module = as_drawn(Joined)
    hook = hook_of(module, method, (1, 4, 4), 1.2)
    one_step(module, hook, (1, 4, 4))
    name = next(iter(hook.groups))
    with torch.no_grad():
        gates = hook.sample(name, 6)
        assert torch.equal(gates, hook.sample(name, 6))  # the same whenever it is asked for in a step
    assert not torch.equal(gates[0], gates[1])
    before = {group: values.clone() for group, values in hook.learned().items()}
    one_step(module, hook, (1, 4, 4), 2)
    assert any(not torch.equal(hook.learned()[group], values) for group, values in before.items())
    learned = hook.learned()
    hook.after_epoch(EPOCHS)
    scores = torch.cat([learned[g] for g in hook.groups])
    alive = []
    for group in hook.groups.values():
        piece = next(s for s in group.slices if s.role == "produces" and s.tensor.endswith("weight"))
        mask = hook.masks[piece.tensor].flatten(1).any(1)
        alive.append(torch.zeros(group.units, dtype=torch.bool).index_fill(0, piece.unit[mask], True))
    alive = torch.cat(alive)
    assert not alive.all()
    gone_over_kept = scores[~alive].max() - scores[alive].min()
    lone = any(int(kept.sum()) == 1 for kept in alive.split([g.units for g in hook.groups.values()]))
    assert gone_over_kept <= 0 or lone  # but for a group's last unit, which stays


@pytest.mark.parametrize("method", sampled(["sparse_variational_dropout", *UNIT_METHODS], every=2))
def test_a_training_stopped_and_taken_up_goes_on_bit_for_bit(method):
    whole, first, second = (as_drawn(Joined) for _ in range(3))
    one = hook_of(whole, method, (1, 4, 4), 1.2)
    two = hook_of(first, method, (1, 4, 4), 1.2)
    for step in (1, 2):
        one_step(whole, one, (1, 4, 4), step)
    one_step(first, two, (1, 4, 4), 1)
    three = hook_of(second, method, (1, 4, 4), 1.2)
    three.load_state_dict(two.state_dict())
    second.load_state_dict(first.state_dict())
    one_step(second, three, (1, 4, 4), 2)
    for name, numbers in one._numbers.items():
        assert torch.equal(numbers, three._numbers[name]), name
    one.after_epoch(EPOCHS)
    three.after_epoch(EPOCHS)
    assert one.masks.equal(three.masks)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.hidden, self.head = nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, x):
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.head(torch.relu(self.hidden(x)).mean(1))


def test_layers_that_show_neither_inputs_nor_outputs_are_refused_in_a_sentence():
    with pytest.raises(ShrinkbenchError, match=r"attention.in_proj_weight.*choose another method"):
        hook_of(as_drawn(Packed), "sparse_variational_dropout", (3, 8), 1.2)
    hook = hook_of(as_drawn(Packed), "l0_hard_concrete", (3, 8), 1.2)
    assert [g.units for g in hook.groups.values()] == [16]
    hook_of(as_drawn(Packed), "sparse_variational_dropout", (3, 8), 1.2, ignore=["attention"])


def test_controls_take_the_proportions_that_were_learned():
    kept = {}
    for name in ("variational_information_bottleneck", "random@variational_information_bottleneck"):
        module = as_drawn(Joined)
        hook = hook_of(module, METHODS.get(name), (1, 4, 4), 1.3)
        one_step(module, hook, (1, 4, 4))
        for number, (group, found) in enumerate(hook.groups.items()):
            set_numbers(hook, "mean", group, torch.full((found.units,), 10.0**-number))
        hook.after_epoch(EPOCHS)
        kept[name] = {n: int(m.flatten(1).any(1).sum()) for n, m in hook.masks.items() if m.dim() > 1}
    own, control = kept.values()
    assert own == control
    assert own["left.weight"] == 3  # the first group of all, whose gates are widest


def test_processes_that_train_together_average_what_is_trained_beside(monkeypatch):
    module = as_drawn(linear)
    hook = hook_of(module, "variational_information_bottleneck", (4,), 1.1)
    averaged = []
    monkeypatch.setattr(loop, "average_gradients", lambda tensors, team: averaged.extend(tensors))

    class Task:
        objective = SimpleNamespace(name="squares")

        def loss(self, module, batch, recipe):
            return module(batch[0]).square().mean(), len(batch[0])

    class Two:
        size, rank = 2, 0

    module.train()
    hook.before_step(1)
    loop._backward(module, None, (torch.randn(4, 4), torch.zeros(4)), [hook], Task(), Two())
    assert {id(t) for t in hook.beside} <= {id(t) for t in averaged}
    assert len(hook.beside) == 2
