"""Error rates, coverage and power of the report's answers on made curves whose truth is known.

    .venv/bin/python benchmarks/error_rates.py [--stores 200] [--quick] [--only null]

Every store is judged as the report judges it (``judge_curves``). Curves have five levels from 2x to 32x by
default, a noise of 0.8 points in every cell, and an effect of 0.5 points of every seed that methods share. A
lead is that of one method over all others at every level, in standard deviations of a cell (0.8 points).

null       nobody leads: how often a method is told apart from all others in the headline, a level is shaded, a
           pair is decided, any of these; how often another method is recommended from some compression on;
           how often 95 % intervals hold the truth
effects    the same where every task prefers methods of its own (by 1 point): only claims over tasks can err
noise      the same where noise differs, by compression or by method (one to three times), where the seeds of
           one method are 3 points apart at all levels, and where one seed of one method falls to chance in
           every fifth store
power      one method leads: how often the headline names it as better than all others, the share of levels
           that are shaded for it, how often any of its pairs is decided
bootstrap  how often the intervals of the table "Over tasks" hold what all tasks would show
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from shrinkbench.report.recommendation import recommend
from shrinkbench.report.statistics.aggregates import Scores, aggregate_scores
from shrinkbench.report.statistics.claims import Claim, Claims, judge_curves
from shrinkbench.report.statistics.curves import Curve
from shrinkbench.report.statistics.pairs import compare_pairs, relative_noise

POINT = 0.01
CELL = 0.8 * POINT
SEED = 0.5 * POINT
LEVELS = (2.0, 4.0, 8.0, 16.0, 32.0)
CHANCE = 0.10
LEADER = "method 00"


@dataclass(frozen=True)
class Design:
    """What is varied: sizes, the lead in standard deviations of a cell, and how noise lies."""

    methods: int = 5
    tasks: int = 1
    seeds: int = 3
    lead: float = 0.0
    task_effect: float = 0.0
    cell: float = CELL
    by_level: float = 1.0
    by_method: float = 1.0
    by_seed: float = 0.0
    collapse: float = 0.0
    levels: Sequence[float] = LEVELS

    def __str__(self) -> str:
        text = f"{self.methods:2d} methods {self.tasks} tasks {self.seeds:2d} seeds"
        text += f", lead {self.lead:g} sd" if self.lead else ""
        text += f", task effects {self.task_effect / POINT:g}, noise {self.cell / POINT:g}" * (
            self.task_effect > 0
        )
        text += f", noise to {self.by_level:g}-fold by compression" * (self.by_level != 1)
        text += f", noise to {self.by_method:g}-fold by method" * (self.by_method != 1)
        text += f", seeds of one method {self.by_seed / POINT:g} points apart" * (self.by_seed > 0)
        return text + ", a seed collapses in every fifth store" * (self.collapse > 0)


Offsets = dict[tuple[str, str], float]
"""What a method truly gains on a task at every level."""


def make_curves(design: Design, random: np.random.Generator) -> tuple[list[Curve], Offsets]:
    """Curves of a store, and the truth."""
    count = len(design.levels)
    x = np.r_[1.0, design.levels]
    base = 0.93 - 0.004 * np.arange(1, count + 1) ** 1.5
    spread = design.cell * np.outer(
        np.geomspace(1, design.by_method, design.methods), np.geomspace(1, design.by_level, count)
    )
    fallen = (
        tuple(random.integers((design.tasks, design.methods, design.seeds)))
        if random.random() < design.collapse
        else None
    )
    found, truth = [], {}
    for task in range(design.tasks):
        offsets = random.normal(0, design.task_effect, design.methods)
        offsets[0] += design.lead * CELL
        seeds = random.normal(0, SEED, design.seeds)
        noise = random.normal(0, 1, (design.methods, design.seeds, count)) * spread[:, None]
        if design.by_seed:
            noise[-1] += random.normal(0, design.by_seed, (design.seeds, 1))
        for method, seed in np.ndindex(design.methods, design.seeds):
            y = base + offsets[method] + seeds[seed] + noise[method, seed]
            if fallen == (task, method, seed):
                y = np.full(count, CHANCE)
            name = (f"task {task}", f"method {method:02d}")
            found.append(Curve(*name, seed, x, np.r_[0.93 + seeds[seed], y]))
            truth[name] = float(offsets[method])
    return found, truth


@dataclass
class Rates:
    """How often something was so, of how often it was asked."""

    counts: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, *, yes: bool) -> None:
        self.counts[name] += yes
        self.asked[name] += 1

    def __getitem__(self, name: str) -> float:
        return self.counts[name] / self.asked[name] if self.asked[name] else math.nan


def told_apart(claims: Claims) -> str | None:
    """The method that the headline tells apart from every other one."""
    over = claims.over_tasks is not None
    block = claims.over_tasks or claims.tasks[0].block
    pairs = claims.pairs_over_tasks if over else claims.tasks[0].pairs
    best = block.methods[int(block.means.argmax())]
    own = [claim for claim in pairs if claim.involves(best)]
    return best if own and all(claim.decided for claim in own) else None


def simulate(design: Design, *, stores: int, seed: int = 0) -> Rates:
    """Judge made stores and compare every answer with the truth."""
    rates, random = Rates(), np.random.default_rng(seed)
    for _ in range(stores):
        curves, truth = make_curves(design, random)
        _count(rates, design, judge_curves(curves, design.levels, places={}), truth)
    return rates


def _count(rates: Rates, design: Design, claims: Claims, truth: Offsets) -> None:
    within = [] if design.task_effect else [level.claim for task in claims.tasks for level in task.levels]
    in_tasks = [] if design.task_effect else [claim for task in claims.tasks for claim in task.pairs]
    pairs = [*claims.pairs_over_tasks, *in_tasks]
    best = told_apart(claims)
    answers = {
        "headline": best == LEADER if design.lead else best is not None,
        "pair": any(c.decided and (not design.lead or _leads(c)) for c in pairs),
    }
    if not design.task_effect:
        answers["level"] = any(claim.decided for claim in within)
    answers["any"] = any(answers.values())
    if not design.task_effect:
        answers["switch"] = any(len(recommend(task)) > 1 for task in claims.tasks)
    for name, yes in answers.items():
        rates.add(name, yes=yes)
    for claim in within:
        rates.add("cells", yes=claim.decided and claim.first == LEADER)
    for question, low, value, high in _intervals(claims, truth, design):
        rates.add(f"cover {question}", yes=low <= value <= high)


def _leads(claim: Claim) -> bool:
    return (claim.first if claim.difference > 0 else claim.second) == LEADER


def _intervals(claims: Claims, truth: Offsets, design: Design) -> Iterator[tuple[str, float, float, float]]:
    """Question, interval and truth of every interval that is shown, and of a fixed pair at a level."""
    share = 1 - 0.5 * math.log(design.levels[0]) / math.log(design.levels[-1])  # all begin at one control
    lead = {LEADER: design.lead * CELL * share}
    for claim in claims.pairs_over_tasks:
        yield "tasks", claim.low, lead.get(claim.first, 0.0) - lead.get(claim.second, 0.0), claim.high
    for task in claims.tasks:
        noise = relative_noise([level.block for level in task.levels])
        fixed = [compare_pairs("level", task.task, level.block, noise)[0] for level in task.levels]
        for name, scale, of in (
            ("range", share, task.pairs),
            ("shown", 1.0, [level.claim for level in task.levels]),
            ("level", 1.0, fixed),
        ):
            for c in of:
                gain = truth[task.task, c.first] - truth[task.task, c.second]
                yield name, c.low, scale * gain, c.high


def show(title: str, designs: Sequence[Design], columns: dict[str, str], stores: int) -> None:
    """Print one table, in percent."""
    print(
        f"\n{title}, {stores} stores each, in % (one standard error of 5 %: "
        f"{100 * math.sqrt(0.05 * 0.95 / stores):.1f})"
    )
    width = max(len(str(design)) for design in designs)
    print(" " * width + "".join(f"{head:>10s}" for head in columns))
    for design in designs:
        start = time.perf_counter()
        rates = simulate(design, stores=stores)
        cells = [
            f"{100 * rates[name]:10.1f}" if rates.asked[name] else f"{'–':>10s}" for name in columns.values()
        ]
        print(f"{design!s:{width}s}{''.join(cells)}   ({time.perf_counter() - start:.0f} s)", flush=True)


ERRORS = {"headline": "headline", "level": "level", "pair": "pair", "any": "any", "switch": "switch"}
COVERAGE = {
    "c.range": "cover range",
    "c.level": "cover level",
    "c.shown": "cover shown",
    "c.tasks": "cover tasks",
}
"""Of pairs over a range, of one fixed pair at a level, of the best and the runner-up of a level, over tasks."""
POWER = {"headline": "headline", "levels": "cells", "any pair": "pair"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="few designs, 20 stores each")
    parser.add_argument("--only", choices=("null", "effects", "noise", "power", "bootstrap"))
    options = parser.parse_args()
    stores = 20 if options.quick else options.stores
    for part, (title, designs, columns) in tables(quick=options.quick).items():
        if options.only in (None, part):
            show(title, designs, columns, stores)
    if options.only in (None, "bootstrap"):
        print(f"\nCoverage of bootstrap intervals over tasks, {stores} stores each, in %")
        for tasks, seeds in itertools.product((3, 6) if options.quick else (2, 3, 6, 10, 20), (3, 10)):
            shares = cover_by_bootstrap(tasks, seeds, stores=stores)
            text = ", ".join(f"{name} {100 * share:.0f}" for name, share in shares.items())
            print(f"{tasks:2d} tasks {seeds:2d} seeds: {text}", flush=True)


def cover_by_bootstrap(tasks: int, seeds: int, *, stores: int, seed: int = 0) -> dict[str, float]:
    """How often a method's aggregates are held: tasks differ by 3 % of the score, runs of one by 1 %."""
    random, held = np.random.default_rng(seed), Counter()
    runs = tuple(range(i * seeds, (i + 1) * seeds) for i in range(tasks))
    for _ in range(stores):
        levels = 0.95 + 0.03 * random.standard_normal((2, tasks))
        values = np.repeat(levels, seeds, axis=1) + 0.01 * random.standard_normal((2, tasks * seeds))
        scores = Scores(("a", "b"), tuple(map(str, runs)), values, runs)
        for row in aggregate_scores(scores, resamples=500):
            for name in ("interquartile_mean", "median", "mean"):
                found = getattr(row, name)
                held[name.replace("_", " ")] += found.low <= 0.95 <= found.high
    return {name: count / (2 * stores) for name, count in held.items()}


