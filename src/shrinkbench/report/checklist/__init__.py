"""The checklist of Appendix B and the recommendations of Section 6, judged by stored results.

The tenth recommendation of Section 6, that reviewers demand more rigor, is what this page is for, and is not
a property of results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from shrinkbench.report.checklist import comparison, description, measurement, recommendation
from shrinkbench.report.checklist.evidence import Evidence, gather
from shrinkbench.report.checklist.lines import Line, judge_from
from shrinkbench.results.record import RunResult

__all__ = ["Evidence", "Line", "as_json", "gather", "judge", "judge_from"]

_PARTS = (description, measurement, comparison, recommendation)  # importing them registers their lines


def judge(results: Sequence[RunResult], *, proposed: Sequence[str] = ()) -> list[Line]:
    """Judge every line; ``proposed`` names the methods that are judged (see :func:`gather`)."""
    return judge_from(gather(results, proposed=proposed))


def as_json(lines: Sequence[Line]) -> dict[str, Any]:
    """Counts by status, and the lines in full."""
    counts = {s: sum(line.status == s for line in lines) for s in ("satisfied", "violated", "undecidable")}
    return counts | {"lines": [asdict(line) for line in lines]}
