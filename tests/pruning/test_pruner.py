"""A Pruner in anybody's loop does what the sweep's loop does, with the same numbers to the bit."""

import copy
import io
import warnings

import pytest
import torch
from sample_networks import largest_unit
from sampling import costly_slow, sampled
from torch import nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import measure_size
from shrinkbench.pruning import METHODS, Pruner, Upholder, hook_for, prune_once, restart, rounds_of
from shrinkbench.pruning.amounts import amount_of
from shrinkbench.pruning.masks import Masks
from shrinkbench.seeds import stream
from shrinkbench.spec import Recipe
from shrinkbench.training import train
from shrinkbench.training.loop import make_optimizer

EPOCHS, STEPS, SEED, SHAPE = 4, 5, 3, (2, 4, 4)
TOTAL = EPOCHS * STEPS
RECIPE = Recipe(
    name="test",
    reference="shrinkbench",
    optimizer="sgd",
    momentum=0.9,
    learning_rate=0.05,
    batch_size=13,
    epochs=EPOCHS,
)


class Pictures:
    def __init__(self):
        generator = torch.Generator().manual_seed(7)
        self.labels = torch.arange(65) % 2
        self.inputs = torch.randn(65, 2, 4, 4, generator=generator) + self.labels.reshape(-1, 1, 1, 1) * 0.5

    def train(self, batch_size, *, generator, augment):
        for rows in torch.randperm(len(self.labels), generator=generator).split(batch_size):
            yield self.inputs[rows], self.labels[rows]

    def validation(self):
        return None

    def test(self):
        yield self.inputs, self.labels


class Branch(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            *(
                Branch(
                    nn.Conv2d(8, n, 3, padding=1), nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, 8, 3, padding=1)
                )
                for n in (6, 4)
            ),
            nn.Flatten(),
            nn.Linear(128, 2),
        )


def draw(generator):
    return list(Pictures().train(13, generator=generator, augment=False))


def pruner_of(module, method, total=TOTAL, **options):
    base = {"compression": 2.0, "batches": draw, "seed": SEED, "steps_per_epoch": STEPS}
    return Pruner(module, method, total_steps=total, **{**base, **options})


