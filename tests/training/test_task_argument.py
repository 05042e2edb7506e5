"""Training by a task of one's own: its loss, its metric and the direction of that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import EarlyStopping, MetricSpec, Objective, Recipe
from shrinkbench.spec.measures import Quality
from shrinkbench.training import train

VALUES = (0.5, 0.3, 0.8, 0.3, 0.6)  # what is measured, epoch by epoch


class Regression:
    """Mean squared error; the metric is read off a list, and called better in one direction."""

    def __init__(self, direction, values=VALUES):
        metric = MetricSpec(name="distance", direction=direction, unit="metres", lower=0)
        self.objective = Objective(name="regression", loss="squared", metrics=(metric,), headline="distance")
        self.values = iter(values)

    def training_batches(self, batches):
        return iter(batches)

    def loss(self, module, batch, recipe):
        inputs, targets = batch
        return (module(inputs) - targets).square().mean(), len(inputs)

    def evaluate(self, module, batches, *, precision):
        return Quality(metrics={"distance": next(self.values)}, examples=len(list(batches)))


class Line:
    """y = 2 x, exactly."""

    def train(self, batch_size, *, generator, augment):
        inputs = torch.linspace(-1, 1, 12).unsqueeze(1)
        yield from zip(inputs.split(batch_size), (2 * inputs).split(batch_size), strict=True)

    def validation(self):
        return iter([None])

    test = validation


class Unvalidated(Line):
    def validation(self):
        return None


def recipe(**fields):
    base = {"name": "test", "reference": "shrinkbench", "optimizer": "sgd", "learning_rate": 0.1}
    return Recipe(**{**base, "batch_size": 4, "epochs": len(VALUES), "selection": "best-validation", **fields})


def line():
    module = nn.Linear(1, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module


@pytest.mark.parametrize(("direction", "best"), [("higher", 3), ("lower", 2)])
@pytest.mark.parametrize("selection", ["best-validation", "best-test"])
def test_the_best_epoch_is_the_first_with_the_best_metric_in_its_direction(direction, best, selection):
    beside = (0.7,) if selection == "best-test" else ()  # validation is measured all the same
    values = [value for own in VALUES for value in (*beside, own)]
    weights, module = [], line()
    training = train(
        module,
        recipe(selection=selection),
        Line(),
        seed=0,
        task=Regression(direction, values),
        on_epoch=lambda record: weights.append(module.weight.item()),
    )
    assert training.selected_epoch == best
    assert module.weight.item() == weights[best - 1] != weights[-1]


def test_patience_ends_where_a_lower_metric_no_longer_falls():
    settings = recipe(early_stopping=EarlyStopping(patience=2))
    assert len(train(line(), settings, Line(), seed=0, task=Regression("lower")).epochs) == 4
    assert len(train(line(), settings, Line(), seed=0, task=Regression("higher")).epochs) == 5


def test_the_tasks_loss_is_what_is_trained():
    """One step over all of y = 2 x from zero: the rate times the gradient, which is 4 mean(x^2)."""
    module = line()
    settings = recipe(epochs=1, batch_size=12, selection="last")
    training = train(module, settings, Line(), seed=0, task=Regression("lower"))
    square = torch.linspace(-1, 1, 12).square().mean().item()
    assert training.epochs[0].train_loss == pytest.approx(4 * square)
    assert module.weight.item() == pytest.approx(0.1 * 4 * square)


def test_an_interrupted_training_remembers_the_best_of_a_falling_metric(tmp_path):
    class Killed(BaseException):
        pass

    def die(record):
        if record.epoch == 2:
            raise Killed

    complete = train(line(), recipe(), Line(), seed=0, task=Regression("lower"))
    checkpoint, task = tmp_path / "checkpoint.pt", Regression("lower")
    with pytest.raises(Killed):
        train(line(), recipe(), Line(), seed=0, task=task, checkpoint=checkpoint, on_epoch=die)
    assert train(line(), recipe(), Line(), seed=0, task=task, checkpoint=checkpoint) == complete


def test_without_a_validation_split_the_last_epoch_is_taken_and_nothing_can_be_selected():
    training = train(line(), recipe(selection="last"), Unvalidated(), seed=0, task=Regression("lower"))
    assert (training.selected_epoch, training.validation) == (len(VALUES), None)
    assert [record.validation for record in training.epochs] == [{}] * len(VALUES)
    for fields in ({}, {"selection": "last", "early_stopping": EarlyStopping(patience=2)}):
        module = line()
        with pytest.raises(ShrinkbenchError, match="looks at a validation split, and there is none"):
            train(module, recipe(**fields), Unvalidated(), seed=0, task=Regression("lower"))
        assert module.weight.item() == 0
