"""Results of several sources in one store, where nothing is lost and nothing replaced."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.links import check_links
from shrinkbench.results.bundle import EDITED, Bundle, read_source, require_results
from shrinkbench.results.conflicts import (
    Conflict,
    accuracy_difference,
    conflicts_among,
    find_differing_controls,
)
from shrinkbench.results.layout import PLUGINS
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import Problem, ResultStore, existing_store
from shrinkbench.spec import ExperimentSpec, RunSpec, digest


@dataclass(frozen=True)
class Merged:
    """What a merge gave: runs in all, taken over from each source, and results that sources disagree on.

    ``controls`` are pairs of copies of one control, each stored by a method, that contradict each other.
    ``problems`` are files of the sources that could not be used.
    """

    out: Path
    runs: int
    taken: tuple[tuple[str, int], ...]
    conflicts: tuple[Conflict, ...]
    problems: tuple[Problem, ...]
    controls: tuple[Conflict, ...] = ()

    @property
    def differing(self) -> int:
        """How many runs have other numbers in another source, or failed there."""
        return len({first.key for first, _ in self.conflicts})

    @property
    def largest_difference(self) -> float:
        """By how much headline metrics of one run differ at most."""
        return max((abs(accuracy_difference(pair)) for pair in self.conflicts), default=0.0)


def merge(sources: Sequence[Path], out: Path) -> Merged:
    """Unite stores or bundles in the store ``out``; of one run, a finished result wins over a failed one.

    Where two sources finished the same run with other numbers, or one saw it fail for a reason that lies in the
    run, the first finished one is used and the other stored beside it as a conflict: whatever the order of the
    sources, and however often they are merged, the same results are kept. A store that ``out`` already holds is
    the first source. Raises ``ShrinkbenchError`` for a folder ``out`` of anything else, or with a link that
    leads out of it, where no source holds a plan or a result, and for another grid beside one whose seeds were
    added until decided.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        existing_store(out)
        check_links(out)
        here = os.path.realpath(out)
        sources = [out, *(source for source in sources if os.path.realpath(source) != here)]
    bundles = [read_source(source) for source in sources]
    if not any(bundle.plan or bundle.results or bundle.others for bundle in bundles):
        require_results(bundles[0], "there is nothing to merge")
    planned = [*_unite_plans(bundles)]
    _refuse_beside_sequential({digest(experiment): experiment for experiment, _ in planned}.values())
    store = ResultStore(out)
    kept: dict[str, tuple[int, RunResult]] = {}
    stored = (*enumerate(bundles),)
    for number, bundle in stored:
        for result in (*bundle.results, *bundle.others):
            earlier = kept.get(result.key)
            if earlier is None or (earlier[1].status == "failed" and result.status == "done"):
                kept[result.key] = (number, result)
    conflicts = conflicts_among(part for bundle in bundles for part in (bundle.results, bundle.others))
    for experiment, runs in planned:
        store.write_plan(experiment, runs)
    for number, result in kept.values():
        if bundles[number].source != out:
            store.write(result)
    beside = [other for _, other in conflicts if other is not kept[other.key][1]]
    for other in beside:
        store.write_conflict(other)
    stored_now = (*(result for _, result in kept.values()), *beside)
    used = {code for result in stored_now for code in result.spec.sources}
    edited: list[Problem] = []
    for bundle in bundles:
        for code in used & bundle.sources.keys() if bundle.source != out else ():
            if bundle.lacks_source(code) == EDITED:  # any number of files, and not what the results rest on
                edited.append(Problem(bundle.source / PLUGINS / code, f"holds outside code: {EDITED}"))
            else:
                store.write_source(code, bundle.sources[code])
    taken = tuple((str(b.source), sum(n == number for n, _ in kept.values())) for number, b in stored)
    problems = (*(problem for bundle in bundles for problem in bundle.problems), *edited)
    controls = find_differing_controls(result for _, result in kept.values())
    return Merged(out, len(kept), taken, conflicts, problems, controls)


def _refuse_beside_sequential(experiments: Collection[ExperimentSpec]) -> None:
    """A folder whose seeds are added until decided holds one grid by one set of rules, as a sweep keeps it."""
    added = next((experiment for experiment in experiments if experiment.until_decided is not None), None)
    if added is not None and len(experiments) > 1:
        raise ShrinkbenchError(
            f"the seeds of '{added.name}' were added until its comparison was decided, by rules that say "
            "nothing of the other grids or rules in these sources; merge sources of one such plan alone"
        )


def _unite_plans(bundles: Sequence[Bundle]) -> Iterator[tuple[ExperimentSpec, list[RunSpec]]]:
    """Every experiment of every plan; another grid under a name that is taken gets a digest."""
    seen: dict[str, str] = {}
    for bundle in bundles:
        if bundle.plan is None:
            continue
        for experiment in bundle.plan.experiments:
            runs = [run.spec for run in bundle.plan.runs if run.experiment == experiment.name]
            identity = digest(experiment)
            if seen.setdefault(experiment.name, identity) != identity:
                experiment = experiment.model_copy(update={"name": f"{experiment.name[:90]}-{identity[:6]}"})
            yield experiment, runs
