"""Transfer of pruned classifiers to detection (Liu et al. 2019, Appendix B): Faster R-CNN on PASCAL VOC."""

from shrinkbench.detection.faster_rcnn import Detector, build_detector, prune_detector
from shrinkbench.detection.training import VOC_RECIPE, mean_average_precision, require_metric, train_detector
from shrinkbench.detection.voc import CLASSES, DetectionImages, read_voc

__all__ = [
    "CLASSES",
    "VOC_RECIPE",
    "DetectionImages",
    "Detector",
    "build_detector",
    "mean_average_precision",
    "prune_detector",
    "read_voc",
    "require_metric",
    "train_detector",
]
