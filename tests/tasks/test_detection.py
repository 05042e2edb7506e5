"""Detection: precision by hand, the sum of losses, and objects that are difficult."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import DETECTION, Recipe, detection_of
from shrinkbench.tasks import Detection, Objects
from shrinkbench.training import evaluate

TASK = Detection(detection_of(("cat", "dog", "cow")))
CAT, DOG = 1, 2
IMAGE = torch.zeros(3, 64, 64)
LEFT, RIGHT = [0, 0, 20, 20], [30, 0, 50, 20]
measured = pytest.mark.skipif(
    find_spec("torchmetrics") is None or find_spec("pycocotools") is None,
    reason="the extra 'detection' is not installed",
)


def objects(*found):
    """Boxes with their labels; a third entry marks a difficult one."""
    boxes, labels = [entry[0] for entry in found], [entry[1] for entry in found]
    difficult = [len(entry) > 2 for entry in found]
    box = torch.tensor(boxes).float().reshape(-1, 4)
    return Objects(box, torch.tensor(labels, dtype=torch.int64), torch.tensor(difficult, dtype=torch.bool))


class Says(nn.Module):
    """Gives for each image in turn what it was told: boxes, labels and scores."""

    def __init__(self, *answers):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.answers = iter(answers)

    def forward(self, images, targets=None):
        if self.training:
            labels = sum(len(target["labels"]) for target in targets)
            return {"box": self.weight * len(images), "label": self.weight * labels}
        found = next(self.answers)
        return [
            {
                "boxes": torch.tensor([box for box, _, _ in found]).float().reshape(-1, 4),
                "labels": torch.tensor([label for _, label, _ in found]).long(),
                "scores": torch.tensor([score for _, _, score in found]).float(),
            }
        ]


def quality(truth, answers):
    return evaluate(Says(*answers), [[(IMAGE, found)] for found in truth], task=TASK)


@measured
def test_all_found_and_nothing_else_is_one():
    found = quality([objects((LEFT, CAT), (RIGHT, DOG))], [[(LEFT, CAT, 0.9), (RIGHT, DOG, 0.8)]])
    assert found.metrics == {"map50": 1, "ap50_cat": 1, "ap50_dog": 1}
    assert found.examples == 1


@measured
def test_one_of_two_found_reaches_half_of_the_points_of_recall():
    """Of recall 0, 0.01, ..., 1, 51 of 101 points lie at or below the half that is found, at precision 1."""
    found = quality([objects((LEFT, CAT), (RIGHT, CAT))], [[(LEFT, CAT, 0.9)]])
    assert found["map50"] == pytest.approx(51 / 101)


@measured
def test_a_false_one_that_ranks_first_halves_precision():
    found = quality([objects((LEFT, CAT))], [[(RIGHT, CAT, 0.9), (LEFT, CAT, 0.8)]])
    assert found["map50"] == pytest.approx(0.5)


@measured
@pytest.mark.parametrize(("shift", "expected"), [(6, 1), (7, 0)])
def test_boxes_count_from_an_overlap_of_one_half(shift, expected):
    """Squares of side 20, moved by 6: 280 of 520 in common; by 7: 260 of 540, below one half."""
    moved = [shift, 0, 20 + shift, 20]
    assert quality([objects((LEFT, CAT))], [[(moved, CAT, 0.9)]])["map50"] == expected


@measured
def test_difficult_objects_count_neither_way():
    truth = [objects((LEFT, CAT), (RIGHT, CAT, "difficult"))]
    assert quality(truth, [[(LEFT, CAT, 0.9)]])["map50"] == 1
    assert quality(truth, [[(RIGHT, CAT, 0.99), (LEFT, CAT, 0.9)]])["map50"] == 1


@measured
def test_the_mean_is_over_the_classes_that_occur():
    found = quality([objects((LEFT, CAT), (RIGHT, DOG))], [[(LEFT, CAT, 0.9)]])
    assert found.metrics == {"map50": 0.5, "ap50_cat": 1, "ap50_dog": 0}


@measured
def test_images_without_an_object_that_counts_have_no_precision():
    with pytest.raises(ShrinkbenchError, match="no image has an object that is not difficult"):
        quality([objects((LEFT, CAT, "difficult"))], [[(LEFT, CAT, 0.9)]])
    with pytest.raises(ShrinkbenchError, match="no image has an object that is not difficult"):
        quality([objects()], [[]])
    with pytest.raises(ShrinkbenchError, match="no images to evaluate on"):
        quality([], [])


def test_the_loss_is_the_sum_of_the_networks_own():
    module = Says()
    recipe = Recipe(
        name="t", reference="shrinkbench", optimizer="sgd", learning_rate=0.1, batch_size=2, epochs=1
    )
    batch = [(IMAGE, objects((LEFT, CAT), (RIGHT, DOG))), (IMAGE, objects((LEFT, CAT)))]
    loss, count = TASK.loss(module, batch, recipe)
    loss.backward()
    assert (loss.item(), count, module.weight.grad.item()) == (2 * 2 + 2 * 3, 2, 5)
    module.weight.data.fill_(float("inf"))
    with pytest.raises(ShrinkbenchError, match=r"the loss is inf; lower the learning rate \(0.1\)"):
        TASK.loss(module, batch, recipe)


def test_a_class_has_a_metric_by_its_label():
    assert DETECTION.headline == "map50"
    assert [metric.name for metric in TASK.objective.metrics] == ["map50", "ap50_cat", "ap50_dog", "ap50_cow"]
    assert {(metric.lower, metric.upper, metric.direction) for metric in TASK.objective.metrics} == {
        (0, 1, "higher")
    }


@measured
def test_every_box_of_an_image_counts():
    """COCO takes the first 100: of 150 objects that are found, a third would be missed."""
    boxes = [
        [30 * row, 30 * column, 30 * row + 20, 30 * column + 20] for row in range(15) for column in range(10)
    ]
    answers = [(box, CAT, 0.9 - 0.001 * place) for place, box in enumerate(boxes)]
    assert quality([objects(*((box, CAT) for box in boxes))], [answers]).metrics == {"map50": 1, "ap50_cat": 1}


@measured
def test_precision_is_that_of_pycocotools():
    """Of 50 objects recalls are whole hundredths, on which COCO's points lie."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    drawn = torch.Generator().manual_seed(0)
    images, truth, told = 10, [], []
    for image in range(images):
        for place in range(5):
            box = [30 * place, 0, 30 * place + 20, 20]
            truth.append((image, box))
            for _ in range(2):
                shift, score = torch.rand(2, generator=drawn).tolist()
                told.append((image, [box[0] + 14 * shift, 0, box[2] + 14 * shift, 20], score))
    whole = {"categories": [{"id": CAT}], "images": [{"id": image} for image in range(images)]}
    as_coco = [
        {"image_id": image, "bbox": [a, b, c - a, d - b], "category_id": CAT, "area": (c - a) * (d - b)}
        for image, (a, b, c, d), *_ in (*truth, *told)
    ]
    reference, found = COCO(), COCO()
    given = [{**each, "id": at + 1, "iscrowd": 0} for at, each in enumerate(as_coco[: len(truth)])]
    answers = [
        {**each, "id": at + 1, "iscrowd": 0, "score": told[at][2]}
        for at, each in enumerate(as_coco[len(truth) :])
    ]
    reference.dataset, found.dataset = {**whole, "annotations": given}, {**whole, "annotations": answers}
    reference.createIndex()
    found.createIndex()
    by_hand = COCOeval(reference, found, "bbox")
    by_hand.evaluate()
    by_hand.accumulate()
    precision = by_hand.eval["precision"][0, :, 0, 0, -1].mean()
    ours = quality(
        [objects(*((box, CAT) for at, box in truth if at == image)) for image in range(images)],
        [[(box, CAT, score) for at, box, score in told if at == image] for image in range(images)],
    )
    assert 0.3 < precision < 0.9
    assert ours["map50"] == pytest.approx(precision, abs=1e-6)


