"""Import torchvision, also where its compiled operators cannot load.

torchvision's wheels are built against CUDA; beside a CPU-only torch their operators do not load and the
import itself fails, because two of them are described before they exist. Classification networks need none
of them: the schemas are declared first, and the import succeeds. ``from shrinkbench._torchvision import
torchvision`` is the sole way in which this package imports torchvision.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch


def _declare_missing_operators() -> None:
    """Declare ``nms`` and ``qnms`` where torchvision's extension will not load."""
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    for library in Path(spec.submodule_search_locations[0]).glob("_C*.*"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return
    for name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )


_declare_missing_operators()

import torchvision  # noqa: E402  only now can it be imported everywhere


def non_maximum_suppression(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of boxes (n, 4) that no kept box of higher score overlaps by more, best first; in plain torch.

    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    >>> non_maximum_suppression(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)
    tensor([1, 2])
    """
    order = scores.argsort(descending=True, stable=True)
    overlaps = torchvision.ops.box_iou(boxes[order], boxes[order]) > iou_threshold
    covers = overlaps.cpu().numpy()
    gone = covers[:0].any(axis=0)
    for index in range(len(order)):
        if not gone[index]:
            gone[index + 1 :] |= covers[index, index + 1 :]
    return order[~torch.from_numpy(gone).to(order.device)]


def provide_detection_operators() -> None:
    """Make detection networks run where torchvision's compiled operators do not load."""
    from torchvision.extension import _has_ops

    if not _has_ops():
        torchvision.ops.nms = torchvision.ops.boxes.nms = non_maximum_suppression


__all__ = ["non_maximum_suppression", "provide_detection_operators", "torchvision"]
