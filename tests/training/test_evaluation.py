"""What a network does not take is told of the network and its data, before it is measured."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shrinkbench.datasets import load_dataset
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.card import ModelCard
from shrinkbench.runner.planning import check_compatible
from shrinkbench.tasks import Classification, Detection, Metric, Supervised
from shrinkbench.tasks.batches import loss_of
from shrinkbench.tasks.language_modelling import LanguageModelling
from shrinkbench.training.evaluation import CLASSIFY, evaluate, require_runs
from shrinkbench.training.recipe import RECIPES

NAMES = {"network": "hf:short", "dataset": "blocks"}


class Positions(nn.Module):
    """A network of eight positions."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.out = nn.Embedding(8, 4), nn.Linear(4, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.place(torch.arange(tokens.shape[1]))).expand(len(tokens), -1, -1)


def test_blocks_longer_than_a_network_takes_are_told():
    module, task = Positions().train(), LanguageModelling()
    require_runs(module, [torch.zeros(1, 8).long()], task=task, **NAMES)
    with pytest.raises(ShrinkbenchError, match=r"'hf:short' does not run on what 'blocks' holds \(IndexError"):
        require_runs(module, [torch.zeros(1, 9).long()], task=task, **NAMES)
    assert module.training


def test_only_the_first_batch_is_tried_and_tasks_of_other_batches_are_left():
    fits, wrong = (torch.rand(2, 4), torch.zeros(2).long()), (torch.rand(2, 3), torch.zeros(2).long())
    require_runs(nn.Linear(4, 2), [fits, wrong], task=Classification(), **NAMES)
    require_runs(nn.Linear(4, 2), [], task=Classification(), **NAMES)
    require_runs(nn.Linear(4, 2), [object()], task=Detection(), **NAMES)
    with pytest.raises(ShrinkbenchError, match="name data that its forward pass takes"):
        require_runs(nn.Linear(4, 2), [wrong], task=Classification(), **NAMES)


def test_a_network_of_tokens_takes_no_images():
    card = ModelCard(name="hf:gpt2", definition="", build=lambda _: nn.Linear(1, 1), takes="tokens")
    with pytest.raises(ShrinkbenchError, match="takes tokens, and dataset 'digits' has numbers of shape 1x8x8"):
        check_compatible(load_dataset("digits", None), card)


def raising(*_):
    raise KeyError("mine")


OK = Metric(lambda y, t: (y.argmax(1) == t).float(), "higher")


class OwnTask:
    objective = Supervised(F.cross_entropy, {"acc": OK}, name="own").objective

    def __init__(self, loss=raising, evaluate=raising):
        self.loss, self.found = loss, evaluate

    def training_batches(self, batches):
        yield from batches

    def evaluate(self, module, batches, *, precision):
        return self.found()


FEW = [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))]


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (Supervised(raising, {"acc": OK}), "the criterion of task 'supervised' failed: KeyError: 'mine'"),
        (Supervised(F.cross_entropy, {"acc": Metric(raising, "higher")}), "metric 'acc' of task .* failed"),
        (OwnTask(), "the evaluation of task 'own' failed: KeyError: 'mine'; mend it"),
        (OwnTask(evaluate=dict), "the evaluation of task 'own' gives a value of type dict; return"),
    ],
)
def test_what_fails_in_a_task_of_ones_own_is_told_as_its(task, told):
    """It was told as a fault of shrinkbench, with exit code 70."""
    with pytest.raises(ShrinkbenchError, match=told):
        evaluate(nn.Linear(3, 2), FEW, task=task)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("memory"),
        ValueError("no file SHIPPED to MPS"),
        torch.linalg.LinAlgError("singular matrix"),
        RuntimeError("elements of the written-to tensor refer to a single memory location"),
    ],
)
def test_words_of_devices_in_what_code_of_ones_own_raises_make_it_no_fault_of_theirs(error):
    """Whatever said memory, or is of a matrix without inverse, was told as a fault of shrinkbench."""

    def criterion(*_):
        raise error

    with pytest.raises(ShrinkbenchError, match="the criterion of task 'supervised' failed"):
        evaluate(nn.Linear(3, 2), FEW, task=Supervised(criterion, {"acc": OK}))


@pytest.mark.parametrize(
    "text", ["CUDA error: an illegal access", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory"]
)
def test_what_devices_say_stays_what_it_is(text):
    def criterion(*_):
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match=text) as told:
        evaluate(nn.Linear(3, 2), FEW, task=Supervised(criterion, {"acc": OK}))
    assert not isinstance(told.value, ShrinkbenchError)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (raising, "the loss of task 'own' failed: KeyError"),
        (lambda *_: 3.0, "the loss of task 'own' failed: TypeError"),
        (lambda *_: (3.0, 4), "gives a loss of type float"),
        (lambda module, batch, _: (module(batch[0]), 4), r"gives a loss of shape \(4, 2\)"),
        (
            lambda module, batch, _: (module(batch[0]).mean().detach(), 4),
            "that depends on no weight that trains",
        ),
    ],
)
def test_a_loss_that_cannot_be_learned_from_is_told(loss, told):
    with pytest.raises(ShrinkbenchError, match=told):
        loss_of(OwnTask(loss), nn.Linear(3, 2), FEW[0], RECIPES.get("digits-train"))


class Cut(nn.Linear):
    def forward(self, x):
        return super().forward(x).detach()


class Missing(nn.Linear):
    def forward(self, x):
        return {}["logits"]


@pytest.mark.parametrize(
    ("network", "told"), [(Cut, "depends on no weight that trains"), (Missing, "KeyError")]
)
def test_what_a_network_does_to_its_outputs_is_no_fault_of_ours(network, told):
    with pytest.raises(ShrinkbenchError, match=told):
        loss_of(CLASSIFY, network(3, 2), FEW[0], RECIPES.get("digits-train"))