def epochs(module, optimizer, seed, first, last):
    """What somebody's own loop might be; the data come in the order of the sweep's."""
    for epoch in range(first, last + 1):
        module.train()
        order = torch.Generator().manual_seed(stream(seed, "data", epoch))
        for x, y in Pictures().train(13, generator=order, augment=False):
            F.cross_entropy(module(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def require_done(module, masks):
    assert all(not module.get_parameter(n)[~m].any() for n, m in masks.items())
    total = sum(p.numel() for p in module.parameters())
    assert masks.total > masks.kept
    return abs(total - (masks.total - masks.kept) - total / 2)


OWN = [name for name in METHODS if METHODS.origin(name) is None and not name.startswith("doctest_")]
DURING = [n for n in OWN if METHODS.get(n).schedule.during is not None]
ROUNDS = [
    "iterative_magnitude",
    "iterative_gradient",
    "learning_rate_rewinding",
    "lottery_ticket",
    "snip",
    "synflow",
    "global_magnitude",
]


@pytest.mark.parametrize("name", sampled(costly_slow(DURING), every=8))
def test_masks_and_weights_are_those_of_the_sweeps_loop(name):
    method, theirs, ours = METHODS.get(name), network(), network()
    hook = hook_for(
        theirs,
        method,
        amount=amount_of(method, compression=2.0),
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        seed=stream(SEED, "pruning"),
        input_shape=SHAPE,
        batches=draw,
    )
    train(theirs, RECIPE, Pictures(), seed=1, hooks=[hook])
    pruner = pruner_of(ours, method)
    optimizer = make_optimizer(ours, RECIPE)
    pruner.attach(optimizer)
    epochs(ours, optimizer, 1, 1, EPOCHS)
    assert pruner.finish().equal(hook.masks)
    assert same(theirs, ours)
    assert require_done(ours, hook.masks) <= max(largest_unit(method, theirs, SHAPE), 1)
    epochs(ours, optimizer, 1, 1, 1)  # it has let go
    assert pruner.step == TOTAL


@pytest.mark.parametrize(
    "name", sampled([n for n in ROUNDS if METHODS.get(n).schedule.during is None], every=3)
)
def test_rounds_are_those_of_the_sweep_where_each_has_an_optimizer_of_its_own(name):
    method, theirs, ours = METHODS.get(name), network(), network()
    amount, early = amount_of(method, compression=2.0), copy.deepcopy(theirs.state_dict())
    amounts, masks, between = rounds_of(theirs, method, amount, input_shape=SHAPE), Masks({}), True
    source = early if method.finetuning.weights == "rewound" else None
    for number, each in enumerate(amounts):
        masks = prune_once(
            theirs,
            method,
            amount=each,
            masks=masks,
            iteration=number,
            input_shape=SHAPE,
            batches=draw(torch.Generator().manual_seed(stream(SEED, "scoring-batch", number))),
            generator=torch.Generator().manual_seed(stream(SEED, "scoring", number)),
        )
        between = method.schedule.train_between or number == len(amounts) - 1
        restart(method.finetuning, theirs, masks, source if between else early)
        if between:
            train(theirs, RECIPE, Pictures(), seed=number, hooks=[Upholder(theirs, masks)])
    trainings = len(amounts) if method.schedule.train_between else 1
    pruner = pruner_of(ours, method, TOTAL * trainings, rewound=source)
    for number in range(trainings):
        optimizer = make_optimizer(ours, RECIPE)
        pruner.attach(optimizer)
        epochs(ours, optimizer, number if trainings > 1 else len(amounts) - 1, 1, EPOCHS)
    assert pruner.finish().equal(masks)
    assert same(theirs, ours)
    assert require_done(ours, masks) <= 1


@pytest.mark.parametrize("name", sampled(costly_slow([*DURING, "iterative_magnitude"]), every=12))
def test_interrupted_and_resumed_is_uninterrupted(name):
    whole = network()
    pruner, optimizer = pruner_of(whole, name), make_optimizer(whole, RECIPE)
    pruner.attach(optimizer)
    epochs(whole, optimizer, 1, 1, EPOCHS)
    masks = pruner.finish()
    module = network()
    pruner, optimizer = pruner_of(module, name), make_optimizer(module, RECIPE)
    pruner.attach(optimizer)
    for epoch in range(1, EPOCHS + 1):
        epochs(module, optimizer, 1, epoch, epoch)
        file = io.BytesIO()
        torch.save([module.state_dict(), optimizer.state_dict(), pruner.state_dict()], file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        module = network()
        module.load_state_dict(saved[0])
        pruner, optimizer = pruner_of(module, name), make_optimizer(module, RECIPE)
        optimizer.load_state_dict(saved[1])
        pruner.load_state_dict(saved[2])
        pruner.attach(optimizer)
    assert pruner.finish().equal(masks)
    assert same(module, whole)


def test_masks_that_a_schedule_began_with_are_not_upheld_after_going_on():
    test_interrupted_and_resumed_is_uninterrupted("sparse_evolutionary_training")


@pytest.mark.parametrize("name", sampled([*DURING, "iterative_magnitude"], every=12))
def test_a_cast_in_between_is_followed(name):
    module = network()
    pruner = pruner_of(module, name)
    for epoch in range(1, EPOCHS + 1):
        optimizer = make_optimizer(module, RECIPE)
        pruner.attach(optimizer)
        for x, y in draw(torch.Generator().manual_seed(epoch)):
            F.cross_entropy(module(x.to(module[0].weight.dtype)), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        if epoch == 2:
            module.double()
    assert require_done(module, pruner.finish()) <= largest_unit(METHODS.get(name), module, SHAPE)
    assert module[0].weight.dtype == torch.float64


@pytest.mark.parametrize("name", ["rigl", "movement"])
def test_an_optimizer_that_is_given_a_closure_is_followed_too(name):
    found = []
    for closure in (False, True):
        module = network()
        pruner, optimizer = pruner_of(module, name), torch.optim.SGD(module.parameters(), 0.05)
        pruner.attach(optimizer)
        for x, y in draw(torch.Generator().manual_seed(0)) * EPOCHS:

            def backward(x=x, y=y, module=module, optimizer=optimizer):
                optimizer.zero_grad()
                loss = F.cross_entropy(module(x), y)
                loss.backward()
                return loss

            if closure:
                optimizer.step(backward)
            else:
                backward()
                optimizer.step()
        found.append(pruner.finish())
    assert found[0].equal(found[1])


def test_zeros_are_kept_beyond_the_planned_steps():
    module = network()
    pruner, optimizer = pruner_of(module, "soft_filter_pruning"), make_optimizer(module, RECIPE)
    pruner.attach(optimizer)
    epochs(module, optimizer, 1, 1, EPOCHS + 2)
    require_done(module, pruner.masks)


def test_what_cannot_be_done_is_told_in_one_sentence():
    module = network()
    for method, options, sentence in (
        ("lottery_ticket", {}, "give their state dict as rewound="),
        ("random@lottery_ticket", {}, "compare them in a sweep"),
        ("global_magnitude[finetuning=scratch-e]", {}, "a Pruner does not draw"),
        ("rigl", {"total": 0}, "total_steps = 0"),
        ("rigl", {"steps_per_epoch": 3}, "no whole number of epochs of 3 steps"),
        ("soft_filter_pruning", {"steps_per_epoch": None}, "give steps_per_epoch="),
    ):
        with pytest.raises(ShrinkbenchError, match=sentence):
            pruner_of(module, method, **options)
    with pytest.raises(ShrinkbenchError, match="2 steps are fewer"):
        pruner_of(module, "iterative_gradient", 2, steps_per_epoch=1, compression=4).attach(
            make_optimizer(module, RECIPE)
        )
    pruner, optimizer = pruner_of(module, "rigl"), make_optimizer(module, RECIPE)
    with pytest.raises(ShrinkbenchError, match="LBFGS"):
        pruner.attach(torch.optim.LBFGS(module.parameters()))
    state = pruner_of(module, "movement").state_dict()
    with pytest.raises(ShrinkbenchError, match="the state has method = movement, this Pruner rigl"):
        pruner.load_state_dict(state)
    pruner.attach(optimizer)
    with pytest.raises(ShrinkbenchError, match="0 of 20 steps"):
        pruner.finish()
    with pytest.raises(ShrinkbenchError, match="before attach"):
        pruner.load_state_dict(pruner.state_dict())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"total": 5}, "total_steps = 20, this Pruner 5"),
        ({"seed": 4}, "seed = 3, this Pruner 4"),
        ({"steps_per_epoch": 10}, "steps_per_epoch = 5, this Pruner 10"),
        ({"prune_classifier": True}, "prune_classifier = False, this Pruner True"),
        ({"max_ratio": 0.5}, "max_ratio = None, this Pruner 0.5"),
        ({"ignore": ["0"]}, r"ignore = \[\], this Pruner \['0'\]"),
        ({"compression": 2.0000001}, "ratio = 2.0, this Pruner 2.0000001"),
    ],
)
def test_a_state_of_other_arguments_is_refused(options, told):
    state = pruner_of(network(), "gradual_magnitude").state_dict()
    with pytest.raises(ShrinkbenchError, match=told):
        pruner_of(network(), "gradual_magnitude", **options).load_state_dict(state)


