"""Two processes that train together do what one does."""

import copy
import functools

import pytest
import torch
from sample_networks import ConvNet, batches, seeded
from torch import nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import Upholder, prune
from shrinkbench.spec import Recipe
from shrinkbench.tasks import Metric, Supervised
from shrinkbench.training import evaluate, train
from shrinkbench.training.shares import count_of, share_of, whole_batches
from shrinkbench.training.team import ALONE
from shrinkbench.training.together import places_of, team_of

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """Batch norm and no dropout, whose draws differ between processes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(F.relu(self.norm(self.conv(x))).mean((2, 3)))


class Pictures:
    """29 images: the last batch has one, is joined to the one before, and two processes share it unequally."""

    def __init__(self, count=29):
        ((self.inputs, self.labels),) = batches(1, count)

    def train(self, batch_size, *, generator, augment):
        for rows in torch.randperm(len(self.labels), generator=generator).split(batch_size):
            yield self.inputs[rows], self.labels[rows]

    def validation(self):
        yield self.inputs[:20], self.labels[:20]
        yield self.inputs[20:21], self.labels[20:21]

    def test(self):
        yield self.inputs, self.labels


def recipe(**fields):
    base = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.05, "batch_size": 4, "epochs": 2}
    return Recipe(name="test", reference="shrinkbench", **{**base, **fields})


def error(outputs, targets):
    return (outputs.argmax(1) != targets).float()


TASK = Supervised(F.cross_entropy, {"error": Metric(error, "lower")})


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """One training by one process and by two."""
    found = []
    for devices in (1, 2):
        module = seeded(Net)
        masks = prune(module, "global_magnitude", compression=2, input_shape=SHAPE)
        masks.apply(module)
        told = []
        training = train(
            module,
            recipe(selection="best-validation", clip_gradient_norm=1.0, label_smoothing=0.1),
            Pictures(),
            seed=3,
            hooks=[Upholder(module, masks)],
            devices=devices,
            checkpoint=tmp_path_factory.mktemp("x") / "checkpoint.pt",
            on_epoch=told.append,
        )
        found.append((module, masks, training, told))
    return found


@pytest.mark.slow
def test_weights_and_statistics_are_equal_up_to_rounding(both):
    (one, masks, *_), (two, *_) = both
    for name, tensor in one.state_dict().items():
        assert torch.allclose(tensor, two.state_dict()[name], rtol=1e-4, atol=1e-5), name
    assert all(not two.get_parameter(n)[~m].any() for n, m in masks.items())


@pytest.mark.slow
def test_metrics_are_equal_up_to_rounding_and_count_each_image_once(both):
    (_, _, one, told_one), (_, _, two, told_two) = both
    assert len(told_one) == len(told_two) == len(one.epochs) == len(two.epochs) == 2
    assert two.validation.examples == 21
    for a, b in zip(one.epochs, two.epochs, strict=True):
        assert b.train_loss == pytest.approx(a.train_loss, rel=1e-4)
        assert b.validation == pytest.approx(a.validation, rel=1e-4)


def follow_evaluation(team):
    evaluate(seeded(ConvNet), Pictures(3).test(), task=TASK, team=team)
    evaluate(seeded(ConvNet), [(x[:1], y[:1]) for x, y in Pictures(1).test()], team=team)


@pytest.mark.slow
def test_each_example_is_evaluated_once_where_there_are_few():
    with team_of(places_of("cpu", 2), follow_evaluation) as team:
        quality = evaluate(seeded(ConvNet), Pictures(3).test(), task=TASK, team=team)
        single = evaluate(seeded(ConvNet), Pictures(1).test(), team=team)
    assert quality.examples == 3
    assert quality.metrics == pytest.approx(evaluate(seeded(ConvNet), Pictures(3).test(), task=TASK).metrics)
    assert single.examples == 1


def follow_failure(team):
    raise RuntimeError("this process fails alone")


@pytest.mark.slow
def test_a_process_that_fails_alone_ends_the_training_with_a_sentence():
    ended = pytest.raises(ShrinkbenchError, match="a process of 2 that trained together has ended")
    with ended, team_of(places_of("cpu", 2), follow_failure) as team:
        team.gather(team.tell(1))


def test_a_batch_that_cannot_be_dealt_out_is_refused():
    with pytest.raises(ShrinkbenchError, match="batches of 4, which 3 processes cannot share"):
        train(seeded(Net), recipe(), Pictures(), seed=0, devices=3)


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(ShrinkbenchError, match="sends the network, data and hooks"):
        train(seeded(Net), recipe(), Pictures(), seed=0, devices=2, after_step=lambda: None)


@pytest.mark.parametrize(
    "batch", [torch.arange(7), (torch.arange(7), torch.arange(7)), {"a": torch.arange(7)}, list("abcdefg")]
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 9])
def test_shares_are_the_batch(batch, size):
    parts = [share_of(batch, rank, size) for rank in range(size)]
    assert sum(map(count_of, parts)) == 7
    assert max(map(count_of, parts)) - min(map(count_of, parts)) <= 1
    flat = [x for part in parts for x in (part if isinstance(part, list | torch.Tensor) else first(part))]
    assert [str(x) for x in flat] == [str(x) for x in (batch if isinstance(batch, list) else torch.arange(7))]


def first(part):
    return next(iter(part.values())) if isinstance(part, dict) else part[0]


def test_parts_of_several_lengths_are_refused():
    with pytest.raises(ShrinkbenchError, match="have 3, 4 examples"):
        count_of((torch.zeros(3), torch.zeros(4)))


class Pretending:
    """A team of two whose other process has nothing."""

    rank, size = 0, 2

    def tell(self, value):
        return value

    def gather(self, value):
        return [value]

    def add(self, tensors):
        pass


@pytest.mark.parametrize(
    "make", [nn.BatchNorm2d, functools.partial(nn.BatchNorm2d, momentum=None, affine=False)]
)
def test_batch_norm_over_processes_is_batch_norm(make):
    ours, theirs = make(3), make(3)
    inputs = torch.randn(4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = []
    for norm, team in ((ours, Pretending()), (theirs, ALONE)):
        norm.double()
        leaf = inputs.clone().requires_grad_()
        with whole_batches(nn.Sequential(norm), team):
            output = norm(leaf)
            (output * torch.arange(5.0)).square().sum().backward()
        results.append([output.detach(), leaf.grad, *norm.state_dict().values()])
    assert all(torch.allclose(a, b) for a, b in zip(*results, strict=True))
    assert "forward" not in vars(ours)
    copy.deepcopy(ours)
