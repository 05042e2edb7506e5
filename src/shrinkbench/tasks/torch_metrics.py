"""The package of metrics that some tasks take theirs from; loaded where something is measured."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from shrinkbench.errors import ShrinkbenchError


def torch_metrics() -> Any:
    """``torchmetrics``, refused in a sentence where it is not installed."""
    if find_spec("torchmetrics") is None:
        raise ShrinkbenchError(
            "the metrics of this task need torchmetrics; install it with: pip install 'shrinkbench[detection]'"
        )
    import torchmetrics
    import torchmetrics.classification
    import torchmetrics.regression

    return torchmetrics
