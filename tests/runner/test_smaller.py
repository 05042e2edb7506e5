"""Training the smaller network is training the masked one: step for step, or it is not done."""

import copy

import pytest
import torch
from sample_networks import ConvNet, ViT, seeded
from surgery_networks import as_trained
from torch import nn
from torch.nn import functional as F

from shrinkbench.models import build
from shrinkbench.pruning import Masks, Upholder, prune
from shrinkbench.results.record import TrainedSmaller
from shrinkbench.runner.smaller import (
    Trained,
    UnequalError,
    chosen_for_training,
    require_equal_training,
    smaller_or_why,
)
from shrinkbench.runner.workspace import Workspace
from shrinkbench.spec import Recipe
from shrinkbench.surgery.correspondence import SmallerNetwork, smaller_network
from shrinkbench.tasks import Classification
from shrinkbench.training import train
from shrinkbench.training.hook import Hook

CLASSES, SIDE = 4, 8


def recipe(**fields):
    base = {"name": "test", "reference": "shrinkbench", "optimizer": "sgd", "learning_rate": 0.05}
    return Recipe(**{**base, "momentum": 0.9, "batch_size": 8, "epochs": 2, "selection": "last", **fields})


class Pictures:
    """Four classes of pictures, which can be learned; validation falls at times."""

    def __init__(self, dtype=torch.float64, side=SIDE, count=25):
        generator = torch.Generator().manual_seed(7)
        self.labels = torch.arange(count) % CLASSES
        noise = torch.randn(count, 3, side, side, generator=generator)
        self.inputs = (noise + self.labels.reshape(-1, 1, 1, 1) * 0.5).to(dtype)

    def train(self, batch_size, *, generator, augment):
        order = torch.randperm(len(self.labels), generator=generator)
        for rows in order.split(batch_size):
            yield self.inputs[rows], self.labels[rows]

    def validation(self):
        yield self.inputs[::3], self.labels[::3]

    test = validation


class Forked(nn.Module):
    """Two layers read the same channels, of which one may ignore some."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.left = nn.Conv2d(8, 8, 1)
        self.right = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        return self.fc((F.relu(self.left(x)) + self.right(x)).mean((2, 3)))


class Dropping(nn.Module):
    """Dropout of maps and of features, between layers that lose channels; layers without normalisation."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3)),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.MaxPool2d(4)),
        )
        self.classifier = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, CLASSES))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def ignoring():
    """Masks by which one of two readers ignores half of the channels."""
    module = seeded(Forked)
    mask = torch.ones(8, 8, 1, 1, dtype=torch.bool)
    mask[:, ::2] = False
    return module, Masks({"left.weight": mask})


def pruned(make, method="channel_l1", compression=2.0):
    def made():
        module = seeded(make)
        return module, prune(module, method, compression=compression, input_shape=(3, SIDE, SIDE))

    return made


def named(name, method="channel_l1", compression=3.0):
    def made():
        module = as_trained(build(name, num_classes=CLASSES))
        return module, prune(module, method, compression=compression, input_shape=(3, 32, 32))

    return made


def uneven():
    """Whole channels, and single weights of those that stay."""
    module, masks = pruned(ConvNet)()
    single = {
        n: torch.rand(m.shape, generator=torch.Generator().manual_seed(1)) < 0.7 for n, m in masks.items()
    }
    return module, masks.intersect(Masks({n: m for n, m in single.items() if m.dim() > 1}))


CASES = {
    "grouped and depthwise": pruned(ConvNet, compression=1.5),
    "uneven": uneven,
    "heads": pruned(ViT, "head_magnitude", 1.2),
    "neurons": pruned(ViT, "neuron_magnitude", 1.4),
    "an ignored input": ignoring,
    "dropout": pruned(Dropping),
    "shortcuts": named("resnet20"),
    "projections": named("resnet20-projection", "global_channel_l1"),
    "dense": named("densenet40", compression=2.0),
    "vgg": named("cifar-vgg11", compression=4.0),
}
LARGE = {"shortcuts", "projections", "dense", "vgg"}
SLOW = {"dense", "vgg"}
LAYOUTS = {torch.channels_last: "last", torch.contiguous_format: "first"}


def in_double(make, layout=torch.channels_last):
    module, masks = make()
    module = module.double().to(memory_format=layout)
    masks.apply(module)
    return module, masks


class Steps(Hook):
    """Hands over what each step ends with."""

    def __init__(self, take):
        self._take = take
        self.states = []

    def after_step(self, step):
        self.states.append(self._take())


def full_state(module):
    return copy.deepcopy(module.state_dict())


