"""Hooks of training: order of calls, resumption to the bit, and pruning while training."""

import copy
import itertools
import math

import pytest
import torch
from sample_networks import largest_unit
from sampling import costly_slow, sampled
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, Upholder, prune, training_hook
from shrinkbench.pruning.schedules.gradual import cubic_density
from shrinkbench.spec import Recipe
from shrinkbench.training import KeepEpochs, train
from shrinkbench.training.hook import Hook

EPOCHS, STEPS = 4, 5  # of 13 images each


def recipe(**fields):
    base = {"name": "test", "reference": "shrinkbench", "optimizer": "adam", "learning_rate": 0.01}
    return Recipe(**{**base, "batch_size": 13, "epochs": EPOCHS, **fields})


class Pictures:
    """Two classes of 4 x 4 pictures."""

    def __init__(self):
        generator = torch.Generator().manual_seed(7)
        self.labels = torch.arange(65) % 2
        noise = torch.randn(65, 2, 4, 4, generator=generator)
        self.inputs = noise + self.labels.reshape(-1, 1, 1, 1) * 0.5

    def train(self, batch_size, *, generator, augment):
        order = torch.randperm(len(self.labels), generator=generator)
        for rows in order.split(batch_size):
            yield self.inputs[rows], self.labels[rows]

    def validation(self):
        yield self.inputs[:20], self.labels[:20]

    test = validation


class Residual(nn.Sequential):
    def __init__(self, width):
        inner = nn.Conv2d(8, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        super().__init__(*inner, nn.Conv2d(width, 8, 3, padding=1))

    def forward(self, x):
        return x + super().forward(x)


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            Residual(6),
            Residual(4),
            nn.Flatten(),
            nn.Linear(128, 2),
        )


def hook_for(method, module, compression=2.0, **options):
    return training_hook(
        module,
        method,
        compression=compression,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        seed=3,
        input_shape=(2, 4, 4),
        batches=lambda generator: list(Pictures().train(13, generator=generator, augment=False)),
        **options,
    )


def kept(module, masks):
    total = sum(p.numel() for p in module.parameters())
    return total - (masks.total - masks.kept)


class Diary(Hook):
    def __init__(self):
        self.entries = []

    def start(self, optimizer):
        self.entries.append("start")

    def before_step(self, step):
        self.entries.append(f"before {step}")

    def after_backward(self, step):
        self.entries.append(f"backward {step}")

    def after_step(self, step):
        self.entries.append(f"after {step}")

    def after_epoch(self, epoch):
        self.entries.append(f"epoch {epoch}")


def test_hooks_are_called_in_order_and_count_over_the_whole_training():
    diary = Diary()
    train(network(), recipe(epochs=2), Pictures(), seed=0, hooks=[diary])
    expected = ["start"]
    for step in range(1, 2 * STEPS + 1):
        expected += [f"before {step}", f"backward {step}", f"after {step}"]
        expected += [f"epoch {step // STEPS}"] if step % STEPS == 0 else []
    assert diary.entries == expected


def test_an_upholder_is_a_hook_or_a_function_after_the_step():
    weights = []
    for way in ("hook", "function"):
        module = network()
        masks = prune(module, "global_magnitude", compression=2, input_shape=(2, 4, 4))
        masks.apply(module)
        upholder = Upholder(module, masks)
        options = {"hooks": [upholder]} if way == "hook" else {"after_step": upholder}
        train(module, recipe(), Pictures(), seed=0, **options)
        assert all(not dict(module.named_parameters())[n][~m].any() for n, m in masks.items())
        weights.append(module[3].weight.detach())
    assert torch.equal(*weights)


DURING = [name for name, method in METHODS.items() if method.schedule.during is not None]


class KilledError(Exception):
    pass


