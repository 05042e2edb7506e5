"""What a grid lacks, said as shortly as it is true: by what the missing points have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

Point = tuple[str | None, str | None, str | None, int | None]
"""Task, method, amount and seed; ``None`` in all points of a grid where it plays no part."""
_Value = str | int | None
_AXES = range(4)


@dataclass(frozen=True)
class Clause:
    """All points of a grid whose every coordinate is among the named ones; ``None`` names all there are."""

    axes: tuple[tuple[_Value, ...] | None, ...]

    def holds(self, point: Point) -> bool:
        """Whether the clause speaks of ``point``."""
        return all(named is None or value in named for named, value in zip(self.axes, point, strict=True))


class _Grid:
    """A grid as a table of which points there are, and its values by axis in order of appearance."""

    def __init__(self, points: Iterable[Point]) -> None:
        points = list(points)
        self.values: list[list[_Value]] = [list(dict.fromkeys(p[axis] for p in points)) for axis in _AXES]
        self._places = [{v: n for n, v in enumerate(values)} for values in self.values]
        self.present = self.table(points)

    def table(self, points: Iterable[Point]) -> np.ndarray:
        """Which of the grid's points are among ``points``."""
        table = np.zeros([len(values) for values in self.values], dtype=bool)
        for point in points:
            table[tuple(places[v] for places, v in zip(self._places, point, strict=True))] = True
        return table

    def clause(self, box: Sequence[np.ndarray]) -> Clause:
        """The points of ``box``, in words as few as possible."""
        box, everything = list(box), [np.arange(len(values)) for values in self.values]
        count = self.present[np.ix_(*box)].sum()
        for axis in (3, 2, 0, 1):  # that every seed is meant goes without saying, every method does not
            wider = [*box[:axis], everything[axis], *box[axis + 1 :]]
            if self.present[np.ix_(*wider)].sum() == count:
                box = wider
        return Clause(
            tuple(
                None if len(part) == len(values) else tuple(values[n] for n in part)
                for part, values in zip(box, self.values, strict=True)
            )
        )


def find_clauses(
    lacking: Collection[Point], grid: Iterable[Point], *, limit: int | None = None
) -> tuple[list[Clause], int]:
    """Clauses that together hold for exactly the points ``lacking`` from ``grid``, the largest first.

    Of more than ``limit`` the rest is counted: how many points are lacking beside those that are told.
    """
    table = _Grid(dict.fromkeys([*grid, *lacking]))
    missing = table.table(lacking)
    clauses: list[Clause] = []
    open_points = missing.copy()
    while open_points.any() and (limit is None or len(clauses) < limit):
        box = _largest_box(table.present, missing, open_points)
        clauses.append(table.clause(box))
        open_points[np.ix_(*box)] = False
    return clauses, int(open_points.sum())


def _largest_box(present: np.ndarray, missing: np.ndarray, open_points: np.ndarray) -> Sequence[np.ndarray]:
    """A box of missing points around the first open one, grown one axis after another in the best order."""
    start = [np.array([n]) for n in np.argwhere(open_points)[0]]
    there = present & ~missing
    best, most = start, (0, 0)
    for order in permutations(_AXES):
        box = list(start)
        for axis in order:
            others = tuple(a for a in _AXES if a != axis)
            slab = np.ix_(*[np.arange(present.shape[a]) if a == axis else box[a] for a in _AXES])
            fits = ~there[slab].any(axis=others) & missing[slab].any(axis=others)
            box[axis] = np.flatnonzero(fits)
        size = (int(open_points[np.ix_(*box)].sum()), -sum(map(len, box)))
        if size > most or most == (0, 0):
            best, most = box, size
    return best


def say(lacking: Collection[Point], grid: Iterable[Point], *, limit: int | None = 6) -> str:
    """Where the points ``lacking`` from ``grid`` lie, in words; nothing where none is.

    >>> grid = [("digits", m, a, s) for m in ("A", "B") for a in ("2x", "4x") for s in (0, 1, 2)]
    >>> say([p for p in grid if p[3] == 2], grid)
    '1 of 3 seeds (2) everywhere'
    >>> say([p for p in grid if p[1] == "A" and p[3] == 2], grid)
    'seed 2 of A at every amount on digits'
    >>> say([p for p in grid if p[2] == "4x"], grid)
    'every method at 4x on digits'
    """
    grid = list(dict.fromkeys([*grid, *lacking]))
    clauses, rest = find_clauses(lacking, grid, limit=limit)
    values = [list(dict.fromkeys(p[axis] for p in grid)) for axis in _AXES]
    texts = [_say_clause(clause, values, whole=_is_whole(grid)) for clause in clauses]
    return "; ".join([*texts, f"{rest} more points"] if rest else texts)


def _is_whole(grid: Sequence[Point]) -> bool:
    """Whether every cell has every seed, so that ``of 3 seeds`` is true everywhere."""
    return len({p[:3] for p in grid}) * len({p[3] for p in grid}) == len(grid)


def _say_clause(clause: Clause, values: Sequence[Sequence[_Value]], *, whole: bool) -> str:
    tasks, methods, amounts, seeds = clause.axes
    if tasks is methods is amounts is None and seeds is not None and len(values[1]) > 1:
        if whole:
            return f"{len(seeds)} of {len(values[3])} seeds ({joined(seeds)}) everywhere"
        return f"{_seeds(seeds)} everywhere"
    named = [
        _say_axis(part, every, what)
        for part, every, what in zip(
            (methods, amounts, tasks),
            (values[1], values[2], values[0]),
            ("method", "amount", "task"),
            strict=True,
        )
    ]
    parts = [f"{word}{text}" for word, text in zip(("", "at ", "on "), named, strict=True) if text]
    return (f"{_seeds(seeds)} of " if seeds is not None else "") + " ".join(parts)


def _seeds(seeds: Sequence[_Value]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {joined(seeds)}"


def _say_axis(named: Sequence[_Value] | None, every: Sequence[_Value], what: str) -> str:
    """The values of one axis: all of them, all but a few, or by name."""
    if every == [None]:
        return ""
    if named is None:
        return f"every {what}" if len(every) > 1 else str(every[0])
    others = [value for value in every if value not in named]
    return f"every {what} but {joined(others)}" if 2 * len(others) < len(named) else joined(named)


def joined(items: Iterable[object]) -> str:
    """Items in a sentence.

    >>> joined([0, 1, 2])
    '0, 1 and 2'
    """
    texts = [str(item) for item in items]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