def both(module, masks, how, data, **settings):
    """States after each step, and the training, of the masked network and of the smaller one."""
    twin = copy.deepcopy(module)
    smaller = smaller_or_why(twin, masks, how, data.train(8, generator=torch.Generator(), augment=False),
                             example=tuple(data.inputs.shape[1:]))  # fmt: skip
    assert isinstance(smaller, SmallerNetwork), smaller
    watch = Steps(lambda: full_state(module))

    def put_back():
        smaller.write_back(twin)
        return full_state(twin)

    watch_small = Steps(put_back)
    one = train(module, how, data, seed=3, hooks=[Upholder(module, masks), watch], **settings)
    hooks = [*Trained.smaller(smaller).hooks, watch_small]
    other = train(smaller.module, how, data, seed=3, hooks=hooks, **settings)
    smaller.write_back(twin)
    states = zip([*watch.states, full_state(module)], [*watch_small.states, full_state(twin)], strict=True)
    return list(states), (one, other), smaller


def read(smaller, module):
    """Where the masked network has statistics that the smaller one has too."""
    buffers = dict(module.named_buffers())
    known = {n: torch.zeros(b.numel(), dtype=torch.bool) for n, b in buffers.items()}
    for place in smaller.places.values():
        if place.tensor in known:
            known[place.tensor][place.index] = True
    return {n: at.reshape(buffers[n].shape) for n, at in known.items()}


def assert_equal(states, known, *, atol=1e-9, rtol=1e-9):
    for masked, small in states:
        for name, tensor in masked.items():
            at = known.get(name, torch.ones_like(tensor, dtype=torch.bool))
            torch.testing.assert_close(
                small[name][at], tensor[at], atol=atol, rtol=rtol, msg=lambda m, n=name: n + m
            )


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in CASES])
def test_every_step_is_that_of_the_masked_network(case):
    module, masks = in_double(CASES[case])
    data = Pictures(side=32, count=10) if case in LARGE else Pictures()
    states, (one, other), smaller = both(module, masks, recipe(nesterov=True, weight_decay=1e-3), data)
    assert len(states) > 3
    assert_equal(states, read(smaller, module))
    whole = sum(p.numel() for p in module.parameters())
    left = sum(p.numel() for p in smaller.module.parameters())
    assert left < whole
    for a, b in zip(one.epochs, other.epochs, strict=True):
        assert b.train_loss == pytest.approx(a.train_loss, rel=1e-9)
        assert b.validation == pytest.approx(a.validation, rel=1e-9)


RECIPES = {
    "plain": {"momentum": 0.0},
    "momentum and decay": {"weight_decay": 1e-2},
    "adam": {"optimizer": "adam", "learning_rate": 1e-3, "momentum": 0.0, "weight_decay": 1e-2},
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-3, "momentum": 0.0, "weight_decay": 1e-2},
    "clipped": {"clip_gradient_norm": 0.05, "nesterov": True},
    "smoothed": {"label_smoothing": 0.1},
    "cosine and warm-up": {"schedule": "cosine", "warmup_epochs": 1, "epochs": 3},
    "averaged": {"averaging": {"epochs": 2}, "epochs": 3},
    "best": {"selection": "best-validation", "epochs": 5, "learning_rate": 0.3},
    "stopped": {"selection": "best-validation", "epochs": 30, "early_stopping": {"patience": 2}},
}


@pytest.mark.parametrize("how", RECIPES)
@pytest.mark.parametrize(
    "make", [pruned(ConvNet, compression=1.5), ignoring], ids=["channels", "an ignored input"]
)
def test_every_recipe_is_the_same_training(make, how):
    module, masks = in_double(make)
    if (how, make) == ("clipped", ignoring):  # the gradients of ignored inputs are in the norm: nothing leaves
        assert why(module, masks, recipe(**RECIPES[how])) == ""
        return
    states, (one, other), smaller = both(module, masks, recipe(**RECIPES[how]), Pictures())
    assert_equal(states, read(smaller, module), atol=1e-8, rtol=1e-8)
    assert other.selected_epoch == one.selected_epoch
    assert len(other.epochs) == len(one.epochs)
    if how == "stopped":
        assert len(one.epochs) < 30


def test_a_teacher_teaches_the_smaller_network_the_same():
    module, masks = in_double(pruned(ConvNet))
    teacher = seeded(ConvNet, 5).double()
    how = recipe(distillation={"temperature": 2.0, "weight": 0.5})
    states, _, smaller = both(module, masks, how, Pictures(), teacher=teacher)
    assert_equal(states, read(smaller, module))