ADAM, MOMENTUM = {"optimizer": "adam"}, {"optimizer": "sgd", "momentum": 0.9}
OTHERS = [name for name in DURING if name != "gradual_magnitude"]


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        *sampled(costly_slow([(name, ADAM) for name in DURING]), every=8),
        ("gradual_magnitude", MOMENTUM),
        *(pytest.param(name, MOMENTUM, marks=pytest.mark.slow) for name in OTHERS),
    ],
)
def test_interrupted_and_resumed_is_uninterrupted(method, optimizer, tmp_path):
    def go(checkpoint, on_epoch=None):
        module = network()
        hook = hook_for(method, module)
        train(
            module,
            recipe(**optimizer),
            Pictures(),
            seed=1,
            hooks=[hook],
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
        return module, hook

    def kill(record):
        if record.epoch in (1, 3):
            raise KilledError

    whole, whole_hook = go(tmp_path / "whole.pt")
    for _ in range(2):
        with pytest.raises(KilledError):
            go(tmp_path / "parts.pt", kill)
    parts, parts_hook = go(tmp_path / "parts.pt")
    assert parts_hook.masks.equal(whole_hook.masks)
    for (name, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("method", "selection"),
    [
        *sampled(costly_slow([(name, "best-validation") for name in DURING]), every=5),
        ("gradual_magnitude", "last"),
        *(pytest.param(name, "last", marks=pytest.mark.slow) for name in OTHERS),
    ],
)
def test_the_outcome_meets_the_budget_with_its_own_masks(method, selection):
    """Also where an earlier epoch is selected: never one from before the target was reached."""
    module = network()
    hook = hook_for(method, module)
    training = train(module, recipe(selection=selection), Pictures(), seed=1, hooks=[hook])
    total = sum(p.numel() for p in module.parameters())
    unit = largest_unit(METHODS.get(method), network(), (2, 4, 4))
    slack = unit if unit > 1 else 0.5
    assert abs(kept(module, hook.masks) - total / 2) <= slack
    for name, mask in hook.masks.items():
        assert not dict(module.named_parameters())[name][~mask].any(), name
    assert training.selected_epoch >= 1


def test_epochs_before_the_target_are_not_selected():
    module = network()
    hook = hook_for("gradual_magnitude", module)

    class Data(Pictures):
        calls = 0

        def validation(self):  # worse every epoch: a plain selection would take the first
            Data.calls += 1
            labels = self.labels[:20].clone()
            labels[: 4 * Data.calls] = 1 - labels[: 4 * Data.calls]
            yield self.inputs[:20], labels

    training = train(module, recipe(selection="best-validation"), Data(), seed=0, hooks=[hook])
    assert training.selected_epoch == EPOCHS // 2  # the ramp ends with the second of four
    assert kept(module, hook.masks) == round(sum(p.numel() for p in module.parameters()) / 2)


def test_gradual_pruning_follows_the_cubic_with_nested_masks():
    module = network()
    hook = hook_for("gradual_magnitude", module, compression=3)
    total = sum(p.numel() for p in module.parameters())
    seen = []

    class Watch(Hook):
        def after_step(self, step):
            seen.append(hook.masks)

    train(module, recipe(), Pictures(), seed=0, hooks=[hook, Watch()])
    end = EPOCHS * STEPS // 2
    for step, masks in enumerate(seen, start=1):
        target = total * cubic_density(min(step / end, 1), 1 / 3)
        assert abs(kept(module, masks) - target) <= 0.5
    assert all(later.within(earlier) for earlier, later in itertools.pairwise(seen))


@pytest.mark.parametrize("method", ["rigl", "sparse_evolutionary_training"])
def test_dynamic_sparse_training_keeps_the_density_of_every_layer(method):
    module = network()
    hook = hook_for(method, module)
    first = hook.masks
    changes = []

    class Watch(Hook):
        def after_epoch(self, epoch):
            changes.append(hook.masks)
            for name, mask in hook.masks.items():
                assert int(mask.sum()) == int(first[name].sum())
                assert not dict(module.named_parameters())[name][~mask].any()

    train(module, recipe(), Pictures(), seed=0, hooks=[hook, Watch()])
    assert not changes[0].equal(first)
    assert changes[-1].equal(changes[-2])  # the last exchange comes before the end


def test_rigl_drops_the_smallest_and_grows_the_largest_gradients():
    module = network()
    hook = hook_for("rigl", module)
    parameter = module[3].weight
    before = hook.masks["3.weight"].clone()
    weights = parameter.detach().clone()
    for p in module.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    gradient = parameter.grad.clone()
    optimizer = torch.optim.Adam(module.parameters())
    optimizer.state[parameter] = {"exp_avg": torch.ones_like(parameter), "step": torch.tensor(1.0)}
    hook.start(optimizer)
    hook.after_backward(1)
    after = hook.masks["3.weight"]
    count = int(0.15 * (1 + math.cos(math.pi / hook._end)) * int(before.sum()))
    stayed = before & ~torch.zeros_like(before)
    order = weights.abs().masked_fill(~before, math.inf).flatten().argsort()
    stayed.view(-1)[order[:count]] = False
    candidates = gradient.abs().masked_fill(stayed, -1).flatten().argsort(descending=True)[:count]
    expected = stayed.clone()
    expected.view(-1)[candidates] = True
    assert torch.equal(after, expected)
    grown = after & ~before
    assert bool(grown.any())
    assert not parameter[grown].any()
    assert not optimizer.state[parameter]["exp_avg"][grown].any()
    assert bool(optimizer.state[parameter]["exp_avg"][before].all())
    assert all(p.grad is None for p in module.parameters())  # no step where connections change


def test_movement_adds_up_its_score_over_steps_and_freezes_pruned_weights():
    module = network()
    hook = hook_for("movement", module)
    expected = torch.zeros_like(module[3].weight)
    beneath = module[3].weight.detach().clone()

    class Watch(Hook):
        def after_backward(self, step):  # before the movement hook changes gradients
            expected.sub_(beneath * module[3].weight.grad)
            assert torch.equal(module[3].weight, beneath * hook.masks["3.weight"])

        def after_step(self, step):
            torch.where(hook.masks["3.weight"], module[3].weight.detach(), beneath, out=beneath)

    # The watch goes first: it sees gradients as they are, and weights before new masks apply.
    train(module, recipe(epochs=1), Pictures(), seed=0, hooks=[Watch(), hook])
    torch.testing.assert_close(hook._totals["3.weight"], expected)


def test_softly_pruned_weights_come_back():
    module = network()
    hook = hook_for("soft_filter_pruning_pretrained", module)
    regrown = []

    class Watch(Hook):
        def after_step(self, step):
            if step > STEPS:  # after the first masks
                zero = ~hook.masks["3.weight"]
                regrown.append(bool(module[3].weight[zero].any()))

    train(module, recipe(), Pictures(), seed=0, hooks=[hook, Watch()])
    assert all(regrown)


def test_rewinding_joins_the_schedule_and_keeps_epochs():
    saved = {}
    module = network()
    start = copy.deepcopy(module.state_dict())
    keep = KeepEpochs(module, (0, 2), lambda e, s: saved.__setitem__(e, copy.deepcopy(s)))
    steps = recipe(schedule="multistep", milestones=(3,), optimizer="sgd", momentum=0.0)
    whole = train(module, steps, Pictures(), seed=5, hooks=[keep])
    assert saved.keys() == {0, 2}
    assert all(torch.equal(start[n], saved[0][n]) for n in start)
    again = network()
    again.load_state_dict(saved[2])
    rest = train(again, steps, Pictures(), seed=5, first_epoch=3)
    assert [r.epoch for r in rest.epochs] == [3, 4]
    assert [r.learning_rate for r in rest.epochs] == [r.learning_rate for r in whole.epochs[2:]]
    # Plain SGD has no state: from the same weights, the rest of the training is the same to the bit.
    rewound = again.state_dict()
    assert all(torch.equal(tensor, rewound[name]) for name, tensor in module.state_dict().items())


def test_training_can_be_left_early():
    module, half = network(), network()
    kept_weights = {}
    train(
        module, recipe(), Pictures(), seed=5,
        hooks=[KeepEpochs(module, (2,), lambda e, s: kept_weights.update(copy.deepcopy(s)))],
    )  # fmt: skip
    train(half, recipe(), Pictures(), seed=5, last_epoch=2)
    assert all(torch.equal(kept_weights[n], t) for n, t in half.state_dict().items())


@pytest.mark.parametrize("schedule", ["gradual-straight-through", "network-surgery"])
def test_a_score_on_data_is_told_that_a_step_has_none(schedule):
    """Batches were given: to give some is no way out."""
    module, data = network(), Pictures()
    hook = training_hook(
        module,
        f"obd[schedule={schedule}]",
        compression=2,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        seed=0,
        input_shape=(2, 4, 4),
        batches=lambda _: data.test(),
    )
    with pytest.raises(ShrinkbenchError, match=f"scores on data, and the schedule '{schedule}'"):
        train(module, recipe(), data, seed=0, hooks=[hook])


@pytest.mark.parametrize("structure", ["2:4", "permuted-2:4", "filters", "kernels", "blocks-2x2"])
@pytest.mark.parametrize("method", ["rigl", "granet", "set_itop", "mest", "sparse_evolutionary_training"])
def test_what_exchanges_single_weights_takes_no_structure_of_several(method, structure):
    with pytest.raises(ShrinkbenchError, match="exchanges single weights"):
        METHODS.get(f"{method}[structure={structure}]")
    assert METHODS.get(f"{method}[structure={structure},schedule=gradual-cubic]").structure.name == structure
    assert METHODS.get(f"{method}[structure=convolution-weights]").schedule.exchanges
