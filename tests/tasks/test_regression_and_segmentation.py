"""Regression and semantic segmentation measure what independent loops measure, and refuse what is neither."""

import math

import pytest
import torch
from torch import nn

import shrinkbench
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.tasks import Metric, Regression, SemanticSegmentation, Supervised

torch.manual_seed(0)
NUMBERS = [(torch.randn(7, 3), torch.randn(7)), (torch.randn(2, 3), torch.randn(2))]
IMAGES = [
    (torch.randn(3, 3, 8, 6), torch.randint(0, 4, (3, 8, 6))),
    (torch.randn(1, 3, 8, 6), torch.randint(0, 4, (1, 8, 6))),
]
IMAGES[0][1][0, :2] = 255


@pytest.mark.parametrize("outputs", [1, 2])
def test_errors_are_those_of_plain_sums(outputs):
    network = nn.Linear(3, outputs)
    batches = [(x, y if outputs == 1 else torch.stack([y, 2 * y], 1)) for x, y in NUMBERS]
    found = shrinkbench.evaluate(network, batches, task=Regression())
    pairs = [
        (float(a), float(b))
        for x, y in batches
        for rows in zip(network(x).detach(), y.reshape(len(y), outputs), strict=True)
        for a, b in zip(*rows, strict=True)
    ]
    squared = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
    assert found.examples == 9
    assert found["rmse"] == pytest.approx(math.sqrt(squared), rel=1e-6)
    assert found["loss"] == pytest.approx(squared, rel=1e-6)
    assert found["mae"] == pytest.approx(sum(abs(a - b) for a, b in pairs) / len(pairs), rel=1e-6)
    shares = []
    for column in range(outputs):
        own = pairs[column::outputs]
        mean = sum(b for _, b in own) / len(own)
        shares.append(1 - sum((a - b) ** 2 for a, b in own) / sum((b - mean) ** 2 for _, b in own))
    assert found["r2"] == pytest.approx(sum(shares) / outputs, rel=1e-5)
    inputs, targets = batches[0]
    outputs = network(inputs).detach()
    expected = float(((outputs.reshape(targets.shape) - targets) ** 2).mean())
    assert float(Regression().criterion(outputs, targets)) == pytest.approx(expected)


@pytest.mark.parametrize("unit", [1e-12, 1e-3, 1.0, 1e6])
def test_r2_does_not_depend_on_the_unit(unit):
    targets = torch.arange(9.0)
    away = torch.tensor([1.0, -1.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0])
    batches = [((targets + away)[:, None] * unit, targets * unit)]
    found = shrinkbench.evaluate(nn.Identity(), batches, task=Regression())
    assert found["r2"] == pytest.approx(1 - 8 / 60, rel=1e-6)  # sums of squares by hand


def test_errors_beyond_single_precision_are_refused():
    batches = [(torch.zeros(2, 1), torch.tensor([3e20, -3e20]))]
    with pytest.raises(ShrinkbenchError, match="has diverged: its mean squared error over 2 examples is"):
        shrinkbench.evaluate(nn.Identity(), batches, task=Regression())


def test_r2_is_left_out_where_it_is_undefined():
    alike = shrinkbench.evaluate(nn.Linear(3, 1), [(torch.randn(4, 3), torch.ones(4))], task=Regression())
    assert {*alike.metrics} == {"rmse", "mae", "loss"}
    assert (
        "r2"
        not in shrinkbench.evaluate(
            nn.Linear(3, 1), [(torch.randn(1, 3), torch.ones(1))], task=Regression()
        ).metrics
    )