@pytest.mark.parametrize("layout", LAYOUTS, ids=LAYOUTS.values())
def test_dropout_draws_what_the_whole_network_draws(layout):
    module, masks = in_double(pruned(Dropping), layout)
    smaller = smaller_network(module, masks, (3, SIDE, SIDE)).module
    assert sum("of 8 channels" in str(m) for m in smaller.modules() if not list(m.children())) == 2
    x = Pictures().inputs.contiguous(memory_format=layout)
    outputs = []
    for network in (module, smaller):
        with torch.random.fork_rng():
            torch.manual_seed(11)
            outputs.append((network.train()(x), network(x), torch.get_rng_state()))
    for masked, small in zip(*outputs, strict=True):
        torch.testing.assert_close(small, masked)
    assert not torch.equal(outputs[0][0], outputs[0][1])


@pytest.mark.parametrize("precision", ["float32", "bf16-mixed"])
def test_in_the_precision_of_a_run_losses_differ_by_rounding(precision):
    module, masks = pruned(ConvNet, compression=1.5)()
    module = module.to(memory_format=torch.channels_last)
    masks.apply(module)
    how = recipe(precision=precision, learning_rate=0.01, epochs=3)
    _, (one, other), _ = both(module, masks, how, Pictures(torch.float32))
    tolerance = {"float32": 1e-4, "bf16-mixed": 2e-2}[precision]
    for a, b in zip(one.epochs, other.epochs, strict=True):
        assert b.train_loss == pytest.approx(a.train_loss, rel=tolerance)


def test_what_is_written_back_is_zero_under_the_masks_and_keeps_what_nothing_reads():
    module, masks = in_double(pruned(ConvNet))
    before = full_state(module)
    _, _, smaller = both(copy.deepcopy(module), masks, recipe(), Pictures())
    known = read(smaller, module)
    smaller.write_back(module)
    for name, parameter in module.named_parameters():
        if name in masks:
            assert not parameter[~masks[name]].any()
            assert not torch.equal(parameter, before[name])
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer[~known[name]], before[name][~known[name]])
    assert any(not at.all() for at in known.values())


# Refused: another computation, and what the run does then


def why(module, masks, how=None, example=(3, SIDE, SIDE), data=None, task=None):
    data = data or Pictures()
    masks.apply(module)
    batches = data.train(8, generator=torch.Generator().manual_seed(0), augment=False)
    found = smaller_or_why(
        module, masks, how or recipe(), batches, example=example, task=task or Classification()
    )
    return found if isinstance(found, str) else "smaller"


def test_single_weights_are_the_network_itself():
    module, masks = pruned(ConvNet, "global_magnitude")()
    assert why(module, masks) == ""


def deaf():
    """A layer that ignores channels, whose filters are kept, and which a shift makes positive or not."""
    module = seeded(lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), Mean(), nn.Linear(16, CLASSES)))
    mask = torch.ones(CLASSES, 16, dtype=torch.bool)
    mask[:, :2] = False
    return module, Masks({"3.weight": mask})


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


@pytest.mark.parametrize("how", ["plain", "momentum and decay", "adam"])
def test_weights_that_nothing_reads_move_as_they_would(how):
    module, masks = in_double(deaf)
    before = full_state(module)
    states, _, smaller = both(module, masks, recipe(**RECIPES[how]), Pictures())
    assert sum(smaller.module.get_parameter(n).numel() for n in smaller.unheard) == 2 * (27 + 1)
    assert_equal(states, read(smaller, module))
    moved = not torch.equal(module[0].weight[:2], before["0.weight"][:2])
    assert moved == (recipe(**RECIPES[how]).weight_decay > 0)
    clipped = why(module, masks, recipe(**RECIPES["clipped"]))
    assert clipped.startswith("the norm of the gradients differs by")  # they are read no more, and are not zero


def test_a_channel_that_may_come_alive_again_is_not_taken_out():
    """Its filter is gone and its shift, which is below zero, is not: training may lift it."""
    module = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Mean(), nn.Linear(8, CLASSES)))
    with torch.no_grad():
        module[0].bias[0] = -0.1
    mask = torch.ones(8, 3, 3, 3, dtype=torch.bool)
    mask[0] = False
    masks = Masks({"0.weight": mask})
    masks.apply(module)
    assert smaller_network(module, masks, (3, SIDE, SIDE)).module[0].out_channels == 7
    assert why(module, masks).startswith("the loss differs by ")