@measured
@pytest.mark.parametrize(("side", "expected"), [(40, 1), (10, 0.5)])
def test_a_box_is_forgiven_that_overlaps_a_difficult_object_by_half_and_none_that_lies_in_it(side, expected):
    """On a difficult object of side 50: 1600 of 2500 in common, and 100 of 2500."""
    truth = [objects((LEFT, DOG), ([0, 0, 50, 50], CAT, "difficult"), ([50, 50, 60, 60], CAT))]
    found = [(LEFT, DOG, 0.9), ([5, 5, 5 + side, 5 + side], CAT, 0.9), ([50, 50, 60, 60], CAT, 0.8)]
    assert quality(truth, [found])["ap50_cat"] == pytest.approx(expected)


@pytest.mark.parametrize(("label", "told"), [(0, "from 0 to 1"), (-1, "from -1 to 1"), (4, "from 1 to 4")])
def test_labels_of_no_class_are_refused(label, told):
    """Label 0 stood for the mean in the metrics by name, and -1 for the last class."""
    truth = [objects((LEFT, label), (RIGHT, CAT))]
    with pytest.raises(ShrinkbenchError, match=f"labels {told}, and the task's 3 classes count from 1"):
        quality(truth, [[(LEFT, CAT, 0.9)]])


@pytest.mark.parametrize(
    "box",
    [
        [float("nan"), 0, 20, 20],
        [0, 0, float("inf"), 9],
        [9, 9, 5, 12],
        [5, 9, 9, 5],
        [5, 5, 5, 9],
        [0, 0, 2e5, 9],
    ],
)
def test_objects_without_an_area_are_refused(box):
    """One of no numbers was found by every box; torchvision asserts that the others are none."""
    batch = [(IMAGE, objects((LEFT, CAT), (box, DOG)))]
    recipe = Recipe(name="r", reference="none", epochs=1, batch_size=1, optimizer="sgd", learning_rate=0.1)
    with pytest.raises(ShrinkbenchError, match="an object has the box"):
        TASK.loss(Says(), batch, recipe)
    with pytest.raises(ShrinkbenchError, match="an object has the box"):
        evaluate(Says([]), [batch], task=TASK)