def test_what_is_no_state_and_what_is_not_attached_is_told():
    with pytest.raises(ShrinkbenchError, match="it lacks 'method'"):
        pruner_of(network(), "rigl").load_state_dict({})
    module = network()
    begun = pruner_of(module, "gradual_magnitude")
    begun.attach(make_optimizer(module, RECIPE))
    pruner = pruner_of(network(), "gradual_magnitude")
    pruner.load_state_dict({**begun.state_dict(), "step": TOTAL})
    with pytest.raises(ShrinkbenchError, match="a state after 20 of 20 steps is loaded"):
        pruner.finish()
    with pytest.raises(ShrinkbenchError, match="is not attached"):
        pruner_of(network(), "gradual_magnitude").finish()
    for total in ("20", 2.5, True):
        with pytest.raises(ShrinkbenchError, match="total_steps = "):
            pruner_of(network(), "rigl", total=total)
    for steps in ("5", 2.5, True):
        with pytest.raises(ShrinkbenchError, match="no whole number of epochs of"):
            pruner_of(network(), "rigl", steps_per_epoch=steps)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"step": "3"}, "it has step = '3'"),
        ({"step": -1}, "step = -1"),
        ({"hook": {}}, "lacks 'masks' of 'rigl'"),
    ],
)
def test_a_state_that_was_written_over_is_told(change, told):
    module, other = network(), network()
    pruner, again = pruner_of(module, "rigl"), pruner_of(other, "rigl")
    pruner.attach(make_optimizer(module, RECIPE))

    def go_on():
        again.load_state_dict({**pruner.state_dict(), **change})
        again.attach(make_optimizer(other, RECIPE))

    with pytest.raises(ShrinkbenchError, match=told):
        go_on()