class ReadsMasked(nn.Module):
    """A rectifier whose slope at zero is none of zero: gradients pass it."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.fc(F.gelu(self.norm(self.wide(x))).mean((2, 3)))


class DropsByFunction(ReadsMasked):
    """Random draws that no module tells of."""

    def forward(self, x):
        return self.fc(F.dropout(self.norm(self.wide(x)), 0.1, self.training).mean((2, 3)))


def test_random_draws_by_another_shape_are_seen():
    module, masks = pruned(DropsByFunction)()
    assert why(module, masks) == "it draws random numbers, as dropout does, by the shape of what is removed"


class CountsChannels(ConvNet):
    """Reads how many channels there are, in training alone."""

    def forward(self, x):
        x = super().forward(x)
        return x * len(self.stem.weight) if self.training and torch.is_grad_enabled() else x


def test_a_network_that_trains_otherwise_than_it_evaluates_is_seen_on_a_batch():
    module, masks = pruned(CountsChannels)()
    assert why(module, masks).startswith("the loss differs by ")


def test_the_norm_of_clipped_gradients_is_compared():
    module, masks = pruned(ReadsMasked, compression=1.5)()
    masks.apply(module)
    assert why(module, masks, recipe(clip_gradient_norm=1.0)) == "smaller"
    module, masks = ignoring()
    masks.apply(module)
    smaller = smaller_network(module, masks, (3, SIDE, SIDE))
    batches = Pictures().train(8, generator=torch.Generator().manual_seed(0), augment=False)
    with pytest.raises(UnequalError, match="the norm of the gradients differs by"):
        require_equal_training(module, smaller, recipe(clip_gradient_norm=1.0), batches)


class Broken(Classification):
    """A task that cannot be computed in double precision."""

    def loss(self, module, batch, recipe):
        if batch.inputs.single.dtype == torch.float64:
            raise TypeError("no doubles here")
        return super().loss(module, batch, recipe)


def test_whatever_goes_wrong_is_a_reason_and_no_failure():
    module, masks = pruned(ConvNet)()
    assert why(module, masks, task=Broken()) == "TypeError: no doubles here"

    class NoMemory(Classification):
        def loss(self, module, batch, recipe):
            raise MemoryError

    with pytest.raises(MemoryError):
        why(module, masks, task=NoMemory())


def test_comparing_leaves_no_trace():
    module, masks = pruned(Dropping)()
    masks.apply(module)
    module.train()
    before, random = full_state(module), torch.get_rng_state()
    assert why(module, masks) == "smaller"
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in module.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


class Team:
    rank, size = 0, 2


@pytest.mark.parametrize(
    ("asked", "team", "found"),
    [
        (False, 1, None),
        (True, 1, TrainedSmaller(trainings=1, smaller=1)),
        (True, 2, TrainedSmaller(trainings=1, masked_because="several processes train one network together")),
    ],
)
def test_the_account_says_what_was_trained(asked, team, found, tmp_path):
    module, masks = pruned(ConvNet)()
    masks.apply(module)
    workspace = Workspace(tmp_path, train_smaller=asked, **({"team": Team()} if team > 1 else {}))
    settings = {"example": (3, SIDE, SIDE), "task": Classification(), "seed": 0, "so_far": None}
    with chosen_for_training(module, masks, recipe(), Pictures(), workspace, **settings) as (trained, account):
        assert (trained.module is module) == (found is None or not found.smaller)
        assert bool(trained.label) == (trained.module is not module)
    assert account == found


def test_without_an_epoch_nothing_is_made(tmp_path):
    module, masks = pruned(ConvNet)()
    settings = {"example": (3, SIDE, SIDE), "task": Classification(), "seed": 0, "so_far": None}
    workspace = Workspace(tmp_path, train_smaller=True)
    with chosen_for_training(module, masks, recipe(epochs=0), None, workspace, **settings) as (
        trained,
        account,
    ):
        assert trained.module is module
    assert account == TrainedSmaller()


def test_an_account_that_contradicts_itself_is_refused():
    TrainedSmaller(trainings=2, smaller=1, masked_because="x")
    for fields in ({"trainings": 1}, {"smaller": 1}, {"trainings": 1, "smaller": 1, "masked_because": "x"}):
        with pytest.raises(ValueError, match="smaller network"):
            TrainedSmaller(**fields)


def test_other_masks_have_other_checkpoints():
    module, masks = pruned(Forked, compression=1.5)()
    more = prune(module, "channel_l1", compression=2, input_shape=(3, SIDE, SIDE))
    digests = {smaller_network(module, m, (3, SIDE, SIDE)).digest for m in (masks, more, masks)}
    assert len(digests) == 2
