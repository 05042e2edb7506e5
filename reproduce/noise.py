"""How far one published number moves by what papers rarely say, each varied alone: a section of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from asking import bundle_of
from scipy.stats import chi2

from shrinkbench.results.record import RunResult
from shrinkbench.spec import RunSpec

BUNDLE = "cifar10-resnet20-noise-small"
THREADS = (f"{BUNDLE}-1-thread", f"{BUNDLE}-2-threads")
METHODS = ("global_magnitude", "layerwise_magnitude")
TARGETS = (4.0, 16.0)
PRINTED = 0.1  # points: numbers that are printed to one decimal differ by as much where they are equal

HEAD = f"""## How large must a difference be

ResNet-20 on CIFAR-10 (`{BUNDLE}`, on a GPU; schedule and threads on a
processor, in the bundles of one and of two threads): the order of images and what else a seed of
fine-tuning draws, the initial weights (each trained here from another seed), and the schedule of the learning
rate (constant, cosine, two steps) are varied alone, the rest as it is. Standard deviations of top-1 in points,
with 95 % intervals from the chi-squared distribution; *of the difference*: of {METHODS[0]} minus
{METHODS[1]} of the same weights, order and schedule, which is what a paper with one protocol sees. Sums of
their variances have intervals after Satterthwaite."""


@dataclass(frozen=True)
class Factor:
    """What is varied: the value of a run, and the value of the others that stays."""

    name: str
    bundle: str
    varied: Callable[[RunSpec], object]
    fixed: Callable[[RunSpec], bool]


def weights_seed(spec: RunSpec) -> int:
    """The seed from which the initial weights were trained."""
    return spec.task.weights.seed or 0


FACTORS = (
    Factor(
        "order", BUNDLE, lambda s: s.seed, lambda s: weights_seed(s) == 0 and s.recipe.schedule == "constant"
    ),
    Factor("initial weights", BUNDLE, weights_seed, lambda s: s.seed == 0 and s.recipe.schedule == "constant"),
    Factor("schedule", THREADS[0], lambda s: s.recipe.schedule, lambda s: weights_seed(s) == 0 and s.seed == 0),
)


def top1(results: Sequence[RunResult], factor: Factor, method: str, target: float) -> dict[object, float]:
    """Top-1 in points of a method at a target, by the value of the factor."""
    return {
        factor.varied(r.spec): 100 * r.after["top1"]
        for r in results
        if isinstance(r.spec, RunSpec)
        and r.after is not None
        and (r.spec.method.base, r.spec.amount.ratio) == (method, target)
        and factor.fixed(r.spec)
    }


def results_of(name: str) -> Sequence[RunResult]:
    """The runs of a bundle that is there."""
    bundle = bundle_of(name)
    return () if bundle is None else bundle.results


def deviation(values: Sequence[float]) -> tuple[float, str]:
    """The standard deviation of ``values``, and how it is told."""
    found, free = stdev(values), len(values) - 1
    low, high = (found * math.sqrt(free / chi2.ppf(q, free)) for q in (0.975, 0.025))
    return found, f"{found:.2f} [{low:.2f}, {high:.2f}]"


@dataclass(frozen=True)
class Part:
    """A variance, in points squared, and the degrees of freedom that it is known from."""

    variance: float
    freedom: int


def combined(parts: Sequence[Part]) -> tuple[float, float, float]:
    """The deviation of a sum, with its 95 % interval after Satterthwaite (1946).

    >>> [round(x, 2) for x in combined([Part(1.0, 4), Part(1.0, 4)])]
    [1.41, 0.96, 2.71]
    """
    variance = sum(part.variance for part in parts)
    freedom = variance**2 / sum(part.variance**2 / part.freedom for part in parts)
    low, high = (math.sqrt(variance * freedom / chi2.ppf(q, freedom)) for q in (0.975, 0.025))
    return math.sqrt(variance), low, high


def threads() -> dict[float, Part]:
    """The same runs from the same weights on one thread and on two: what rounding alone does to a number."""
    one, two = ({r.key: r for r in results_of(name) if r.after} for name in THREADS)
    found = {}
    for target in TARGETS:
        moved = [
            100 * (one[key].after["top1"] - two[key].after["top1"])
            for key in sorted(one.keys() & two.keys())
            if one[key].spec.amount.ratio == target
        ]
        found[target] = Part(mean(m * m for m in moved) / 2, len(moved))
    return found


def noise() -> list[str]:
    """The section, line by line."""
    absent = [name for name in (BUNDLE, *THREADS) if bundle_of(name) is None]
    if absent:
        return [HEAD, "", f"Not there: docs/results/{', '.join(absent)}."]
    lines = [HEAD, "", "| varied | at | method | values | deviation | of the difference |", "|" + " --- |" * 6]
    alone: dict[tuple[str, float], list[Part]] = {}
    between: dict[float, list[Part]] = {}
    for factor in FACTORS:
        runs = results_of(factor.bundle)
        for target in TARGETS:
            found = {m: top1(runs, factor, m, target) for m in METHODS}
            common = sorted(set.intersection(*(set(v) for v in found.values())), key=str)
            apart, told = deviation([found[METHODS[0]][k] - found[METHODS[1]][k] for k in common])
            between.setdefault(target, []).append(Part(apart**2, len(common) - 1))
            for method in METHODS:
                own, shown = deviation(list(found[method].values()))
                alone.setdefault((method, target), []).append(Part(own**2, len(found[method]) - 1))
                last = told if method == METHODS[0] else ""
                lines.append(f"| {factor.name} | {target:g}x | {method} | {len(common)} | {shown} | {last} |")
    rounding = threads()
    for target, part in rounding.items():
        size, low, high = combined([part])
        told = f"{size:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(f"| threads: 1 or 2 | {target:g}x | both | {part.freedom} pairs | {told} | |")
    lines.append("")
    for target in TARGETS:
        most = max(
            (combined([*alone[m, target], rounding[target]]) for m in METHODS), key=lambda found: found[0]
        )
        papers = [1.96 * math.sqrt(2) * value + PRINTED for value in most]
        paired = [1.96 * value + PRINTED for value in combined(between[target])]
        lines.append(
            f"- At {target:g}x the four together give a single run a deviation of up to {most[0]:.2f} points "
            f"[{most[1]:.2f}, {most[2]:.2f}]: the numbers of two papers, one run each and printed to "
            "one decimal, "
            f"are told apart at 5 % by **{papers[0]:.1f} points** [{papers[1]:.1f}, {papers[2]:.1f}] "
            "or more; two "
            "methods in one paper, by one run each from the same weights in the same order on one machine, by "
            f"{paired[0]:.1f} [{paired[1]:.1f}, {paired[2]:.1f}]."
        )
    return lines