def test_masks_short_of_the_target_are_not_final():
    module = network()
    pruner, optimizer = pruner_of(module, "gradual_magnitude"), make_optimizer(module, RECIPE)
    pruner.attach(optimizer)
    epochs(module, optimizer, 1, 1, EPOCHS)
    state = pruner.state_dict()
    for mask in state["hook"]["masks"].values():
        mask.fill_(True)
    other = pruner_of(module, "gradual_magnitude")
    other.load_state_dict(state)
    other.attach(optimizer)
    with pytest.raises(ShrinkbenchError, match="were asked for"):
        other.finish()


def test_biases_that_go_with_channels_are_in_an_optimizer_too():
    module = network()
    matrices = [p for p in module.parameters() if p.dim() > 1]
    pruner, optimizer = pruner_of(module, "channel_l1"), torch.optim.SGD(matrices, lr=0.1)
    pruner.attach(optimizer)
    F.cross_entropy(module(Pictures().inputs), Pictures().labels).backward()
    with pytest.raises(ShrinkbenchError, match=r"bias' can be pruned and is in no optimizer given"):
        optimizer.step()


@pytest.mark.parametrize("in_place", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", ["l0_hard_concrete", pytest.param("sparse_variational_dropout", marks=pytest.mark.slow)]
)
def test_gates_come_and_go_in_a_network_that_was_compiled_and_called_before(name, in_place):
    found = []
    for compiled in (False, True):
        module = network()
        called = module
        if compiled and in_place:
            module.compile(backend="eager")
        elif compiled:
            called = torch.compile(module, backend="eager")
        x, y = Pictures().inputs[:13], Pictures().labels[:13]
        for training in (True, False):
            called.train(training)(x)
        pruner, optimizer = pruner_of(module, name), make_optimizer(module, RECIPE)
        pruner.attach(optimizer)
        losses = []
        for _ in range(TOTAL):
            called.train()
            losses.append(F.cross_entropy(called(x), y))
            losses[-1].backward()
            optimizer.step()
            optimizer.zero_grad()
        pruner.finish()
        found.append((torch.stack(losses).detach(), called.eval()(x).detach()))
    torch.testing.assert_close(found[0], found[1])
    torch._dynamo.reset()


def test_weights_that_no_optimizer_holds_are_refused_unless_they_are_frozen():
    module = network()
    first, *rest = module.parameters()
    pruner = pruner_of(module, "global_magnitude")
    other = make_optimizer(network(), RECIPE)
    with pytest.raises(ShrinkbenchError, match=r"'0.weight' can be pruned and is in no optimizer given"):
        pruner.attach(other)
    some = torch.optim.SGD(rest, lr=0.1)
    with pytest.raises(ShrinkbenchError, match=r"\(1 such\)"):
        pruner.attach(some)
    first.requires_grad_(False)
    pruner.attach(some)


def test_what_is_no_optimizer_is_told():
    module = network()
    with pytest.raises(ShrinkbenchError, match="a Sequential is no optimizer"):
        pruner_of(module, "gradual_magnitude").attach(module)


def test_two_optimizers_keep_what_is_pruned_at_zero():
    module = network()
    matrices = [p for p in module.parameters() if p.dim() > 1]
    vectors = [p for p in module.parameters() if p.dim() == 1]
    optimizers = [torch.optim.AdamW(vectors, lr=0.1), torch.optim.SGD(matrices, lr=0.1, momentum=0.9)]
    pruner = pruner_of(module, "global_magnitude")
    pruner.attach(*optimizers)
    data = Pictures()
    for _ in range(TOTAL):
        F.cross_entropy(module(data.inputs), data.labels).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        parameters = dict(module.named_parameters())
        assert len(pruner.masks)
        assert all(not parameters[n][~mask].any() for n, mask in pruner.masks.items())
    pruner.finish()


