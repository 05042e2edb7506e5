"""Seeds are added until a comparison is decided; every answer holds however the looks turned out.

At each look the methods that are still compared stand on the same seeds, and every pair is tested as in a
fixed design. Its p-value becomes the smallest level at which an alpha-spending boundary would have been crossed
at this look or an earlier one; over all pairs and tasks these are corrected by Holm's method. Who is told apart
as worse than another is done (racing); so is who would hardly be told apart with all seeds (futility).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import scipy

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.blocks import Block, LeftOut, common_block
from shrinkbench.report.statistics.curves import TOLERANCE, Curve
from shrinkbench.report.statistics.observations import Design
from shrinkbench.report.statistics.pairs import (
    NOISIER,
    Claim,
    Pair,
    Residual,
    compare_pairs,
    mean_of,
    relative_noise,
)
from shrinkbench.report.statistics.spending import Looks, boundaries

State = Literal["waiting", "decided", "alike", "futile", "exhausted", "nothing"]


@dataclass(frozen=True)
class Stop:
    """A method that takes no more seeds after ``seeds`` of them, and why."""

    method: str
    seeds: int
    why: str


@dataclass(frozen=True, eq=False)
class Race:
    """How the comparison of a task stands.

    ``state``: ``waiting`` for the runs of ``active`` methods on the first ``needs`` seeds; ``decided``, the
    best is told apart from all others; ``alike``, those left differ by less than the margin; ``futile``, the
    best alone would take further seeds, though not told apart from all others; ``exhausted``, all seeds are
    used; ``nothing`` can be compared.
    ``block`` is that of the last look, ``level`` its level of a single test, ``pairs`` are corrected.
    """

    task: str
    state: State
    active: tuple[str, ...]
    needs: int
    seeds: tuple[int, ...]
    block: Block
    level: float
    pairs: tuple[Claim, ...]
    stops: tuple[Stop, ...]

    def has(self, method: str, seed: int) -> bool:
        """Whether the last look compared ``method``, and took in ``seed``."""
        return method in self.block.methods and seed in self.seeds


@dataclass(frozen=True)
class _Hope:
    """What a pair may still come to, after a ``share`` of all seeds.

    ``final`` is the boundary of |z| with all of them, ``futility`` the least chance that is worth more seeds.
    """

    share: float
    final: float
    margin: float | None
    futility: float

    def is_lost(self, claim: Claim) -> bool:
        """Whether the pair would hardly be told apart with all seeds, nor be found alike.

        By the predictive power of what was seen: Phi((z / sqrt(share) - final) sqrt(share / (1 - share))), with
        z that of the difference beyond its slack (Spiegelhalter, Freedman and Blackburn 1986).
        """
        share, final = self.share, self.final
        if share >= 1 or not claim.deviation > 0:
            return False
        error = claim.deviation / math.sqrt(claim.n)
        beyond = max(abs(claim.difference) - claim.slack, 0.0)
        z = -float(scipy.special.ndtri(scipy.special.stdtr(claim.freedom, -beyond / error)))
        chance = float(scipy.special.ndtr((z / math.sqrt(share) - final) * math.sqrt(share / (1 - share))))
        at_last = claim.deviation / math.sqrt(claim.n / share) * final
        alike = self.margin is not None and at_last + claim.slack < self.margin
        return chance < self.futility and not alike


@dataclass
class _Racing:
    task: str
    curves: Sequence[Curve]
    active: list[str]
    methods: int
    state: State = "waiting"
    needs: int = 0
    seeds: tuple[int, ...] = ()
    block: Block = field(default_factory=lambda: common_block([]))
    level: float = math.nan
    pairs: dict[Pair, Claim] = field(default_factory=dict)
    stops: list[Stop] = field(default_factory=list)
    aside: tuple[str, ...] = ()
    at: Sequence[Block] = ()
    stopped: Sequence[Residual] = ()


def widen(claim: Claim, level: float, *, p_raw: float) -> Claim:
    """``claim`` with the interval that a single test at ``level`` has, and another p."""
    half = stats.t_quantile(1 - level / 2, claim.freedom) * claim.deviation / math.sqrt(claim.n)
    known = math.isfinite(claim.high) and math.isfinite(level)
    return replace(
        claim,
        low=claim.difference - half if known else claim.low,
        high=claim.difference + half if known else claim.high,
        p_raw=p_raw,
    )


def race(by_task: Mapping[str, Sequence[Curve]], levels: Sequence[float], design: Design) -> tuple[Race, ...]:
    """Look at all tasks after each number of seeds, as far as their runs are there.

    The same runs give the same looks, so that a comparison that was interrupted goes on as if it had not been.
    """
    rules = design.rules
    compared = {task: _asked(curves, design) for task, curves in by_task.items()}
    racing = [_Racing(task, by_task[task], methods, len(methods)) for task, methods in compared.items()]
    for one in racing:
        one.aside = tuple({c.method: None for c in one.curves if c.method not in one.active})
    asked = sum(math.comb(len(one.active), 2) for one in racing)
    for look, n in enumerate(rules.looks):
        looked = [one for one in racing if one.state == "waiting"]
        for one in looked:
            one.needs = n
        if not looked or not all(_is_ready(one, design.seeds[:n]) for one in looked):
            break
        for one in looked:
            _look(one, levels, design, look)
        _correct(racing, asked)
        undecided = max(1, asked - sum(c.decided for one in racing for c in one.pairs.values()))
        shares = tuple(n / rules.max_seeds for n in rules.looks)
        final = boundaries(rules.alpha / undecided, shares, rules.spending)[-1]
        for one in looked:
            margin = rules.margin and rules.margin * design.yardsticks.get(one.task, 1.0)
            _decide(one, n, _Hope(shares[look], final, margin, rules.futility))
            if one.state == "waiting" and n == rules.looks[-1]:
                one.state = "exhausted"
    return tuple(_finished(one) for one in racing)


def _asked(curves: Sequence[Curve], design: Design) -> list[str]:
    methods = list(dict.fromkeys(curve.method for curve in curves))
    return [m for m in methods if not design.methods or m in design.methods]


def _runs(one: _Racing, seeds: Sequence[int]) -> list[Curve]:
    return [c for c in one.curves if c.method in one.active and c.seed in seeds]


def _is_ready(one: _Racing, seeds: Sequence[int]) -> bool:
    """Whether every active method has an outcome of all its runs on ``seeds``; a failed run is one."""
    there = [c for c in _runs(one, seeds) if not any(hole.kind == "missing" for hole in c.holes)]
    return len(there) == len(one.active) * len(seeds)


def _look(one: _Racing, levels: Sequence[float], design: Design, look: int) -> None:
    """Compare the active methods on the seeds of this look."""
    rules = design.rules
    looks = Looks(rules.looks, rules.max_seeds, rules.spending, max(2, one.methods))
    one.seeds = design.seeds[: rules.looks[look]]
    members = _runs(one, one.seeds)
    block = one.block = common_block(members)
    one.level = looks.level_at(stats.ALPHA, look)  # every interval that is shown is one of 95 %
    beside = _of_the_stopped(one, [common_block(members, level=level).of(block.methods) for level in levels])
    # what a seed adds to all amounts of a method alike shows over the range alone
    noise = relative_noise(b for b in one.at[1:] if b.methods).at_least(relative_noise([block]))
    for claim in compare_pairs("range", one.task, block, noise, beside):
        pair = (claim.first, claim.second)
        last = one.pairs.get(pair)
        before = last.p_raw if last and _is_one_range(last.reach, claim.reach) else 1.0
        now = looks.attained(looks.crossed(claim.p_raw, look))
        p = min(before, now) if math.isfinite(now) else before
        one.pairs[pair] = replace(widen(claim, one.level, p_raw=p), alpha=rules.alpha)


def _of_the_stopped(one: _Racing, levels: Sequence[Block]) -> Residual:
    """What methods that take no more seeds still tell of the noise of those that do.

    Squares of their last look that those who go on do not have: contrasts between the ones and the others, on
    seeds of then, which are independent of all contrasts among those who go on. Nothing is taken from them
    where those who go on are noisier, on average over levels, by more than a pair may be, nor where they are
    compared over another range.
    """
    before, one.at = one.at, (one.block, *levels)
    stopped = one.stopped or [Residual()] * len(one.at)
    if before and not _is_one_range((before[0].low, before[0].high), (one.block.low, one.block.high)):
        before = (one.block, *before[1:])
        stopped = [Residual(), *stopped[1:]]
    left = [Residual.of(block) - Residual.of(block.of(one.block.methods)) for block in before]
    one.stopped = [known + new for known, new in zip(stopped, left or [Residual()] * len(stopped), strict=True)]
    own = [Residual.of(block) for block in one.at]
    ratios = [(o.variance, (o + s).variance) for o, s in zip(own[1:], one.stopped[1:], strict=True)]
    noisier = mean_of(mine / all_ for mine, all_ in ratios if all_ > 0)
    return one.stopped[0] if noisier <= NOISIER else Residual()


def _is_one_range(first: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two ranges are one, up to what a range is shortened by."""
    return all(max(ends) <= min(ends) * (1 + TOLERANCE) for ends in zip(first, other, strict=True))


