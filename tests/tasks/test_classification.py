"""Classification against torchmetrics and torch, and what is no classification."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import prune
from shrinkbench.spec import CLASSIFICATION, Recipe
from shrinkbench.tasks import TASKS, Classification, task_of
from shrinkbench.training import evaluate, train


def recipe(**fields):
    base = {"name": "test", "reference": "shrinkbench", "optimizer": "sgd", "learning_rate": 0.1}
    return Recipe(**{**base, "batch_size": 16, "epochs": 1, **fields})


class Given:
    """Batches as they are, for every split."""

    def __init__(self, inputs, labels, size=16):
        self.batches = list(zip(inputs.split(size), labels.split(size), strict=True))

    def train(self, batch_size, *, generator, augment):
        return iter(self.batches)

    def validation(self):
        return iter(self.batches)

    test = validation


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_quality_agrees_with_torchmetrics(classes):
    reference = pytest.importorskip("torchmetrics.functional.classification")
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(103, classes, generator=generator)
    labels = torch.randint(classes, (103,), generator=generator)
    quality = evaluate(nn.Identity(), Given(logits, labels).test())
    for name, k in (("top1", 1), ("top5", min(5, classes))):
        expected = reference.multiclass_accuracy(logits, labels, classes, top_k=k, average="micro")
        assert quality[name] == pytest.approx(expected.item(), abs=1e-6)
    assert quality["loss"] == pytest.approx(nn.CrossEntropyLoss()(logits, labels).item(), rel=1e-6)
    assert quality.examples == 103
    assert quality.metrics.keys() == {metric.name for metric in CLASSIFICATION.metrics}


def test_a_step_is_one_of_the_gradient_of_smoothed_cross_entropy():
    """By hand, without the loop: weight - rate x gradient."""
    torch.manual_seed(0)
    module = nn.Linear(6, 3)
    inputs, labels = torch.randn(12, 6), torch.arange(12) % 3
    other = copy.deepcopy(module)
    loss = nn.CrossEntropyLoss(label_smoothing=0.2)(other(inputs), labels)
    loss.backward()
    training = train(module, recipe(label_smoothing=0.2), Given(inputs, labels), seed=0)
    torch.testing.assert_close(module.weight, other.weight - 0.1 * other.weight.grad)
    assert training.epochs[0].train_loss == pytest.approx(loss.item(), rel=1e-6)


def test_a_single_last_image_joins_the_batch_before():
    inputs, labels = torch.arange(9.0).unsqueeze(1), torch.arange(9)
    batches = list(Classification().training_batches(Given(inputs, labels, size=4).test()))
    assert [batch.flatten().tolist() for batch, _ in batches] == [[0, 1, 2, 3], [4, 5, 6, 7, 8]]
    assert [batch.tolist() for _, batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7, 8]]


IMAGES, ROWS = torch.rand(4, 3, 8, 8), torch.rand(4, 3)
REFUSED = {
    "segmentation": (nn.Conv2d(3, 5, 1), IMAGES, torch.zeros(4, 8, 8).long(), "a score for each"),
    "maps, labels of images": (nn.Conv2d(3, 5, 1), IMAGES, torch.zeros(4).long(), r"gives \(4, 5, 8, 8\)"),
    "regression": (nn.Linear(3, 1), ROWS, torch.rand(4, 1), r"the network gives \(4, 1\)"),
    "one column": (nn.Linear(3, 1), ROWS, torch.zeros(4).long(), "two or more classes"),
    "float labels": (nn.Linear(3, 2), ROWS, torch.zeros(4), r"are float32 of shape \(4,\)"),
    "bool labels": (nn.Linear(3, 2), ROWS, torch.zeros(4).bool(), "are bool"),
    "short labels": (nn.Linear(3, 2), ROWS, torch.zeros(4).int(), "are int32 .* as int64"),
    "soft labels": (nn.Linear(3, 2), ROWS, torch.rand(4, 2), "one whole number as label"),
    "several labels": (nn.Linear(3, 2), ROWS, torch.zeros(4, 2).long(), r"of shape \(4, 2\)"),
    "from 1": (nn.Linear(3, 2), ROWS, torch.tensor([1, 2, 1, 2]), "the label 2 is none of the 2"),
    "ignored": (nn.Linear(3, 2), ROWS, torch.tensor([0, -100, 1, 1]), "the label -100 is none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_classification_is_refused_in_a_sentence(case):
    module, inputs, labels, message = REFUSED[case]
    with pytest.raises(ShrinkbenchError, match=message) as told:
        evaluate(module, [(inputs, labels)])
    assert len(str(told.value)) < 300
    weights = copy.deepcopy(module.state_dict())
    with pytest.raises(ShrinkbenchError, match=message):
        train(module, recipe(), Given(inputs, labels), seed=0)
    assert all(torch.equal(a, b) for a, b in zip(weights.values(), module.state_dict().values(), strict=True))


def test_whole_numbers_and_an_empty_batch_are_taken():
    logits = torch.eye(3)
    quality = evaluate(nn.Identity(), [(logits, torch.arange(3)), (logits[:0], torch.arange(0))])
    assert (quality["top1"], quality.examples) == (1, 3)


def test_scores_of_some_images_that_are_no_numbers_are_of_the_data():
    rows = torch.rand(4, 3)
    rows[1, 0] = float("nan")
    with pytest.raises(ShrinkbenchError, match=r"of 1 of 4 images are not finite.*look for NaN"):
        evaluate(nn.Linear(3, 2), [(rows[:2], torch.zeros(2).long()), (rows[2:], torch.zeros(2).long())])
    with pytest.raises(ShrinkbenchError, match="the network has diverged"):
        evaluate(nn.Linear(3, 2), [(rows[1:2], torch.zeros(1).long())])


def test_every_task_is_found_by_its_objective():
    assert task_of(CLASSIFICATION) == Classification()
    for name, make in TASKS.items():
        assert make().objective.name == name
        assert task_of(make().objective) == make()


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_inputs_go_in_in_the_precision_of_the_network(kind):
    network = nn.Linear(3, 2)
    expected = evaluate(network, [(ROWS, torch.tensor([0, 1, 1, 0]))])
    for module, inputs in ((copy.deepcopy(network).to(kind), ROWS), (network, ROWS.to(kind))):
        found = evaluate(module, [(inputs, torch.tensor([0, 1, 1, 0]))])
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6 if kind == torch.float64 else 1e-2)


def test_a_network_without_values_is_refused():
    with pytest.raises(ShrinkbenchError, match="'weight' is on the meta device and has no values"):
        evaluate(nn.Linear(3, 2, device="meta"), [(ROWS, torch.tensor([0, 1, 1, 0]))])
    with pytest.raises(ShrinkbenchError, match="'weight' is on the meta device and has no values"):
        prune(nn.Linear(3, 2, device="meta"), "global_magnitude", compression=1.2, prune_classifier=True)
