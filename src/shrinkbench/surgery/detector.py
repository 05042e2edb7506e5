"""Prune-D (Liu et al. 2019, Appendix B): a detector is pruned by masks of its classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.faster_rcnn import Detector, build_detector
from shrinkbench.network.weights import copy_of
from shrinkbench.surgery.operation import operate
from shrinkbench.surgery.shrinking import plan_and_shrink


def shrink_detector(
    detector: Detector, masks: Mapping[str, Tensor], input_shape: Sequence[int] = (3, 224, 224)
) -> Detector:
    """A smaller detector from masks of the classifier's parameters; proposal and box layers are kept.

    The masks must leave the outputs of the third and fourth stage their width, which those of inner channels
    do; ``ShrinkbenchError`` otherwise.
    """
    classifier = detector.classifier
    _, surgery = plan_and_shrink(classifier, masks, input_shape)
    small = build_detector(operate(copy_of(classifier), surgery), **detector.options)
    for name in ("rpn", "roi_heads.box_predictor"):
        try:
            state = detector.network.get_submodule(name).state_dict()
            small.network.get_submodule(name).load_state_dict(state)
        except RuntimeError:
            raise ShrinkbenchError(
                "the masks narrow the outputs of the third or fourth stage, which the detector's own layers "
                "read; prune inner channels of blocks alone"
            ) from None
    return small.train(detector.training)
