"""Ranks of methods over tasks, and which of them are told apart (Demsar 2006)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from shrinkbench.report.statistics.tests import ALPHA, Floats


@dataclass(frozen=True)
class Ranking:
    """Mean rank of every method over blocks (1 is best), Friedman's test and Nemenyi's critical difference.

    Methods whose mean ranks differ by less than ``critical_difference`` are not told apart; ``cliques`` are
    the largest such groups, as index tuples in order of rank.
    """

    mean_ranks: Floats
    blocks: int
    p_friedman: float
    critical_difference: float
    cliques: tuple[tuple[int, ...], ...]


def rank_methods(values: ArrayLike, *, alpha: float = ALPHA, higher_is_better: bool = True) -> Ranking:
    """Rank methods (columns) within blocks (rows); rows with a gap are left out."""
    table = np.asarray(values, dtype=float)
    table = table[np.isfinite(table).all(axis=1)]
    blocks, methods = table.shape
    if not blocks:
        return Ranking(np.full(methods, np.nan), 0, math.nan, math.nan, ())
    ranks = scipy.stats.rankdata(-table if higher_is_better else table, axis=1)
    mean_ranks = ranks.mean(axis=0)
    p = math.nan
    if blocks > 1 and methods > 2:
        p = 1.0 if np.ptp(ranks, axis=1).max() == 0 else float(scipy.stats.friedmanchisquare(*table.T).pvalue)
    difference = critical_difference(methods, blocks, alpha=alpha)
    return Ranking(mean_ranks, blocks, p, difference, cliques(mean_ranks, difference))


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