def test_intersections_over_unions_are_those_of_counted_pixels():
    network = nn.Conv2d(3, 5, 1)  # one class more than occurs in the targets
    found = shrinkbench.evaluate(network, IMAGES, task=SemanticSegmentation())
    both, either, right, losses = [0] * 5, [0] * 5, 0, []
    for images, targets in IMAGES:
        logits = network(images).detach().permute(0, 2, 3, 1).reshape(-1, 5)
        for row, target in zip(logits, targets.flatten().tolist(), strict=True):
            if target == 255:
                continue
            guess = int(row.argmax())
            right += guess == target
            losses.append(float(row.logsumexp(0) - row[target]))
            for label in range(5):
                both[label] += guess == target == label
                either[label] += label in (guess, target)
    shares = [b / e for b, e in zip(both, either, strict=True) if e]
    assert found["miou"] == pytest.approx(sum(shares) / len(shares), rel=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(right / len(losses))
    assert found["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert found.examples == 4


def test_networks_of_torchvisions_and_of_coarse_outputs():
    class Coarse(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 2, stride=2)

        def forward(self, x):
            return {"out": self.conv(x), "aux": x}

    network = Coarse()
    found = shrinkbench.evaluate(network, IMAGES, task=SemanticSegmentation())
    enlarged = nn.Sequential(network.conv, nn.Upsample(size=(8, 6), mode="bilinear"))
    assert found == shrinkbench.evaluate(enlarged, IMAGES, task=SemanticSegmentation())


@pytest.mark.parametrize(
    ("task", "network", "batch", "told"),
    [
        (None, nn.Conv2d(3, 4, 1), IMAGES[0], "classification takes a score for each"),
        (None, nn.Linear(3, 1), NUMBERS[0], "classification takes a score for each"),
        (None, nn.Linear(3, 2), NUMBERS[0], "classification takes one whole number"),
        (Regression(), nn.Linear(3, 2), NUMBERS[0], "regression takes one number .* float32 7x2 and"),
        (Regression(), nn.Linear(3, 1), (NUMBERS[0][0], None), "regression takes one number"),
        (SemanticSegmentation(), nn.Conv2d(3, 1, 1), IMAGES[0], "two or more classes"),
        (
            SemanticSegmentation(),
            nn.Conv2d(3, 3, 1),
            IMAGES[0],
            "classes 0 to 3, and the network tells 3 apart",
        ),
        (SemanticSegmentation(), nn.Conv2d(3, 4, 1), (IMAGES[0][0], torch.rand(3, 8, 6)), "whole numbers"),
        (
            SemanticSegmentation(),
            nn.Conv2d(3, 4, 1),
            (IMAGES[0][0], torch.full((3, 8, 6), 255)),
            "no labelled pixels",
        ),
    ],
)
def test_what_is_no_such_task_is_refused_in_a_sentence(task, network, batch, told):
    with pytest.raises(ShrinkbenchError, match=told) as refused:
        shrinkbench.evaluate(network, [batch], **({"task": task} if task else {}))
    assert len(str(refused.value)) < 300


class Bare(nn.Linear):
    def forward(self, x):
        return super().forward(x).squeeze(-1)


def test_one_bare_number_for_each_example_is_as_good_as_a_column():
    network, column = Bare(3, 1), nn.Linear(3, 1)
    column.load_state_dict(network.state_dict())
    found, wanted = (shrinkbench.evaluate(n, NUMBERS, task=Regression()) for n in (network, column))
    assert found == wanted


def test_large_targets_keep_their_digits_in_double_precision():
    """A float32 next to 1e9 is 64 away."""
    targets = 1e9 + torch.arange(4).double()
    network = nn.Identity()
    network.weight = nn.Parameter(torch.ones((), dtype=torch.float64))
    found = shrinkbench.evaluate(network, [(targets[:, None] + 0.5, targets)], task=Regression())
    assert found["rmse"] == found["mae"] == 0.5


def test_digits_of_targets_count_beside_a_network_of_less_precision():
    network = nn.Linear(1, 1).requires_grad_(False)
    network.weight.fill_(1)
    network.bias.fill_(0)
    inputs, targets = torch.full((5, 1), 1e9), 1e9 + torch.tensor([0.0, 1, 2, 3, 5]).double()
    inputs[0] += 64
    found = shrinkbench.evaluate(network, [(inputs, targets)], task=Regression())
    wrong = [64, -1, -2, -3, -5]
    assert found["loss"] == pytest.approx(sum(x * x for x in wrong) / 5, rel=1e-12)
    assert found["mae"] == pytest.approx(75 / 5, rel=1e-12)
    spread = sum((x - 2.2) ** 2 for x in (0, 1, 2, 3, 5))
    assert found["r2"] == pytest.approx(1 - sum(x * x for x in wrong) / spread, rel=1e-9)


@pytest.mark.parametrize(("outputs", "told"), [(0, "one number for each"), (1, "has diverged")])
def test_no_numbers_and_numbers_beyond_float32_are_told_in_a_sentence(outputs, told):
    inputs = torch.full((3, outputs), 1e30)
    with pytest.raises(ShrinkbenchError, match=told):
        shrinkbench.evaluate(nn.Hardtanh(-1e38, 1e38), [(inputs, -inputs)], task=Regression())


def test_targets_that_are_no_numbers_are_told_as_such():
    targets = torch.tensor([1.0, math.nan, 2.0, math.inf])
    with pytest.raises(ShrinkbenchError, match="2 of 4 examples have targets that are no finite numbers"):
        shrinkbench.evaluate(nn.Linear(3, 1), [(torch.randn(4, 3), targets)], task=Regression())


def test_one_number_for_all_examples_is_no_regression():
    with pytest.raises(ShrinkbenchError, match="takes one number for each"):
        Regression().criterion(torch.tensor(1.0), torch.ones(4))


def test_a_batch_without_a_labelled_pixel_teaches_nothing():
    network, task = nn.Conv2d(3, 5, 1), SemanticSegmentation()
    recipe = shrinkbench.spec.Recipe(
        name="t", reference="shrinkbench", optimizer="sgd", learning_rate=0.1, batch_size=2, epochs=1
    )
    images, nothing = IMAGES[0][0], torch.full((3, 8, 6), 255)
    for loss in (task.loss(network, (images, nothing), recipe)[0], task.criterion(network(images), nothing)):
        loss.backward()
        assert loss.item() == 0
    assert not network.weight.grad.any()


def test_a_batch_of_no_examples_counts_for_nothing():
    """As the rest that a batch sampler of one's own may leave; alone it is no divergence."""
    inputs, none = torch.arange(6.0).reshape(3, 2), torch.zeros(0, 2)
    supervised = Supervised(
        nn.functional.mse_loss, {"apart": Metric(lambda y, t: (y - t).abs().sum(1), "lower")}
    )
    for task in (Regression(), supervised):
        whole = shrinkbench.evaluate(nn.Identity(), [(inputs, inputs + 1)], task=task)
        assert shrinkbench.evaluate(nn.Identity(), [(inputs, inputs + 1), (none, none)], task=task) == whole
        with pytest.raises(ShrinkbenchError, match="no examples to evaluate on"):
            shrinkbench.evaluate(nn.Identity(), [(none, none)], task=task)


def test_segmentation_of_other_classes_in_another_batch_is_refused():
    class Fewer(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 5, 1)

        def forward(self, x):
            return self.layer(x)[:, : 5 if len(x) > 1 else 3]

    batches = [(torch.randn(n, 1, 4, 4), torch.zeros(n, 4, 4, dtype=torch.int64)) for n in (2, 1)]
    for given in (batches, batches[::-1]):
        with pytest.raises(ShrinkbenchError, match=r"tells \d classes apart in one batch and \d in another"):
            SemanticSegmentation().evaluate(Fewer(), given)
