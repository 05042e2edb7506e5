"""A question to published runs, and its answer by the report's own statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from shrinkbench.report.statistics.blocks import common_block
from shrinkbench.report.statistics.curves import curves, default_levels
from shrinkbench.report.statistics.observations import HEADLINE, Observations, observe_bundle
from shrinkbench.report.statistics.pairs import Claim, Layout, compare_pair, relative_noise
from shrinkbench.report.statistics.tests import ALPHA, holm
from shrinkbench.results.bundle import Bundle, read_source

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


@dataclass(frozen=True)
class Question:
    """Whether ``first`` is above ``second`` in a bundle, at one level of an axis or over the common range."""

    bundle: str
    first: str
    second: str
    axis: str = "compression"
    level: float | None = None
    task: str = ""  # a part of the task's name, where a bundle holds several


@dataclass(frozen=True)
class Answer:
    """A question with what the runs say; ``why`` where they say nothing."""

    question: Question
    claim: Claim | None = None
    why: str = ""

    @property
    def verdict(self) -> str:
        """Confirmed or contradicted where the two are told apart, else undecided."""
        if self.claim is None:
            return "cannot be asked"
        if not self.claim.decided:
            return "undecided"
        return "confirmed" if self.claim.difference > 0 else "contradicted"


@cache
def bundle_of(name: str) -> Bundle | None:
    """The runs of a bundle, once."""
    path = RESULTS / f"{name}.zip"
    return read_source(path) if path.exists() else None


@cache
def observed(name: str) -> Observations | None:
    """What a bundle's report reasons about."""
    bundle = bundle_of(name)
    return None if bundle is None else observe_bundle(bundle)


def ask(question: Question) -> Answer:
    """Compare the two on common seeds, over what all methods of the task share, as the report does."""
    observations = observed(question.bundle)
    if observations is None:
        return Answer(question, why=f"docs/results/{question.bundle}.zip is not there")
    named = [task for task in observations.tasks if question.task in task.split(" / ")]
    tasks = named or [task for task in observations.tasks if question.task in task]
    if len(tasks) != 1:
        return Answer(question, why=f"{len(tasks)} tasks have '{question.task}' in their name")
    members = [c for c in curves(observations, question.axis, HEADLINE) if c.task == tasks[0]]
    block = common_block(members, level=question.level)
    wanted = (question.first, question.second)
    if not set(wanted) <= set(block.methods):
        absent = [f"{left.method}: {left.why}" for left in block.left_out if left.method in wanted]
        return Answer(question, why="; ".join(absent) or "one of the two was not run")
    levels = default_levels(observations, question.axis)
    noise = relative_noise(common_block(members, level=level).of(block.methods) for level in levels)
    return Answer(question, compare_pair("asked", tasks[0], Layout.of(block, noise), wanted))


def correct(answers: Sequence[Answer]) -> list[Answer]:
    """The same with p-values corrected for all that are asked on the page."""
    raw = [a.claim.p_raw for a in answers if a.claim is not None]
    adjusted = iter(holm([1.0 if math.isnan(p) else p for p in raw]))
    return [
        a if a.claim is None else replace(a, claim=replace(a.claim, p=float(next(adjusted)), alpha=ALPHA))
        for a in answers
    ]
