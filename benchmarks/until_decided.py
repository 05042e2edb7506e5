"""Seeds until decided against a fixed grid of the most seeds: errors, power, and runs that are saved.

    .venv/bin/python benchmarks/until_decided.py [--stores 200] [--most 10] [--spending obrien-fleming ...]

Made curves are those of error_rates.py: five levels, a noise of 0.8 points in every cell, 0.5 points of every
seed that methods share. A lead is that of one method over all others at every level, in standard deviations of
a cell. What is compared does not depend on the unit of the noise.

false   any pair told apart that does not differ
named   the leader is told apart from every other method; beside it the same of the fixed grid
fewer   runs of the fixed grid over runs that were needed
states  how the comparisons ended, in %
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict

import numpy as np
from error_rates import LEADER, LEVELS, Design, make_curves, told_apart

from shrinkbench.report.statistics import observations
from shrinkbench.report.statistics.claims import judge_curves
from shrinkbench.report.statistics.pairs import Claim
from shrinkbench.report.statistics.sequential import race
from shrinkbench.spec import UntilDecided

DESIGNS = [
    *({"methods": methods} for methods in (2, 3, 5, 12)),
    {"tasks": 3},
    {"by_method": 3.0},
    *({"methods": methods, "lead": lead} for methods in (2, 5) for lead in (0.5, 1, 2, 3, 4)),
    {"tasks": 3, "lead": 2},
]


def better(claim: Claim) -> str:
    return claim.first if claim.difference > 0 else claim.second


def simulate(design: Design, rules: UntilDecided, *, stores: int, seed: int) -> str:
    """One row of the table."""
    random, counts, states, runs = np.random.default_rng(seed), Counter[str](), Counter[str](), 0
    for _ in range(stores):
        curves, _ = make_curves(design, random)
        by_task = defaultdict(list)
        for curve in curves:
            by_task[curve.task].append(curve)
        races = race(by_task, LEVELS, observations.Design(rules, tuple(range(rules.max_seeds))))
        decided = [c for found in races for c in found.pairs if c.decided]
        counts["false"] += any(not design.lead or better(c) != LEADER for c in decided)
        own = [c for found in races for c in found.pairs if c.involves(LEADER)]
        counts["named"] += all(c.decided and better(c) == LEADER for c in own)
        fixed = judge_curves(curves, LEVELS, places={})
        counts["fixed"] += told_apart(fixed) == LEADER
        for found in races:
            states[found.state] += 1
            stopped = {stop.method: stop.seeds for stop in found.stops}
            methods = {curve.method for curve in by_task[found.task]}
            runs += sum(stopped.get(method, len(found.seeds)) for method in methods)
    whole = design.methods * design.tasks * rules.max_seeds * stores
    rates = "".join(f"{100 * counts[name] / stores:9.1f}" for name in ("false", "named", "fixed"))
    ended = ", ".join(f"{state} {100 * n / stores / design.tasks:.0f}" for state, n in states.most_common())
    return f"{rates}{whole / runs:9.2f}   {ended}"


def main() -> None:
    """Print one table for every way of spending."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", type=int, default=200)
    parser.add_argument("--most", type=int, default=10)
    parser.add_argument("--spending", nargs="+", default=["obrien-fleming", "kim-demets", "pocock"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    error = 100 * math.sqrt(0.05 * 0.95 / given.stores)
    for spending in given.spending:
        rules = UntilDecided(max_seeds=given.most, spending=spending)
        print(f"\n{spending}, {given.stores} stores a row, % (one standard error of 5 %: {error:.1f})")
        print(f"{'':50s}{'false':>9s}{'named':>9s}{'fixed':>9s}{'fewer':>9s}   states")
        for fields in DESIGNS:
            design = Design(seeds=given.most, **fields)
            row = simulate(design, rules, stores=given.stores, seed=given.seed)
            print(f"{design!s:50s}{row}", flush=True)


if __name__ == "__main__":
    main()
