"""Which number of Table 12 stands beside a detector: one of its nine, or none."""

import pytest
from made_results import IMAGENET_NORMALISATION

from shrinkbench.datasets.voc2007 import CLASSES
from shrinkbench.pruning import METHODS
from shrinkbench.report.detection_beside import paper_precision
from shrinkbench.spec import (
    CONTROL_METHOD,
    UNPRUNED,
    DataSpec,
    ModelSpec,
    RunSpec,
    TaskSpec,
    WeightsSpec,
    detection_of,
)
from shrinkbench.training import RECIPES

MODEL = "torchvision/resnet34"


def run(method=None):
    chosen = None if method is None else METHODS.get(method)
    return RunSpec(
        task=TaskSpec(
            objective=detection_of(CLASSES),
            data=DataSpec(name="voc2007", revision="0" * 64, normalisation=IMAGENET_NORMALISATION),
            model=ModelSpec(name=f"faster-rcnn/{MODEL}"),
            weights=WeightsSpec(kind="random", name="random"),
        ),
        method=CONTROL_METHOD if chosen is None else chosen.spec,
        amount=UNPRUNED if chosen is None else chosen.amount,
        seed=0,
        recipe=RECIPES.get("voc-faster-rcnn"),
    )


@pytest.mark.parametrize(
    ("detector", "classifier", "after_transfer", "value"),
    [
        (None, None, False, 0.7169),
        ("li2017:resnet34-a", None, False, 0.7147),
        ("li2017:resnet34-a", None, True, 0.7099),
        ("li2017:resnet34-b", None, False, 0.7084),
        ("li2017:resnet34-b", None, True, 0.6962),
        (None, "li2017:resnet34-a[finetuning=scratch-e]", False, 0.7164),
        (None, "li2017:resnet34-b[finetuning=scratch-b]", False, 0.7126),
        (None, "li2017:resnet34-b", False, 0.7084),
        (None, None, True, None),  # trained twice and never pruned
        ("li2017:resnet56-a", None, False, None),
        ("thinet:vgg-conv", None, False, None),
    ],
)
def test_the_number_of_the_row_is_found(detector, classifier, after_transfer, value):
    of_classifier = None if classifier is None else run(classifier)
    found = paper_precision(run(detector), classifier=of_classifier, model=MODEL, after_transfer=after_transfer)
    assert found == (None if value is None else pytest.approx(value))
    other = "torchvision/resnet50"
    assert (
        paper_precision(run(detector), classifier=of_classifier, model=other, after_transfer=after_transfer)
        is None
    )