@pytest.mark.parametrize("method", ["l0_hard_concrete", "variational_information_bottleneck"])
def test_a_network_that_was_compiled_and_called_before_is_gated_all_the_same(method):
    """Losses are those of the network as it is: a program of before would know nothing of the gates."""
    found = []
    for compiled in (False, True):
        module = network()
        called = torch.compile(module, backend="eager") if compiled else module
        data = Pictures()
        F.cross_entropy(called(data.inputs), data.labels)
        optimizer = make_optimizer(module, RECIPE)
        pruner_of(module, method).attach(optimizer)
        torch.manual_seed(0)
        losses = []
        for _ in range(4):
            loss = F.cross_entropy(called(data.inputs), data.labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        found.append(losses)
    assert found[0] == pytest.approx(found[1], rel=1e-5)


class Clipped(torch.optim.SGD):
    """A step that calls that of its class, around which torch runs the same hooks."""

    def step(self, closure=None):
        for group in self.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1e6)
        return super().step(closure)


@pytest.mark.parametrize("name", ["gradual_magnitude", "movement", "spartan"])
@pytest.mark.parametrize("with_closure", [False, True])
def test_a_step_within_a_step_is_no_other(name, with_closure):
    found = []
    for kind in (torch.optim.SGD, Clipped):
        module = network()
        optimizer, pruner = kind(module.parameters(), 0.05, momentum=0.9), pruner_of(module, name)
        pruner.attach(optimizer)
        for x, y in draw(torch.Generator().manual_seed(0)) * EPOCHS:

            def loss(x=x, y=y, module=module, optimizer=optimizer):
                optimizer.zero_grad()
                found = F.cross_entropy(module(x), y)
                found.backward()
                return found

            optimizer.step(loss) if with_closure else (loss(), optimizer.step())
        assert pruner.step == TOTAL
        found.append((pruner.finish(), module))
    assert found[0][0].equal(found[1][0])
    assert same(found[0][1], found[1][1])


def test_optimizers_whose_steps_cannot_be_counted_are_told():
    class Twice(torch.optim.SGD):
        def step(self, closure=None):
            closure()
            return super().step(closure)

    class Bare(torch.optim.Optimizer):
        def __init__(self, parameters):
            self.param_groups, self.state = [{"params": list(parameters)}], {}

    module = network()
    twice, pruner = Twice(module.parameters(), 0.1), pruner_of(module, "rigl")
    pruner.attach(twice)
    with pytest.raises(ShrinkbenchError, match="Twice evaluates the loss many times"):
        twice.step(lambda: module(torch.ones(2, 2, 4, 4)).sum().backward())
    for attach in (pruner.attach, Upholder(module, pruner.masks).attach):
        with pytest.raises(ShrinkbenchError, match=r"a Bare has no hooks of its steps.*__init__"):
            attach(Bare(module.parameters()))


