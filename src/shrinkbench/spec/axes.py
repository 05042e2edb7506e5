"""A pruning method as a value: structure x scoring x allocation x scheduling x fine-tuning."""

from __future__ import annotations

import re
from typing import Literal

from shrinkbench.spec.value import Value


class MethodSpec(Value):
    """A pruning method by its axes; ``source`` is a digest of its code where a plug-in supplied it.

    ``start`` is which weights it prunes first: ``trained`` ones, or those at ``initialisation``.
    """

    name: str
    structure: str
    score: str
    allocation: str
    schedule: str
    finetuning: str
    start: Literal["trained", "initialisation"] = "trained"
    source: str | None = None

    @property
    def from_scratch(self) -> bool:
        """Whether the pruned architecture is trained from random weights, and nothing else is kept."""
        return self.finetuning in ("scratch-e", "scratch-b")

    @property
    def name_without_finetuning(self) -> str:
        """The method whose fine-tuning is varied: ``m`` of ``m[finetuning=scratch-e]``; other axes stay."""
        return re.sub(r",?finetuning=[^,\]]*", "", self.name).replace("[,", "[").removesuffix("[]")


CONTROL_METHOD = MethodSpec(
    name="control", structure="none", score="none", allocation="none", schedule="none", finetuning="continue"
)
