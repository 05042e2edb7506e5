"""Faster R-CNN (Ren et al. 2015) on a residual classifier, as the experiments of Liu et al. 2019 have it.

Stages up to the third make the feature map (stride 16), the fourth is the head of each region; the stem and
the first stage are frozen and every batch norm stays in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.libraries import torchvision
from shrinkbench.network.probe import trace
from shrinkbench.network.weights import copy_of

STRIDE = 16  # pixels of an image for one of the feature map
REGION = 7  # features of a region, a side
_PARTS = ("conv1", "bn1", "maxpool", "layer1", "layer2", "layer3", "layer4")


class Trunk(nn.Module):
    """A residual classifier up to its third stage."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.stem = nn.ModuleList(classifier.get_submodule(part) for part in _PARTS[:3])
        self.stages = nn.ModuleList(classifier.get_submodule(part) for part in _PARTS[3:6])
        self.out_channels = _width(classifier, "layer3")

    def forward(self, x: Tensor) -> Tensor:
        """Map images to features of stride 16."""
        conv, norm, pool = self.stem
        x = pool(F.relu(norm(conv(x))))
        for stage in self.stages:
            x = stage(x)
        return x


class RegionHead(nn.Module):
    """The fourth stage over every region, averaged."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.stage = classifier.get_submodule("layer4")

    def forward(self, regions: Tensor) -> Tensor:
        """Map (regions, C, 7, 7) to (regions, features)."""
        y: Tensor = self.stage(regions).mean((2, 3))
        return y


class Detector(nn.Module):
    """A detector and the classifier whose layers it is made of."""

    def __init__(self, classifier: nn.Module, network: nn.Module, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.options = dict(options)
        # Not a child: its layers are those of the network, and its logits take no part.
        self.__dict__["_classifier"] = classifier
        # To torchvision any module may be a backbone; build_detector() gives it one with a stem and stages.
        for parameter in (*network.backbone.stem.parameters(), *network.backbone.stages[0].parameters()):  # type: ignore[union-attr, index]
            parameter.requires_grad_(False)

    @property
    def classifier(self) -> nn.Module:
        """The classifier whose layers the detector is made of."""
        found: nn.Module = self.__dict__["_classifier"]
        return found

    def train(self, mode: bool = True) -> Detector:  # noqa: FBT001, FBT002  torch's signature
        """Set the mode; batch norms stay in evaluation mode."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()
        return self

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """Losses by name in training mode; boxes, labels and scores of each image otherwise."""
        return self.network(list(images), None if targets is None else [dict(t) for t in targets])


def build_detector(
    classifier: nn.Module, *, num_classes: int = 21, min_size: int = 600, max_size: int = 1000
) -> Detector:
    """Faster R-CNN over a copy of ``classifier``, a residual network with ``conv1`` to ``layer4``.

    Anchors of 128, 256 and 512 pixels at three shapes, 256 of them and 128 regions (a quarter foreground) per
    image, region features of 7 x 7. ``num_classes`` counts the background.
    """
    torchvision()
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
    from torchvision.ops import MultiScaleRoIAlign

    children = dict(classifier.named_children())
    missing = [part for part in _PARTS if part not in children]
    if missing:
        raise ShrinkbenchError(
            f"this one has no {missing[0]}; build a detector from a residual network with {', '.join(_PARTS)}"
        )
    classifier = copy_of(classifier)
    options = {"num_classes": num_classes, "min_size": min_size, "max_size": max_size}
    network = FasterRCNN(
        Trunk(classifier),
        min_size=min_size,
        max_size=max_size,
        rpn_anchor_generator=AnchorGenerator(((128, 256, 512),), ((0.5, 1.0, 2.0),)),
        rpn_batch_size_per_image=256,
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=REGION, sampling_ratio=2),
        box_head=RegionHead(classifier),
        box_predictor=FastRCNNPredictor(_width(classifier, "layer4"), num_classes),
        box_batch_size_per_image=128,
        box_positive_fraction=0.25,
    )
    return Detector(classifier, network, options)


def count_detector_multiply_adds(detector: Detector) -> int:
    """Multiply-adds of the largest image that the detector takes, with as many regions as it proposes at most.

    The image has both of its sides, in pixels padded to a multiple of 32 as torchvision does; regions that
    overlap less than others are fewer in practice.
    """
    network: Any = detector.network  # to torch, any module may be any attribute of another
    trunk, regions, scaled = network.backbone, network.roi_heads, network.transform
    pad = scaled.size_divisible
    height, width = (-(-side // pad) * pad for side in (scaled.min_size[0], scaled.max_size))
    rows, columns = (-(-side // STRIDE) for side in (height, width))
    region = nn.Sequential(regions.box_head, regions.box_predictor)
    parts = (
        (1, trunk, (3, height, width)),
        (1, _Listed(network.rpn.head), (trunk.out_channels, rows, columns)),
        (network.rpn.post_nms_top_n(), region, (trunk.out_channels, REGION, REGION)),
    )
    return sum(count * trace(part, shape).multiply_adds for count, part, shape in parts)


class _Listed(nn.Module):
    """A module that takes a list of feature maps, given one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Tensor) -> Any:
        return self.module([features])


def _width(classifier: nn.Module, stage: str) -> int:
    """Output channels of a stage: those of its last batch norm or convolution."""
    layers = [m for m in classifier.get_submodule(stage).modules() if isinstance(m, nn.BatchNorm2d)]
    if not layers:
        raise ShrinkbenchError(f"'{stage}' of this network has no batch norm; take a residual network that has")
    return int(layers[-1].num_features)