def scaled_training(name, *, fused, scale, infinite_at=None, given=True):
    """The masks and the network after a training with a GradScaler, or without one."""
    module = network()
    pruner, optimizer = pruner_of(module, name), torch.optim.SGD(module.parameters(), 0.05, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    pruner.attach(optimizer, scaler=scaler if given else None)
    left_out = 0
    for x, y in draw(torch.Generator().manual_seed(0)) * EPOCHS:
        for factor in (float("inf"), 1.0) if pruner.step == infinite_at else (1.0,):
            scaler.scale(F.cross_entropy(module(x), y) * factor).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            left_out += factor > 1
    assert left_out == (infinite_at is not None)
    return pruner.finish(), module


@pytest.mark.parametrize("name", ["soft_threshold_reparameterization", "continuous_sparsification", "rigl"])
def test_a_fused_optimizer_that_divides_gradients_itself_shows_them_divided(name):
    masks, module = scaled_training(name, fused=True, scale=None)
    for infinite_at in (None, 3):
        again, other = scaled_training(name, fused=True, scale=1024.0, infinite_at=infinite_at)
        assert again.equal(masks)
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", ["l0_hard_concrete", "sparse_variational_dropout", "autopruner"])
@pytest.mark.parametrize("fused", [False, True])
def test_gates_see_no_scale_of_the_loss(name, fused):
    masks, module = scaled_training(name, fused=fused, scale=None)
    again, other = scaled_training(name, fused=fused, scale=1024.0)
    assert again.equal(masks)
    assert same(module, other)
    for infinite_at in (0, 3):  # what a step that is left out gave is none of the next one
        again, other = scaled_training(name, fused=fused, scale=1024.0, infinite_at=infinite_at)
        assert again.equal(masks)
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    if not fused:
        with pytest.raises(ShrinkbenchError, match=r"a GradScaler scales .* attach.optimizer, scaler=scaler"):
            scaled_training(name, fused=False, scale=1024.0, given=False)
    other = network()
    with pytest.raises(ShrinkbenchError, match="a str is no GradScaler"):
        pruner_of(other, name).attach(torch.optim.SGD(other.parameters(), 0.1), scaler="fp16")


def test_a_factor_of_the_loss_that_is_not_given_is_told():
    """Clipping hides the factor in the gradients, and torch's scaler is seen all the same."""
    x, y = draw(torch.Generator().manual_seed(0))[0]
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    pruner_of(module, "l0_hard_concrete").attach(optimizer)
    (F.cross_entropy(module(x), y) * 1024).backward()
    for parameter in module.parameters():
        parameter.grad /= 1024
    with pytest.raises(ShrinkbenchError, match=r"divided by 1024 after .* attach.optimizer, scaler=scaler"):
        optimizer.step()
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    pruner_of(module, "l0_hard_concrete").attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(F.cross_entropy(module(x), y)).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(module.parameters(), 1e-3)
    with pytest.raises(ShrinkbenchError, match=r"a GradScaler scales .* attach.optimizer, scaler=scaler"):
        scaler.step(optimizer)


IN_TWO = [
    "gradual_magnitude",
    "rigl",
    "sparse_evolutionary_training",
    "movement",
    "ac_dc",
    "top_kast",
    "group_sparse_learning",
    "l0_hard_concrete",
]


@pytest.mark.parametrize("name", sampled(IN_TWO, every=3))
@pytest.mark.parametrize("scale", [None, 1024.0])
def test_several_optimizers_are_as_one(name, scale):
    """Masks are decided, and weights brought back, once all have moved, on gradients that are all divided."""
    found = []
    for count in (1, 2, 2):
        module = network()
        parameters = [*module.parameters()]
        parts = [parameters] if count == 1 else [parameters[::2], parameters[1::2]]
        optimizers = [torch.optim.SGD(part, 0.05, momentum=0.9) for part in parts][
            :: 1 if len(found) < 2 else -1
        ]
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        pruner = pruner_of(module, name)
        pruner.attach(*optimizers, scaler=scaler)
        for x, y in draw(torch.Generator().manual_seed(0)) * EPOCHS:
            scaler.scale(F.cross_entropy(module(x), y)).backward()
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
            for optimizer in optimizers:
                optimizer.zero_grad()
        found.append((pruner.finish(), module))
    (masks, module), *others = found
    for again, other in others:
        assert again.equal(masks)
        assert same(module, other)


def test_one_of_several_optimizers_that_is_left_out_holds_no_step_up():
    module = network()
    parameters = [*module.parameters()]
    first, second = (torch.optim.SGD(part, 0.05) for part in (parameters[::2], parameters[1::2]))
    pruner = pruner_of(module, "gradual_magnitude")
    pruner.attach(first, second)
    for number, (x, y) in enumerate(draw(torch.Generator().manual_seed(0)) * EPOCHS):
        F.cross_entropy(module(x), y).backward()
        assert pruner.step == number
        first.step()
        if number % 2:
            second.step()
            assert pruner.step == number + 1
        module(x)
        assert pruner.step == number + 1
        weights = dict(module.named_parameters())
        assert not any(bool(weights[name][~mask].any()) for name, mask in pruner.masks.items())
    assert not next(iter(copy.deepcopy(module)._forward_pre_hooks.values()))._tell
    torch.save(module, io.BytesIO())
    require_done(module, pruner.finish())


def test_noise_without_training_mode_is_told():
    module = network().eval()
    pruner, optimizer = pruner_of(module, "sparse_variational_dropout"), make_optimizer(module, RECIPE)
    pruner.attach(optimizer)
    module(torch.randn(2, 2, 4, 4)).sum().backward()
    with pytest.raises(ShrinkbenchError, match=r"called in training mode before this step.*model.train"):
        optimizer.step()


@pytest.mark.parametrize("batches", [1, 3])
def test_the_examples_of_a_step_of_several_batches_are_counted(batches):
    """What divides the penalty of noise: 12 examples of a step, for 5 steps of an epoch."""
    module = network()
    pruner, optimizer = pruner_of(module, "sparse_variational_dropout"), make_optimizer(module, RECIPE)
    pruner.attach(optimizer)
    for inputs in torch.randn(12, 2, 4, 4).chunk(batches):
        checkpointed = torch.utils.checkpoint.checkpoint(module, inputs, use_reentrant=False)
        (checkpointed.square().sum() / batches).backward()
    optimizer.step()
    assert pruner.state_dict()["hook"]["examples"] == 12 * STEPS


@pytest.mark.parametrize("name", ["l0_hard_concrete", "sparse_variational_dropout", "autopruner", "pcas"])
def test_a_copy_that_keeps_gates_is_told_and_none_is_written(name):
    module = network()
    pruner, optimizer = pruner_of(module, name), make_optimizer(module, RECIPE)
    pruner.attach(optimizer)
    for make in (copy.deepcopy, torch.optim.swa_utils.AveragedModel):
        with pytest.warns(UserWarning, match="keeps those of now, and no training reaches them"):
            made = make(module)
        assert torch.equal(
            made.eval()(draw(torch.Generator())[0][0]), module.eval()(draw(torch.Generator())[0][0])
        )
    with pytest.raises(ShrinkbenchError, match=r"save its state_dict.. and that of the Pruner"):
        torch.save(module, io.BytesIO())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        count = measure_size(module, SHAPE).parameters
        epochs(module, optimizer, 1, 1, EPOCHS)
        pruner.finish()
        copy.deepcopy(module)
        torch.save(module, io.BytesIO())
    assert count == sum(p.numel() for p in module.parameters())


class Averaging:
    """Moves weights halfway to what they were at the beginning after each step of the optimizer inside."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.weights = [p for group in optimizer.param_groups for p in group["params"]]
        self.slow = [p.detach().clone() for p in self.weights]

    def step(self):
        self.optimizer.step()
        for weight, slow in zip(self.weights, self.slow, strict=True):
            weight.data.lerp_(slow, 0.5)


@pytest.mark.parametrize("name", ["global_magnitude", "gradual_magnitude", "rigl", "iterative_magnitude"])
def test_what_wraps_an_optimizer_leaves_no_pruned_weight_alive(name):
    module, data = network(), Pictures()
    wrapped = Averaging(torch.optim.SGD(module.parameters(), lr=0.1))
    pruner = pruner_of(module, name)
    pruner.attach(wrapped)
    for _ in range(TOTAL):
        loss = F.cross_entropy(module(data.inputs), data.labels)
        weights = dict(module.named_parameters())
        assert all(not weights[n][~mask].any() for n, mask in pruner.masks.items())
        loss.backward()
        wrapped.step()
        wrapped.optimizer.zero_grad()
    pruner.finish()


@pytest.mark.parametrize("name", ["top_kast", "dynamic_network_surgery"])
def test_weights_beneath_refuse_what_moves_those_above(name):
    module, data = network(), Pictures()
    wrapped = Averaging(torch.optim.SGD(module.parameters(), lr=0.1))
    pruner_of(module, name).attach(wrapped)
    for turn in range(2):
        F.cross_entropy(module(data.inputs), data.labels).backward()
        if turn == 0:
            wrapped.step()
    with pytest.raises(ShrinkbenchError, match="moved after the optimizer's step"):
        wrapped.step()


def replaced(module, optimizer):
    module.load_state_dict(network().state_dict(), assign=True)


def renamed(module, optimizer):
    nn.utils.parametrizations.weight_norm(module[3])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (replaced, "'0.weight' can be pruned and is in no opt"),
        (renamed, "no longer has the parameter '3.weight'"),
    ],
)
@pytest.mark.parametrize("name", ["global_magnitude", "gradual_magnitude", "movement", "top_kast"])
def test_parameters_that_no_optimizer_moves_any_more_are_told(name, change, told):
    module = network()
    pruner, optimizer = pruner_of(module, name), make_optimizer(module, RECIPE)
    pruner.attach(optimizer)
    epochs(module, optimizer, 1, 1, 2)
    change(module, optimizer)
    with pytest.raises(ShrinkbenchError, match=told):
        epochs(module, optimizer, 1, 3, 3)


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_that_is_loaded_keeps_its_zeros_before_the_next_step(assign):
    module = network()
    pruner, optimizer = pruner_of(module, "global_magnitude"), make_optimizer(module, RECIPE)
    pruner.attach(optimizer)
    module.load_state_dict(network().state_dict(), assign=assign)
    assert not any(module.get_parameter(n)[~mask].any() for n, mask in pruner.masks.items())
    optimizer.param_groups[0]["params"] = list(module.parameters())
    epochs(module, optimizer, 1, 1, EPOCHS)
    require_done(module, pruner.finish())
    module.load_state_dict(network().state_dict(), assign=assign)  # it has let go
    assert any(module.get_parameter(n)[~mask].any() for n, mask in pruner.masks.items())


def test_another_layout_in_memory_and_frozen_layers_move_no_weights():
    module = network()
    pruner, optimizer = pruner_of(module, "top_kast"), make_optimizer(module, RECIPE)
    pruner.attach(optimizer)
    epochs(module, optimizer, 1, 1, 2)
    module.to(memory_format=torch.channels_last)
    epochs(module, optimizer, 1, 3, 3)
    module[1].requires_grad_(False)
    epochs(module, optimizer, 1, 4, 4)
    assert require_done(module, pruner.finish()) <= 1


@pytest.mark.parametrize("method", ["global_magnitude", "gradual_magnitude", "rigl", "l0_hard_concrete"])
@pytest.mark.parametrize("grows", [True, False])
def test_layers_that_come_or_go_while_a_pruner_follows_are_told_at_the_next_step(method, grows):
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    given = [(torch.randn(16, 8), torch.randint(0, 4, (16,))) for _ in range(5)]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    pruner = Pruner(module, method, compression=2, batches=given, total_steps=10, steps_per_epoch=5)
    pruner.attach(optimizer)

    def step(inputs, labels):
        F.cross_entropy(module(inputs), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    step(*given[0])
    if grows:
        module.append(nn.Linear(4, 4))
        optimizer.add_param_group({"params": module[5].parameters()})
    else:
        module[0].register_parameter("bias", None)
    with pytest.raises(
        ShrinkbenchError, match=r"has got '5.bias' since" if grows else r"has lost '0.bias' since"
    ):
        step(*given[1])


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_of_a_step_that_is_discarded_do_not_stay_with_the_gates(to_none):
    def trained(*, discards):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
        given = [(torch.randn(16, 8), torch.randint(0, 4, (16,))) for _ in range(5)]
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        settings = {"compression": 2, "batches": given, "total_steps": 10, "steps_per_epoch": 5}
        pruner = Pruner(module, "l0_hard_concrete", **settings)
        pruner.attach(optimizer)
        for number, (inputs, labels) in enumerate(given):
            if discards and number == 2:
                F.cross_entropy(module(100 * inputs), labels).backward()
                optimizer.zero_grad(set_to_none=to_none)
            for part in (inputs[:8], inputs[8:]):  # in two batches, whose gradients add up
                F.cross_entropy(module(part), labels[: len(part)]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=to_none)
        return pruner.state_dict()["hook"]["numbers"]

    plain, discarded = trained(discards=False), trained(discards=True)
    assert plain.keys() == discarded.keys()
    assert all(torch.equal(plain[name], discarded[name]) for name in plain)
