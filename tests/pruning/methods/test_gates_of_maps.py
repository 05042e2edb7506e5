"""Attention statistics and codes of batches: by hand, what they leave behind, and what they learn."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from sample_networks import as_drawn
from sampling import sampled
from torch import nn

from shrinkbench.pruning import METHODS, training_hook
from shrinkbench.training import loop

METHODS_HERE = ["pcas", "autopruner"]
SHAPE, STEPS, EPOCHS, BATCH = (2, 6, 6), 4, 2, 6


def network():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )


def hook_of(module, method, compression=1.5, **options):
    setting = {"epochs": EPOCHS, "steps_per_epoch": STEPS, "seed": 0, "input_shape": SHAPE}
    return training_hook(module, method, compression=compression, **{**setting, **options})


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, *SHAPE, generator=generator), torch.arange(BATCH) % 3


def one_step(module, hook, step, optimizer=None):
    module.train()
    hook.before_step(step)
    inputs, labels = batch(step)
    nn.functional.cross_entropy(module(inputs), labels).backward()
    hook.after_backward(step)
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()
    hook.after_step(step)


def count_hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_attention_is_that_of_the_means_and_channels_are_those_of_a_flattened_map():
    module = as_drawn(network).eval()
    hook = hook_of(module, "pcas")
    assert set(hook.readers) == {"0", "3"}  # the classifier is not prunable, and reads whole what feeds it
    hook.before_step(1)
    inputs, _ = batch(1)
    with torch.no_grad():
        maps = module[2](module[1](module[0](inputs)))
        a, b = hook.of("first", "0"), hook.of("second", "0")
        hook.of("first-bias", "0").fill_(0.1)
        hook.of("second-bias", "0").fill_(-0.2)
        assert a.shape == (1, 4)  # a quarter of the channels lies between
        between = torch.relu(maps.mean((2, 3)) @ a.T + 0.1)
        attention = 1 / (1 + torch.exp(-(between @ b.T - 0.2)))
        torch.testing.assert_close(hook.gates("0", maps), attention)
        expected = nn.functional.conv2d(
            maps * attention[:, :, None, None], module[3].weight, module[3].bias, padding=1
        )
        torch.testing.assert_close(module[3](maps), expected)
        flat = torch.rand(3, 24)
        means = flat.reshape(3, 6, 4).mean(2)  # four positions of each of six channels
        between = torch.relu(means @ hook.of("first", "3").T)
        torch.testing.assert_close(hook.gates("3", flat), torch.sigmoid(between @ hook.of("second", "3").T))


def test_the_network_stays_as_it_is_while_attention_is_trained():
    module = as_drawn(network)
    before = copy.deepcopy(module.state_dict())
    hook = hook_of(module, "pcas")
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    hook.start(optimizer)
    numbers = {name: t.detach().clone() for name, t in hook._numbers.items()}
    for step in range(1, 7):
        one_step(module, hook, step, optimizer)
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
    assert any(not torch.equal(t, numbers[n]) for n, t in hook._numbers.items())


def test_what_decides_is_the_mean_attention_of_the_last_quarter():
    module = as_drawn(network)
    hook = hook_of(module, "pcas")
    for step in range(1, 7):
        one_step(module, hook, step)
    fixed = {name: t.detach().clone() for name, t in hook._numbers.items()}
    seen = []
    for step in (7, 8):
        one_step(module, hook, step)
        assert all(torch.equal(t, fixed[n]) for n, t in hook._numbers.items())
        with torch.no_grad():
            maps = module[:3].eval()(batch(step)[0])
            seen.append(hook.gates("0", maps).mean(0))
    mean = torch.stack(seen).mean(0)
    torch.testing.assert_close(hook.learned()["0"], mean)
    other = hook.learned()["3"]
    hook.after_epoch(EPOCHS)
    alive = torch.cat([hook.masks[f"{n}.weight"].flatten(1).any(1) for n in (0, 3)])
    scores = torch.cat([mean, other])
    assert not alive.all()
    assert scores[~alive].max() <= scores[alive].min()  # all channels of the network compete


def test_the_code_is_that_of_the_batch_pooled_two_by_two():
    module = as_drawn(network).train()
    hook = hook_of(module, "autopruner")
    hook.before_step(2)
    maps = torch.rand(BATCH, 4, 6, 6)
    pooled = nn.functional.max_pool2d(maps.mean(0), 2).flatten()
    assert hook.of("code", "0").shape == (4, 4 * 3 * 3)
    alpha = 100 ** (2 / 8)
    with torch.no_grad():
        logits = hook.of("code", "0") @ pooled
        expected = torch.sigmoid(alpha * logits / logits.abs().mean())[None]
        torch.testing.assert_close(hook.gates("0", maps), expected)
        hook._scales["0"] = torch.tensor(2.0)  # later on, that of the first step
        torch.testing.assert_close(hook.gates("0", maps), torch.sigmoid(alpha * logits / 2)[None])
    drawn = hook.of("code", "3").detach()
    assert drawn.std().item() == pytest.approx(10 * math.sqrt(2 / 24), rel=0.15)


def test_the_penalty_draws_the_mean_code_to_the_share_that_stays():
    module = as_drawn(network).train()
    hook = hook_of(module, "autopruner")
    hook.before_step(8)
    kept = {n: int(hook.shares[n] * hook.readers[n].units + 0.5) for n in hook.readers}
    assert all(0 < kept[n] < hook.readers[n].units for n in kept)
    maps, flat = torch.rand(BATCH, 4, 6, 6), torch.rand(BATCH, 24)
    hook.gates("0", maps)
    hook.gates("3", flat)
    hook._pooled = hook.noted()
    expected = 0.0
    hook._scales = {"0": torch.tensor(3.0), "3": torch.tensor(0.5)}
    for name, pooled in (("0", nn.functional.max_pool2d(maps.mean(0), 2).flatten()), ("3", flat.mean(0))):
        logits = (hook.of("code", name) @ pooled).detach()
        codes = torch.sigmoid(100 * logits / {"0": 3.0, "3": 0.5}[name])
        share = kept[name] / len(codes)
        strength = 100 * abs(float((codes > 0.5).sum()) / len(codes) - share)
        expected += strength * (float(codes.mean()) - share) ** 2
    assert float(hook.penalty().detach()) == pytest.approx(expected, rel=1e-5)


def test_codes_come_to_say_how_many_stay():
    module = as_drawn(network)
    hook = hook_of(module, "autopruner", epochs=30)
    with torch.no_grad():
        hook.of("code", "3").abs_()  # all open at first
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for step in range(1, 121):
        one_step(module, hook, step, optimizer)
    logits = hook.learned()["3"]
    assert 0 < int((logits > 0).sum()) < 6
    hook.after_epoch(30)
    alive = hook.masks["3.weight"].flatten(1).any(1)
    assert int(alive.sum()) == round(hook.shares["3"] * 6)
    assert logits[alive].min() >= logits[~alive].max()


@pytest.mark.parametrize("method", METHODS_HERE)
def test_nothing_is_left_behind(method):
    module = as_drawn(network)
    hook = hook_of(module, method)
    for step in range(1, 9):
        one_step(module, hook, step)
    assert count_hooks(module) >= 2
    hook.after_epoch(1)
    assert not hook.settled
    hook.after_epoch(EPOCHS)
    assert hook.settled
    assert count_hooks(module) == 0
    assert hook.beside == ()
    assert all(child.training for child in module.modules())
    assert not METHODS.get(method).in_one_step


@pytest.mark.parametrize("method", METHODS_HERE)
def test_a_training_stopped_and_taken_up_goes_on_bit_for_bit(method):
    whole, first, second = (as_drawn(network) for _ in range(3))
    one, two = hook_of(whole, method), hook_of(first, method)
    for step in range(1, 9):
        one_step(whole, one, step)
    for step in range(1, 8):
        one_step(first, two, step)
    three = hook_of(second, method)
    three.load_state_dict(copy.deepcopy(two.state_dict()))
    second.load_state_dict(first.state_dict())
    one_step(second, three, 8)
    learned = one.learned()
    assert all(torch.equal(learned[n], t) for n, t in three.learned().items())
    one.after_epoch(EPOCHS)
    three.after_epoch(EPOCHS)
    assert one.masks.equal(three.masks)


@pytest.mark.parametrize("method", sampled(METHODS_HERE, every=2))
def test_processes_that_train_together_learn_the_same(method, monkeypatch):
    """What each sees of its share goes the way of gradients, which are averaged."""
    module = as_drawn(network).train()
    hook = hook_of(module, method)
    averaged = []
    monkeypatch.setattr(loop, "average_gradients", lambda tensors, team: averaged.extend(tensors))

    class Task:
        objective = SimpleNamespace(name="squares")

        def loss(self, module, batch, recipe):
            return module(batch[0]).square().mean(), len(batch[0])

    class Two:
        size, rank = 2, 0

    hook.before_step(1)
    loop._backward(module, None, batch(1), [hook], Task(), Two())
    noted = [slot for slot in hook._slots.values() if slot.grad is not None]
    assert len(noted) == 2
    assert {id(t) for t in noted} <= {id(t) for t in averaged}


@pytest.mark.parametrize("method", METHODS_HERE)
def test_controls_take_the_proportions(method):
    kept = {}
    for name in (method, f"random@{method}"):
        module = as_drawn(network)
        hook = hook_of(module, METHODS.get(name))
        for step in range(1, 9):
            one_step(module, hook, step)
        hook.after_epoch(EPOCHS)
        kept[name] = {n: int(m.flatten(1).any(1).sum()) for n, m in hook.masks.items() if m.dim() > 1}
    own, control = kept.values()
    assert own == control
