"""A question to published runs, and its answer by the report's own statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from shrinkbench.report.statistics.blocks import Block, common_block
from shrinkbench.report.statistics.curves import curves, default_levels
from shrinkbench.report.statistics.observations import CHANGE, HEADLINE, Observations, observe_bundle
from shrinkbench.report.statistics.pairs import Claim, Layout, Noise, compare_pair, relative_noise
from shrinkbench.report.statistics.tests import ALPHA, holm
from shrinkbench.results.bundle import Bundle, read_source

CONTROL = "its control"
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
    other: str = ""  # the same of the second, where that is of another task
    metric: str = HEADLINE  # or the change from the control


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
    """The runs of a bundle's plan, once: what an earlier version of a method gave stays in a resumed folder."""
    path = RESULTS / f"{name}.zip"
    if not path.exists():
        return None
    bundle = read_source(path)
    planned = {run.key for run in bundle.plan.runs} if bundle.plan else {r.key for r in bundle.results}
    return replace(bundle, results=tuple(r for r in bundle.results if r.key in planned))


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
    tasks = _named(observations, question.task)
    if len(tasks) != 1:
        return Answer(question, why=f"{len(tasks)} tasks have '{question.task}' in their name")
    if question.second == CONTROL or question.other:
        return Answer(question, _of_two_series(observations, question))
    members = [c for c in curves(observations, question.axis, HEADLINE) if c.task == tasks[0]]
    block = common_block(members, level=question.level)
    wanted = (question.first, question.second)
    if not set(wanted) <= set(block.methods):
        absent = [f"{left.method}: {left.why}" for left in block.left_out if left.method in wanted]
        return Answer(question, why="; ".join(absent) or "one of the two was not run")
    levels = default_levels(observations, question.axis)
    noise = relative_noise(common_block(members, level=level).of(block.methods) for level in levels)
    return Answer(question, compare_pair("asked", tasks[0], Layout.of(block, noise), wanted))


def _named(observations: Observations, part: str) -> list[str]:
    """The tasks that a question means by a part of their name."""
    named = [task for task in observations.tasks if part in task.split(" / ")]
    return named or [task for task in observations.tasks if part in task]


def _of_two_series(observations: Observations, question: Question) -> Claim:
    """A method beside its control, or beside one of another task, seed by seed: a paired t-test."""

    def series(method: str, part: str) -> dict[int, tuple[float, float]]:
        rows = observations.pruned
        (task,) = _named(observations, part)
        rows = rows[(rows["task"] == task) & (rows["method"] == method)]
        rows = rows[rows["compression_target"] == question.level]
        return dict(zip(rows["seed"], zip(rows[question.metric], rows[CHANGE], strict=True), strict=True))

    first = series(question.first, question.task)
    against = first if question.second == CONTROL else series(question.second, question.other)
    seeds = sorted(first.keys() & against.keys())
    values = [[first[s][0] for s in seeds], [against[s][0] for s in seeds]]
    if question.second == CONTROL:
        values[1] = [top1 - change for top1, change in (first[s] for s in seeds)]
    pair = (question.first, question.second) if not question.other else ("first", "second")
    level = question.level or math.nan
    block = Block(level, level, pair, tuple(map(str, seeds)), np.array(values))
    return compare_pair("asked", question.task, Layout.of(block, Noise()), pair)


def correct(answers: Sequence[Answer]) -> list[Answer]:
    """The same with p-values corrected for all that are asked on the page."""
    raw = [a.claim.p_raw for a in answers if a.claim is not None]
    adjusted = iter(holm([1.0 if math.isnan(p) else p for p in raw]))
    return [
        a if a.claim is None else replace(a, claim=replace(a.claim, p=float(next(adjusted)), alpha=ALPHA))
        for a in answers
    ]
