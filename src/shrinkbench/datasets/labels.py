"""Labels that a file may hold."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from shrinkbench.errors import ShrinkbenchError


def check_labels(labels: Tensor, classes: int, file: Path) -> None:
    """Refuse labels outside 0 .. classes - 1, naming the first row that has one."""
    wrong = ((labels < 0) | (labels >= classes)).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise ShrinkbenchError(
            f"the label {int(labels[row])} in row {row} of {file} is out of range: "
            f"there are {classes} classes, numbered from 0; the file is damaged or not what it should be"
        )