def _correct(racing: Sequence[_Racing], asked: int) -> None:
    """Holm's correction over all pairs that are asked for, those not looked at among them."""
    known = [(one, pair) for one in racing for pair in one.pairs]
    values = [one.pairs[pair].p_raw for one, pair in known]
    adjusted = stats.holm([*values, *[1.0] * (asked - len(values))])
    decided = sum(p < one.pairs[pair].alpha for (one, pair), p in zip(known, adjusted.tolist(), strict=False))
    for (one, pair), p in zip(known, adjusted.tolist(), strict=False):
        claim = replace(one.pairs[pair], p=p)
        one.pairs[pair] = replace(claim, share=1 / (asked - decided + claim.decided))


def _decide(one: _Racing, n: int, hope: _Hope) -> None:
    """Who takes no further seed, and whether the task is done."""
    for left_out in one.block.left_out:
        one.stops.append(Stop(left_out.method, n, left_out.why))
    ranked = [one.block.methods[i] for i in (-one.block.means).argsort(kind="stable")]
    if len(ranked) < 2:
        one.active, one.state = ranked, "nothing"
        return
    open_ = [ranked[0]]
    for method in ranked[1:]:
        claims = [_seen_from(one, better, method) for better in ranked[: ranked.index(method)]]
        lost = next((claim for claim in claims if claim.decided), None)
        if lost is not None:
            one.stops.append(Stop(method, n, f"told apart from {lost.first} after {n} seeds"))
        elif hope.is_lost(claims[0]):
            one.stops.append(
                Stop(method, n, f"after {n} seeds unlikely to be told apart from {ranked[0]} with all")
            )
        else:
            open_.append(method)
    one.active = open_
    best = [_seen_from(one, ranked[0], other) for other in open_[1:]]
    if not best:
        # a method may have stopped at an earlier look, or against another than the one that is best now
        claims = [claim for claim in one.pairs.values() if claim.involves(ranked[0])]
        one.state = "decided" if all(claim.decided for claim in claims) else "futile"
    elif (margin := hope.margin) is not None and all(
        max(-claim.low, claim.high) + claim.slack < margin for claim in best
    ):
        one.state = "alike"


def _seen_from(one: _Racing, first: str, second: str) -> Claim:
    return one.pairs[first, second] if (first, second) in one.pairs else one.pairs[second, first].reversed


def _finished(one: _Racing) -> Race:
    block = one.block
    stopped = [LeftOut(stop.method, stop.why) for stop in one.stops if stop.method not in block.methods]
    known = {left_out.method for left_out in block.left_out}
    stopped += [LeftOut(method, "the design does not ask about it") for method in one.aside]
    block = replace(block, left_out=(*block.left_out, *(s for s in stopped if s.method not in known)))
    return Race(
        task=one.task,
        state=one.state,
        active=tuple(one.active),
        needs=one.needs,
        seeds=one.seeds,
        block=block,
        level=one.level,
        pairs=tuple(one.pairs.values()),
        stops=tuple(one.stops),
    )
