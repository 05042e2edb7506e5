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

import torchvision  # noqa: E402

__all__ = ["torchvision"]