def tables(*, quick: bool) -> dict[str, tuple[str, list[Design], dict[str, str]]]:
    """What is printed."""
    counts = (3,) if quick else (3, 5, 10)
    sizes = [(5, 1, 3)] if quick else [(2, 1, 3), (12, 1, 3), (12, 6, 3), (2, 6, 2), (2, 1, 10), (5, 1, 2)]
    null = [Design(tasks=tasks, seeds=seeds) for tasks in (1, 3) for seeds in counts]
    null += [Design(methods=m, tasks=t, seeds=s) for m, t, s in sizes]
    effects = [
        Design(tasks=tasks, seeds=seeds, task_effect=POINT, cell=cell * POINT)
        for tasks in (3, 6)
        for seeds in counts
        for cell in ((0.4,) if quick else (0.4, 0.8))
    ]
    noise = [
        Design(tasks=tasks, seeds=seeds, **{name: value})
        for name, value in (("by_level", 3.0), ("by_method", 3.0), ("collapse", 0.2))
        for tasks in (1, 3)
        for seeds in counts
    ]
    uneven = [(5, 1, 3)] if quick else [(3, 1, 3), (5, 1, 3), (12, 1, 3), (12, 1, 2), (12, 3, 3), (7, 3, 5)]
    noise += [Design(methods=m, tasks=t, seeds=s, by_seed=3 * POINT, cell=0.3 * POINT) for m, t, s in uneven]
    power = [Design(seeds=s, lead=lead) for s in counts for lead in (1, 2, 3, 4)]
    power += [Design(tasks=tasks, lead=lead) for tasks in (3, 6) for lead in (1, 3)]
    power += [Design(methods=methods, lead=3) for methods in (2, 12)]
    return {
        "null": ("Nobody leads", null, ERRORS | COVERAGE),
        "effects": ("Nobody leads over tasks, methods differ by task", effects, ERRORS | COVERAGE),
        "noise": ("Nobody leads, noise differs", noise, ERRORS | COVERAGE),
        "power": ("One method leads", power, POWER | COVERAGE),
    }


if __name__ == "__main__":
    main()
