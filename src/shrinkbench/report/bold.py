"""Which cells of a table are bold: the best of those that can be compared at an amount, and where that is."""

from __future__ import annotations

from shrinkbench.report.statistics.claims import Claims

TOLD = 0.02
"""A column whose bold cell is of an amount smaller than asked for by more than this share says so."""


def best_by_level(claims: Claims) -> dict[tuple[str, float], frozenset[str]]:
    """The methods with the highest mean at each level of a task, of those that can be compared there."""
    return {
        (task.task, level.level): frozenset(
            method
            for method, mean in zip(level.block.methods, level.block.means, strict=True)
            if mean == level.block.means.max()
        )
        for task in claims.tasks
        for level in task.levels
        if level.leads
    }


def say_where_compared(claims: Claims, task: str) -> str:
    """Columns whose bold is not of the amount that was asked for, as some network fell short of it."""
    short = [
        f"{level.level:g}× at {level.block.high:.3g}×"
        for found in claims.tasks
        for level in found.levels
        if found.task == task and level.leads and level.block.high < (1 - TOLD) * level.level
    ]
    if not short:
        return ""
    return f" Bold compares networks of equal size, interpolated where one fell short: {', '.join(short)}."
