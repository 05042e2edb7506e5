"""Which axes of a method are code from outside this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shrinkbench.pruning.method import PruningMethod


def outside_sources(method: PruningMethod) -> Mapping[str, str | None]:
    """PLACEHOLDER."""
    return dict.fromkeys(("score", "structure", "allocation", "schedule", "finetuning", "update"))