@measured
@pytest.mark.parametrize("box", [[20, 0, 0, 20], [0, 20, 20, 0], [-1e6, -1e6, 1e6, 1e6]])
def test_what_is_found_inside_out_or_beyond_every_image_is_wrong(box):
    """Areas that are negative or immense counted neither way: this was 1."""
    assert quality([objects((LEFT, CAT))], [[(box, CAT, 0.9), (LEFT, CAT, 0.8)]])["map50"] == pytest.approx(0.5)


@measured
@pytest.mark.parametrize("which", ["boxes", "scores"])
def test_boxes_that_are_no_numbers_are_a_divergence(which):
    box = [float("nan"), 0, 20, 20] if which == "boxes" else LEFT
    score = float("nan") if which == "scores" else 0.9
    with pytest.raises(ShrinkbenchError, match="diverged: it gives boxes or scores that are no finite"):
        quality([objects((LEFT, CAT))], [[(box, CAT, score), (LEFT, CAT, 0.8)]])


@measured
@pytest.mark.parametrize(
    ("pair", "told"),
    [
        ((IMAGE, {"boxes": torch.zeros(1, 4), "labels": torch.ones(1)}), "takes batches of"),
        ((IMAGE, Objects(torch.zeros(2, 4), torch.tensor([1]), torch.tensor([False]))), "takes batches of"),
        ((IMAGE, Objects(torch.zeros(1, 4), torch.tensor([1.0]), torch.tensor([False]))), "takes batches of"),
        (IMAGE, "takes batches of"),
    ],
)
def test_what_are_no_objects_is_told(pair, told):
    with pytest.raises(ShrinkbenchError, match=told):
        evaluate(Says([]), [[pair]], task=TASK)


@measured
@pytest.mark.parametrize(
    "answer",
    [
        torch.zeros(1, 5),
        [],
        [{"boxes": torch.zeros(1, 4), "labels": torch.ones(1).long()}],
        [{"boxes": torch.zeros(1, 4), "labels": torch.ones(1).long(), "scores": torch.ones(2)}],
        [{"boxes": torch.zeros(1, 5), "labels": torch.ones(1).long(), "scores": torch.ones(1)}],
        [{"boxes": torch.zeros(1, 4), "labels": torch.ones(1), "scores": torch.ones(1)}],
    ],
)
def test_what_is_no_detector_is_told(answer):
    class Gives(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0))

        def forward(self, images):
            return answer

    with pytest.raises(
        ShrinkbenchError, match=r"a detector gives for each image|gives boxes, labels and scores of shapes"
    ):
        evaluate(Gives(), [[(IMAGE, objects((LEFT, CAT)))]], task=TASK)


@measured
@pytest.mark.parametrize(("label", "told"), [(0, "from 0 to 1"), (4, "from 1 to 4"), (91, "from 1 to 91")])
def test_labels_that_a_network_gives_beyond_the_classes_are_refused(label, told):
    """They were left out of the classes' precisions, and so of the mean."""
    with pytest.raises(ShrinkbenchError, match=f"the network gives labels {told}, and the task's 3 classes"):
        quality([objects((LEFT, CAT))], [[(LEFT, CAT, 0.9), (RIGHT, label, 0.8)]])


@measured
@pytest.mark.parametrize("score", [7, -0.5, 1.001])
def test_scores_that_are_no_probabilities_are_refused(score):
    with pytest.raises(ShrinkbenchError, match=r"gives scores from .* let it give probabilities"):
        quality([objects((LEFT, CAT))], [[(LEFT, CAT, 0.5), (RIGHT, DOG, score)]])


@measured
def test_what_a_detectors_dictionary_lacks_is_named():
    class Unsure(Says):
        def forward(self, images, targets=None):
            return [{k: v for k, v in found.items() if k != "scores"} for found in super().forward(images)]

    with pytest.raises(ShrinkbenchError, match="type list of dict without tensors named scores; give"):
        evaluate(Unsure([(LEFT, CAT, 0.5)]), [[(IMAGE, objects((LEFT, CAT)))]], task=TASK)


@pytest.mark.parametrize("losses", [torch.ones(2), {}, [torch.ones(())], {"box": 1.0}, {"box": torch.ones(2)}])
def test_what_are_no_losses_by_name_is_told(losses):
    class Gives(Says):
        def forward(self, images, targets=None):
            return losses

    recipe = Recipe(name="r", reference="none", epochs=1, batch_size=1, optimizer="sgd", learning_rate=0.1)
    with pytest.raises(ShrinkbenchError, match="gives a dictionary of losses by name, each one number"):
        TASK.loss(Gives(), [(IMAGE, objects((LEFT, CAT)))], recipe)
