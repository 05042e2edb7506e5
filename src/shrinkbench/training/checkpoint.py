"""Training state on disk: written in one step, so that a kill leaves the last whole epoch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import torch

from shrinkbench.errors import ShrinkbenchError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) to ``path`` through a temporary file and a rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(state, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ShrinkbenchError(f"cannot write the checkpoint {path}: {error.strerror or error}") from None


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state at ``path``, or ``None`` where there is none. Only tensors and plain values are read."""
    if not path.exists():
        return None
    try:
        return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch names a dozen kinds of damage
        raise ShrinkbenchError(
            f"the checkpoint {path} is damaged ({type(error).__name__}); delete it and run again"
        ) from None
