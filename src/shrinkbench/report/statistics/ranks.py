"""Ranks of methods over tasks, and which of them are told apart (Demsar 2006)."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from shrinkbench.report.statistics.tests import Floats


@dataclass(frozen=True, eq=False)
class Ranking:
    """Ranks of methods (columns) within blocks (rows), 1 is best.

    ``joined`` are groups of methods that are not told apart, as index tuples in order of rank.
    """

    ranks: Floats
    joined: tuple[tuple[int, ...], ...] = ()

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.ranks)

    @functools.cached_property
    def mean_ranks(self) -> Floats:
        """Mean rank of every method; undefined without blocks."""
        means: Floats = self.ranks.mean(axis=0) if self.blocks else np.full(self.ranks.shape[1], np.nan)
        return means


def rank_methods(values: ArrayLike) -> Ranking:
    """Rank methods (columns) within blocks (rows), the highest first; rows with a gap are left out.

    >>> rank_methods([[0.9, 0.8, 0.8]]).ranks.tolist()
    [[1.0, 2.5, 2.5]]
    """
    table = np.asarray(values, dtype=float)
    table = table[np.isfinite(table).all(axis=1)]
    mine, others = table[:, :, None], table[:, None, :]
    return Ranking(((others > mine).sum(axis=-1) + ((others == mine).sum(axis=-1) + 1) / 2).astype(float))


def join_undecided(mean_ranks: ArrayLike, decided: frozenset[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Largest runs of methods, in order of rank, of which no two are told apart; ``decided`` are index pairs.

    >>> join_undecided([1.0, 1.5, 3.0], frozenset({(0, 2)}))
    ((0, 1), (1, 2))
    """
    order = np.argsort(np.asarray(mean_ranks, dtype=float), kind="stable")
    apart = {frozenset(pair) for pair in decided}
    found: list[tuple[int, ...]] = []
    reached = 0
    for start in range(len(order)):
        stop = start + 1
        while stop < len(order) and not any(frozenset((i, order[stop])) in apart for i in order[start:stop]):
            stop += 1
        if stop - start > 1 and stop > reached:
            found.append(tuple(int(i) for i in order[start:stop]))
            reached = stop
    return tuple(found)
