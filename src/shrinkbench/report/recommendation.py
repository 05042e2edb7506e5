"""What to use up to where, read from the claims: which method, how good, by how much, over which range."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shrinkbench.cells import say_count
from shrinkbench.report.statistics.blocks import Block, covers
from shrinkbench.report.statistics.claims import FEWEST_TASKS, Claim, TaskClaims, more_units
from shrinkbench.report.statistics.compare import TIE
from shrinkbench.report.statistics.curves import TOLERANCE
from shrinkbench.report.statistics.metrics import Metric
from shrinkbench.report.statistics.tests import ALPHA
from shrinkbench.report.tables import ratio_text

CLOSE = 0.005
"""A method is not recommended in place of another for a lead of less: half a point, or 0.5 % of the control."""
FEW = 3
"""Names and segments that a sentence holds; of more, it gives the number."""
MARGIN = 0.01
"""The difference that seeds are counted for where nothing is decided: one point, or 1 % of the control."""
TOLD_SLACK = 0.001
"""What the places of runs may make is told from a tenth of a point on, or 0.1 % of the control."""
POINTS = Metric("", "", percent=True)
"""What a difference is counted in where nothing else is said."""


@dataclass(frozen=True)
class Segment:
    """The method to use up to level ``to``, and its mean there.

    From the level before on or, where not all is known of it on the way from there, from level ``since``.
    ``alone``: no other can be compared with it there, on the seeds of the comparison.
    """

    method: str
    to: float
    value: float
    since: float | None = None
    alone: bool = False


def recommend(claims: TaskClaims, *, sign: int = 1, yardstick: float = 1.0) -> tuple[Segment, ...]:
    """Which method to use up to where: the best over the common range wherever no other is better at a level.

    Better is one that leads by half a point or more and is told apart from it: as the best of its level, or
    corrected for all leads that are looked at (levels of all tasks x other methods).
    One that takes no part in the range was never second to it there, and needs no half point. Below the range,
    and where a method was not measured on all compared seeds on the way to a level, it is not recommended.
    ``sign`` is that of the metric's direction; half a point of another metric than a share is 0.5 % of
    ``yardstick``.
    """
    block = claims.block
    if len(block.methods) < 2 or len(block.units) < 2:
        return ()
    overall = block.methods[int(block.means.argmax())]
    if sum(block.means >= block.means.max() - TIE) > 1:  # names would decide
        return ()
    chosen: list[Segment] = []
    before = block.low, (*block.methods, *(one.method for one in block.left_out))
    for level in claims.levels:
        decided = level.claim is not None and level.claim.decided
        best = level.leads[0].first if level.leads else level.block.methods[0]
        margin = CLOSE * yardstick if best in block.methods else 0.0
        better = any(
            lead.difference >= margin and (decided or lead.p_raw * claims.looks < ALPHA)
            for lead in level.leads
            if lead.second == overall
        )
        absent = overall not in level.block.methods
        if absent and covers(claims.known.get(overall, ()), level.level, level.level):
            continue  # it has runs on both sides, and no worse ones are known of it here
        method = best if better or absent else overall
        value = sign * float(level.block.means[level.block.methods.index(method)])
        to = level.block.high
        on_the_way = method in before[1] and covers(claims.known.get(method, ()), before[0], to)
        since = None if on_the_way else to
        if on_the_way and not chosen and block.low > 1 + TOLERANCE:
            since = block.low
        alone = len(level.block.methods) == 1
        if on_the_way and chosen and (chosen[-1].method, chosen[-1].alone) == (method, alone):
            since = chosen.pop().since
        chosen.append(Segment(method, to, value, since, alone))
        before = to, level.block.methods
    return tuple(chosen)


def segments_text(segments: Sequence[Segment], metric: Metric = POINTS) -> str:
    """The recommendation as a phrase.

    >>> segments_text([Segment("A", 8.0, 0.98), Segment("C", 31.6, 0.9)])
    'Up to 8× use A (98.0 % there); beyond, up to 31.6×, C (90.0 %)'
    >>> segments_text([Segment("A", 8.0, 0.98), Segment("C", 32.0, 0.9, since=16.0)])
    'Up to 8× use A (98.0 % there); from 16× up to 32×, C (90.0 %; not all is known of it between 8× and 16×)'
    >>> segments_text([Segment(m, 2.0**i, 0.9) for i, m in enumerate("ABAB")]).partition(";")[0]
    'Which method to use changes 3 times along the curve'
    >>> segments_text([Segment("A", 8.0, 0.98), Segment("A", 16.0, 0.9, alone=True)])
    'Up to 8× use A (98.0 % there); beyond, up to 16×, A (90.0 %; no other can be compared there)'
    >>> segments_text([Segment("A", 2.0**i, 0.9, alone=i % 2 == 0) for i in range(8)])
    'Up to 128× use A (90.0 % there; at some levels no other can be compared)'
    """
    changes = sum(a.method != b.method for a, b in itertools.pairwise(segments))
    if changes and sum(not segment.alone for segment in segments) > FEW:
        return (
            f"Which method to use changes {say_count(changes, 'time', 'times')} along the curve; the table "
            "below has the best at each level, however small its lead"
        )
    first = segments[0]
    if len(segments) > FEW and not changes:
        last = segments[-1]
        since = f"from {ratio_text(first.since)}" if first.since else "up"
        unknown = ", and not all is known of it on the way" if any(s.since for s in segments[1:]) else ""
        return (
            f"{since.capitalize()} to {ratio_text(last.to)} use {last.method} ({metric.said(last.value)} "
            f"there; at some levels no other can be compared{unknown})"
        )
    start = _stretch(first) if first.since else f"up to {ratio_text(first.to)}"
    text = f"{start[0].upper()}{start[1:]} use {first.method} ({metric.said(first.value)} there{_alone(first)})"
    for before, s in itertools.pairwise(segments):
        where, gap = f"beyond, up to {ratio_text(s.to)}", ""
        if s.since:
            where = _stretch(s)
            gap = f"; not all is known of it between {ratio_text(before.to)} and {ratio_text(s.since)}"
        text += f"; {where}, {s.method} ({metric.said(s.value)}{gap}{_alone(s)})"
    return text


def _alone(segment: Segment) -> str:
    return "; no other can be compared there" if segment.alone else ""


def _stretch(segment: Segment) -> str:
    """Where a method is recommended whose recommendation does not follow on another."""
    since, to = segment.since or segment.to, segment.to
    return f"from {ratio_text(since)} up to {ratio_text(to)}" if since < to else f"at {ratio_text(to)}"


def range_text(claims: TaskClaims, control: str, metric: Metric = POINTS, *, yardstick: float = 1.0) -> str:
    """Who is best over the common range, by how much, and against whom that is decided."""
    block = claims.block
    place = int(block.means.argmax())
    best = block.methods[place]
    ordered = sorted(range(len(block.methods)), key=lambda i: -block.means[i])
    second = block.methods[ordered[1]]
    lead = between(claims.pairs, best, second)
    units = f"on seed {block.units[0]} alone" if len(block.units) == 1 else f"on {len(block.units)} seeds"
    mean = metric.said(metric.sign * block.means[place])
    text = (
        f"Over {block.low:.3g} to {ratio_text(block.high)} {best} averages {mean}"
        f"{control}, {lead_text(lead, metric)} {second}, the next of {len(block.methods)} ({units})"
    )
    others = [block.methods[i] for i in ordered[1:]]
    if claims.race is not None:  # who stopped at an earlier look was looked at all the same
        seen = (c.second if c.first == best else c.first for c in claims.pairs if c.involves(best))
        others += [method for method in seen if method not in block.methods]
    return f"{text}{_standing(best, claims.pairs, others, metric, yardstick)}"


def only_pairs_text(claims: TaskClaims) -> str:
    """What is said where fewer than two methods are compared at once, though some may be two by two."""
    if not claims.pairs:
        levels = [ratio_text(level.block.high) for level in claims.levels if level.claim]
        single = f"; at {listed(levels)} alone some are" if levels else ""
        return f"No two methods can be compared over one range of compressions and the same seeds{single}."
    alone = f"{claims.block.methods[0]} alone" if claims.block.methods else "no method"
    pairs = [f"{c.first} and {c.second}{' (told apart)' * c.decided}" for c in claims.pairs]
    return (
        f"Several methods at once are not compared: over the seeds and the range that most share, {alone} is "
        f"complete. The table of pairs compares, each over what the two share: {listed(pairs, '; ')}."
    )


def lead_text(claim: Claim, metric: Metric = POINTS) -> str:
    """A lead with its 95 % interval, that of one comparison by itself: above, or below where less is better."""
    if abs(claim.difference) <= TIE:
        return "level with"
    side = "above" if metric.higher_is_better else "below"
    if not math.isfinite(claim.low):
        return f"{metric.difference(claim.difference)} {side}"
    lead = metric.difference(claim.difference, like=max(abs(claim.low), abs(claim.high)))
    return f"{lead} (95 % interval {' to '.join(metric.bounds(claim.low, claim.high))}) {side}"


def slack_text(block: Block, metric: Metric, yardstick: float, where: str = "over the range") -> str:
    """What the places of runs alone may make, of the pair for which it is most; nothing where it is little."""
    pair, slack = max(block.slack.items(), key=lambda found: found[1], default=(frozenset(), 0.0))
    if slack < TOLD_SLACK * yardstick:
        return ""
    return (
        f"Runs lie at other compressions, which alone may make {metric.difference(slack)} {where} "
        f"({listed([m for m in block.methods if m in pair])}): told apart is who differs by more than that."
    )


def between(pairs: Iterable[Claim], best: str, other: str) -> Claim:
    """The comparison of two methods, seen from ``best``."""
    return next(c if c.first == best else c.reversed for c in pairs if c.involves(best) and c.involves(other))


def _standing(
    best: str, pairs: Sequence[Claim], others: Sequence[str], metric: Metric, yardstick: float
) -> str:
    """From whom the best is told apart, and how many more units would settle the rest."""
    claims = [between(pairs, best, other) for other in others]
    if claims[0].question == "tasks" and claims[0].n < FEWEST_TASKS:
        return f" (with {claims[0].n} tasks nothing is told apart: {FEWEST_TASKS} are the fewest)."
    open_ = [c for c in claims if not c.decided]
    if not open_:
        return ", and is told apart from every one of them."
    apart = [c.second for c in claims if c.decided]
    text = f"; told apart from {listed(apart)}" if apart else ""
    needed = _seeds_needed(open_, metric, yardstick)
    return f"{text}; undecided against {listed([c.second for c in open_])}{needed}."


def _seeds_needed(claims: Sequence[Claim], metric: Metric, yardstick: float) -> str:
    """How many more seeds would decide a difference of one point, or of 1 % of the control."""
    if claims[0].n < 2:
        return " (one seed decides nothing)"
    unit = "task" if claims[0].question == "tasks" else "seed"
    if not any(claim.deviation > TIE for claim in claims):
        return f" (differences are the same on every {unit}: there is no spread to test them against)"
    if any(claim.slack >= MARGIN * yardstick for claim in claims):
        return (
            f" (the places of their runs may make a difference of {metric.margin}: runs at the same "
            f"compressions would decide it, and no more {unit}s)"
        )
    needed = [more_units(claim, margin=MARGIN * yardstick) for claim in claims]
    known = [n for n in needed if n is not None]
    least = f"a difference of {metric.margin}"
    if len(known) < len(needed):
        return f" (more than 1,000 further {unit}s would be needed to decide {least})"
    if not max(known):
        return f" ({least} would be found with these {unit}s)"
    return f" (about {max(known)} more {unit}{'s' if max(known) > 1 else ''} would decide {least})"


def over_tasks_text(
    names: Sequence[str],
    best: str,
    pairs: Sequence[Claim],
    ordered: Sequence[str],
    metric: Metric = POINTS,
    *,
    yardstick: float = 1.0,
    breadth: str = "",
) -> str:
    """The claim over tasks, whose units are the tasks; ``breadth`` says of how many datasets and networks."""
    lead = between(pairs, best, ordered[1])
    named = "" if metric.is_accuracy else f" {metric.short}".rstrip()
    over = f"{len(names)} tasks on {breadth}" if breadth else f"{len(names)} tasks"
    return (
        f"Over {over}, each over its own range, {best} has the {metric.best} average"
        f"{named} of {len(ordered)} methods, {lead_text(lead, metric)} {ordered[1]}"
        f"{_standing(best, pairs, ordered[1:], metric, yardstick)}"
    )


def listed(names: Sequence[str], comma: str = ", ") -> str:
    """Names as a phrase, parted by ``comma``, or by semicolons where a name has one itself; of many, how many.

    >>> listed(["a", "b", "c"]), listed(["a", "b", "c", "d", "e"])
    ('a, b and c', 'a, b, c and 2 others')
    >>> listed(["a, one way", "b", "c"])
    'a, one way; b; and c'
    """
    within = comma == ", " and any(comma in name for name in names)
    comma = "; " if within else comma
    shown, more = list(names[:FEW]), len(names) - FEW
    if more > 0:
        return f"{comma.join(shown)}{';' if within else ''} and {more} other{'s' if more > 1 else ''}"
    *start, last = list(dict.fromkeys(names))
    if start and within:
        return f"{'; '.join(start)}; and {last}"
    if start and comma != ", ":
        return comma.join([*start, last])
    return f"{', '.join(start)} and {last}" if start else last
