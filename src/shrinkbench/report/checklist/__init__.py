"""The checklist of Appendix B and the recommendations of Section 6, judged by stored results.

Two lines more are what Liu et al. (2019) ask of structured and of automatic methods. The tenth recommendation
of Section 6, that reviewers demand more rigor, is what this page is for, and is not a property of results.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any, get_args

from shrinkbench.report.checklist import comparison, description, measurement, recommendation, training
from shrinkbench.report.checklist.evidence import Evidence, gather
from shrinkbench.report.checklist.lines import Line, LineStatus, judge_from
from shrinkbench.results.record import RunResult
from shrinkbench.spec import RunSpec, SeedsAdded

__all__ = ["Evidence", "Line", "as_json", "gather", "judge", "judge_from"]

_PARTS = (
    description,
    measurement,
    comparison,
    recommendation,
    training,
)  # imported for their lines


def judge(
    results: Sequence[RunResult],
    *,
    proposed: Sequence[str] = (),
    missing: Sequence[RunSpec] = (),
    disputed: Collection[str] = (),
    sequential: SeedsAdded | None = None,
) -> list[Line]:
    """Judge every line; ``proposed`` names the methods that are judged (see :func:`gather`)."""
    return judge_from(
        gather(results, proposed=proposed, missing=missing, disputed=disputed, sequential=sequential)
    )


def as_json(lines: Sequence[Line]) -> dict[str, Any]:
    """Counts by status, and the lines in full."""
    counts = {s: sum(line.status == s for line in lines) for s in get_args(LineStatus)}
    return counts | {"lines": [asdict(line) for line in lines]}
