"""What each layer alone can lose: quality against density, layer by layer, and the bounds that follow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import pandas as pd

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Constraints, MetricSpec, Objective
from shrinkbench.spec.measures import Quality


@dataclass(frozen=True)
class LayerGroup:
    """What is pruned alone, under the ``name`` of its first layer.

    ``layers`` are those whose weights make its ``units``: several where a structure couples them.
    """

    name: str
    layers: tuple[str, ...]
    units: int


@dataclass(frozen=True)
class SensitivityPoint:
    """The network with ``kept`` units of one group and all others whole; ``density`` is what was asked for."""

    group: str
    density: float
    kept: int
    seed: int
    quality: Quality


@dataclass(frozen=True)
class Sensitivity:
    """Quality of a network of which one group of units at a time is pruned, with no training afterwards.

    ``whole`` is the quality of the network as it is; ``points`` has one entry for each group, density below 1
    and seed.
    """

    method: str
    objective: Objective
    groups: tuple[LayerGroup, ...]
    whole: Quality
    points: tuple[SensitivityPoint, ...]

    @property
    def metric(self) -> MetricSpec:
        """The metric that the task leads with."""
        return self.objective.metric(self.objective.headline)

    @property
    def densities(self) -> tuple[float, ...]:
        """The densities below 1, falling."""
        return tuple(sorted({point.density for point in self.points}, reverse=True))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the draws, in order."""
        return tuple(sorted({point.seed for point in self.points}))

    def values(self, group: str, density: float) -> tuple[float, ...]:
        """The headline metric with that group at that density, by seed."""
        here = [p for p in self.points if (p.group, p.density) == (group, density)]
        return tuple(p.quality[self.metric.name] for p in sorted(here, key=lambda p: p.seed))

    def lost(self, group: str, density: float) -> float:
        """How much worse the headline metric is than the whole network's, mean over seeds, in its unit."""
        sign = 1 if self.metric.direction == "higher" else -1
        return sign * (self.whole[self.metric.name] - fmean(self.values(group, density)))

    def area(self, group: str) -> float:
        """The mean of :meth:`lost` over densities from 1 to the lowest, by trapezoids."""
        steps = [(1.0, 0.0), *((d, self.lost(group, d)) for d in self.densities)]
        area = sum((a - b) * (x + y) / 2 for (a, x), (b, y) in pairwise(steps))
        return area / (1 - self.densities[-1])

    def ranked(self) -> tuple[LayerGroup, ...]:
        """The groups, those with the largest area first."""
        return tuple(sorted(self.groups, key=lambda g: -self.area(g.name)))

    def allowed(self, group: str, most_lost: float) -> float:
        """The largest fraction that was removed before more than ``most_lost`` was lost; 0 where none was."""
        free = 0.0
        for density in self.densities:
            if self.lost(group, density) > most_lost:
                break
            free = round(1 - density, 9)
        return free

    def bounds(self, most_lost: float) -> Constraints:
        """Bounds within which no layer alone loses more than ``most_lost``, in the unit of the metric.

        Layers that lose more at the highest density are ignored; of the others the most that all of them allow
        is the largest ratio. Layers that are pruned together lose more than each alone.
        """
        if not 0 <= most_lost < float("inf"):
            raise ShrinkbenchError(
                f"a loss of {most_lost!r} bounds nothing; give a finite number of at least 0"
            )
        allowed = {group: self.allowed(group.name, most_lost) for group in self.groups}
        ratios = [ratio for ratio in allowed.values() if ratio]
        # Rounded down: never more than was measured, and below 1 also where it is printed.
        most = math.floor(min(ratios) * 1e4) / 1e4 if ratios else None
        return Constraints(
            ignore=tuple(layer for group, ratio in allowed.items() if not ratio for layer in group.layers),
            max_ratio=most or None,
        )

    def to_frame(self) -> pd.DataFrame:
        """One row for each point, the most sensitive groups first, with every metric of the task.

        ``lost`` is how much worse the headline metric is than the whole network's. The first row is that
        network, whose layer is empty.
        """
        names = list(self.whole.metrics)
        rows: list[dict[str, object]] = [{"density": 1.0, "lost": 0.0, **self.whole.metrics}]
        for group in self.ranked():
            for point in (p for p in self.points if p.group == group.name):
                one = Sensitivity(self.method, self.objective, self.groups, self.whole, (point,))
                rows.append(
                    {
                        "layer": group.name,
                        "layers": ", ".join(group.layers),
                        "seed": point.seed,
                        "density": point.density,
                        "kept": point.kept,
                        "units": group.units,
                        "lost": one.lost(group.name, point.density),
                        **point.quality.metrics,
                    }
                )
        columns = {"layer": "string", "layers": "string", "seed": "Int64", "density": "float64"}
        columns |= {"kept": "Int64", "units": "Int64", "lost": "float64", **dict.fromkeys(names, "float64")}
        frame = pd.DataFrame(rows, columns=list(columns), dtype="object").astype(columns)
        return frame.assign(method=self.method, images=self.whole.examples)


def check_densities(densities: Iterable[float]) -> tuple[float, ...]:
    """The densities below 1, falling; raises ``ShrinkbenchError`` for anything that is none.

    >>> check_densities([0.5, 1, 0.25, 0.5])
    (0.5, 0.25)
    """
    if not isinstance(densities, Iterable):
        raise ShrinkbenchError(f"{densities!r} is no list of fractions; give several, such as [0.5, 0.25]")
    given = tuple(densities)
    for density in given:
        if isinstance(density, bool) or not isinstance(density, int | float) or not 0 < density <= 1:
            raise ShrinkbenchError(
                f"{density!r} is no fraction of a layer to keep; give numbers above 0 and up to 1"
            )
    below = tuple(sorted({float(d) for d in given if d < 1}, reverse=True))
    if not below:
        raise ShrinkbenchError(
            "no fraction below 1 was given, so that nothing would be pruned; give one such as 0.5"
        )
    return below
