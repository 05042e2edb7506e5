"""Ranks of methods over tasks, and which of them are told apart (Demsar 2006)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from shrinkbench.report.statistics.tests import ALPHA, Floats


@dataclass(frozen=True, eq=False)
class Ranking:
    """Ranks of methods (columns) within blocks (rows), 1 is best; what follows is made when asked for.

    ``joined`` are groups of methods that are not told apart, as index tuples in order of rank; by Nemenyi's
    critical difference where nothing else was given.
    """

    ranks: Floats
    joined: tuple[tuple[int, ...], ...] | None = None
    alpha: float = ALPHA

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.ranks)

    @functools.cached_property
    def mean_ranks(self) -> Floats:
        """Mean rank of every method; undefined without blocks."""
        means: Floats = self.ranks.mean(axis=0) if self.blocks else np.full(self.ranks.shape[1], np.nan)
        return means

    @functools.cached_property
    def p_friedman(self) -> float:
        """Friedman's test that all methods rank alike; of three methods and two blocks on."""
        if self.blocks < 2 or self.ranks.shape[1] < 3:
            return math.nan
        if np.ptp(self.ranks, axis=1).max() == 0:
            return 1.0
        return float(scipy.stats.friedmanchisquare(*self.ranks.T).pvalue)

    @functools.cached_property
    def critical_difference(self) -> float:
        """Nemenyi's critical difference of mean ranks."""
        return critical_difference(self.ranks.shape[1], self.blocks, alpha=self.alpha)

    @property
    def cliques(self) -> tuple[tuple[int, ...], ...]:
        """The groups that are joined."""
        if self.joined is not None or not self.blocks:
            return self.joined or ()
        return cliques(self.mean_ranks, self.critical_difference)


def rank_methods(values: ArrayLike, *, alpha: float = ALPHA, higher_is_better: bool = True) -> Ranking:
    """Rank methods (columns) within blocks (rows); rows with a gap are left out."""
    table = np.asarray(values, dtype=float)
    table = table[np.isfinite(table).all(axis=1)]
    ranks = scipy.stats.rankdata(-table if higher_is_better else table, axis=1) if len(table) else table
    return Ranking(ranks, alpha=alpha)


def critical_difference(methods: int, blocks: int, *, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of mean ranks: q_alpha sqrt(k (k + 1) / (6 N)).

    >>> round(critical_difference(5, 30), 4)  # Demsar 2006: with q = 2.728
    1.1136
    """
    if methods < 2 or blocks < 1:
        return math.nan
    q = float(scipy.stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * blocks))


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


def cliques(mean_ranks: ArrayLike, difference: float) -> tuple[tuple[int, ...], ...]:
    """Largest runs of methods, in order of rank, that lie within ``difference`` of each other.

    >>> cliques([1.0, 1.5, 3.0], 1.0)
    ((0, 1),)
    """
    ranks = np.asarray(mean_ranks, dtype=float)
    order = np.argsort(ranks, kind="stable")
    found: list[tuple[int, ...]] = []
    reached = 0
    for start in range(len(order)):
        stop = start
        while stop < len(order) and ranks[order[stop]] - ranks[order[start]] < difference:
            stop += 1
        if stop - start > 1 and stop > reached:
            found.append(tuple(int(i) for i in order[start:stop]))
            reached = stop
    return tuple(found)
