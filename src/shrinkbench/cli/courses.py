"""The course of a method as a few lines of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shrinkbench.pruning.course import Course

ROWS = 4
_LAST = 6  # columns of what is left in the end


def course_in_text(course: Course, *, width: int = 48) -> list[str]:
    """Bars of the ratio on a logarithmic scale, over ``width`` columns, with what stands along both axes.

    >>> from shrinkbench.pruning.course import course_of
    >>> print(*course_in_text(course_of("iterative_magnitude"), width=12), sep="\\n")
       4x |        ####
    2.83x |        ####
       2x |    ########
    1.41x |    ########
       1x +------------
           before, then round 1 to 2
    """
    if not course.ratios:
        return []
    ratios, columns = course.ratios, []
    body = width - _LAST if course.along == "training" else width
    for column in range(body):
        columns.append(ratios[min(column * len(ratios) // body, len(ratios) - 1)])
    columns += [ratios[-1]] * (width - body)
    target = ratios[-1]
    heights = [round(ROWS * math.log(max(ratio, 1.0)) / math.log(target)) for ratio in columns]
    labels = {ROWS: course.label, 0: "1x"}
    if course.label.endswith("x"):  # what is in between has a number where the target is one
        labels |= {row: f"{target ** (row / ROWS):.3g}x" for row in range(1, ROWS)}
    margin = max(map(len, labels.values()))
    lines = []
    for row in range(ROWS, 0, -1):
        bars = "".join("#" if height >= row else " " for height in heights)
        lines.append(f"{labels.get(row, ''):>{margin}} |{bars}".rstrip())
    lines.append(f"{labels[0]:>{margin}} +{'-' * width}")
    return [*lines, f"{'':>{margin}}  {_beneath(course, body)}"]


def _beneath(course: Course, body: int) -> str:
    if course.along == "training":
        middle = "50 %".center(max(body - 9, 4))
        return f"0 %{middle}100 %, and after"
    last = len(course.ratios) - 1
    return "before, then after" if last == 1 else f"before, then round 1 to {last}"
