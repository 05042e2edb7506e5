"""Module paths of version 0.1.0 that still import, with a ``DeprecationWarning``; they go with version 0.3.

Not listed are paths whose last name is now that of a function beside them (``shrinkbench.runner.sweep``).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    "budget": ("spec.training_cost", "report.statistics.fairness"),
    "detection": ("models.faster_rcnn", "datasets.voc_detection", "tasks.detection", "runner.detection"),
    "download": ("files",),
    "hooks": ("training.hook",),
    "measures": ("spec.measures",),
    "probe": ("network.probe", "network.observation"),
    "literature.selection": ("literature.filters",),
    "models.predefined": ("models.published",),
    "pruning.allocation": ("pruning.allocations.rules",),
    "pruning.architecture": ("pruning.structures.by_dataflow",),
    "pruning.controls": ("pruning.names",),
    "pruning.coupling": ("network.coupling",),
    "pruning.dataflow": ("network.dataflow",),
    "pruning.deciding": ("pruning.masking", "pruning.amounts", "pruning.during_training"),
    "pruning.derivatives": ("network.derivatives", "network.view"),
    "pruning.during": ("pruning.schedules.gradual", "pruning.schedules.dynamic", "pruning.schedules.hook"),
    "pruning.finetuning": ("pruning.finetunings",),
    "pruning.observation": ("network.observation", "network.view"),
    "pruning.scheduling": ("pruning.schedules.before_training", "pruning.schedules.schedule"),
    "pruning.scoring": ("pruning.scores",),
    "pruning.scoring.activation": ("pruning.scores.activation",),
    "pruning.scoring.curvature": ("pruning.scores.curvature",),
    "pruning.scoring.filters": ("pruning.scores.filters",),
    "pruning.scoring.gradient": ("pruning.scores.gradient",),
    "pruning.scoring.magnitude": ("pruning.scores.magnitude",),
    "pruning.scoring.reconstruction": ("pruning.methods.wanda_sparsegpt",),
    "pruning.scoring.surgeon": ("pruning.methods.optimal_brain_surgeon",),
    "pruning.scoring.untrained": ("pruning.scores.untrained",),
    "pruning.selection": ("pruning.top_k",),
    "pruning.structure": ("pruning.structures.single", "pruning.units"),
    "pruning.structured": ("pruning.structures", "pruning.methods", "surgery", "network"),
    "pruning.structured.attention": ("network.attention",),
    "pruning.structured.channels": ("pruning.structures.channel_masks",),
    "pruning.structured.checking": ("surgery.checking",),
    "pruning.structured.dead_units": ("surgery.dead_units", "pruning.structures.channel_masks"),
    "pruning.structured.export": ("surgery.export", "surgery.folders"),
    "pruning.structured.guided": ("pruning.allocations.by_pattern",),
    "pruning.structured.methods": ("pruning.methods.over_channels",),
    "pruning.structured.operation": ("surgery.operation",),
    "pruning.structured.parts": ("surgery.stand_ins",),
    "pruning.structured.patterns": ("metrics.patterns", "network.stages"),
    "pruning.structured.predefined": (
        "pruning.methods.published_widths",
        "spec.targets",
        "pruning.allocations.rules",
    ),
    "pruning.structured.reconstruction": ("pruning.methods.thinet_and_regression",),
    "pruning.structured.selecting": ("pruning.methods.gram_selection",),
    "pruning.structured.selection_by_scaling": ("pruning.methods.sparse_structure_selection",),
    "pruning.structured.skeleton": ("network.skeleton",),
    "pruning.structured.slimming": ("pruning.methods.network_slimming",),
    "pruning.structured.structures": ("pruning.structures.channels",),
    "pruning.surgery": ("surgery.shrinking",),
    "report.bundle": ("results.bundle", "results.merging", "results.verification"),
    "report.citations": ("report.page.citations",),
    "report.compare": ("report.statistics.compare", "report.statistics.curves"),
    "report.fairness": ("report.statistics.fairness",),
    "report.html": ("report.page.html",),
    "report.observations": ("report.statistics.observations", "results.labels", "spec.axes"),
    "report.origin": ("report.page.origin",),
    "report.payload": ("report.page.payload",),
    "report.published": ("report.page.published",),
    "report.ranks": ("report.statistics.ranks",),
    "report.stats": ("report.statistics.tests",),
}
"""Old path -> new paths; a name is looked for in these in turn."""

FORMER = {"detection": "_former_detection"}
"""Old path -> where those of its names are that no new path holds."""


class _Finder(MetaPathFinder, Loader):
    """Makes a module of an old path that hands out what the new ones hold."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        if package != __package__ or old not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=any(other.startswith(f"{old}.") for other in MOVED))

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__.partition(".")[2]
        homes = [f"{__package__}.{new}" for new in MOVED[old]]
        former = [f"{__package__}.{FORMER[old]}"] if old in FORMER else []
        warnings.warn(
            f"{module.__name__} has moved to {' and '.join(homes)}; the old path goes with version 0.3",
            DeprecationWarning,
            stacklevel=2,
        )

        def find(name: str) -> Any:
            for home in (*homes, *former):
                if not name.startswith("__") and name in (held := vars(import_module(home))):
                    return held[name]
            raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")

        vars(module)["__getattr__"] = find


def install() -> None:
    """Let the old paths be imported; what exists under a path comes first."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
