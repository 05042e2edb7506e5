"""Result bundles: one file that others can check, merge and compare, and one way to open it or a folder."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import check_target, is_folder
from shrinkbench.results.archive import read_archive, write_archive
from shrinkbench.results.conflicts import Conflict, conflicts_among, find_differing_controls, numbers_of
from shrinkbench.results.layout import (
    CONFLICTS,
    PLAN_NAME,
    PLUGIN_FILE,
    conflict_file,
    plugin_file,
    result_file,
)
from shrinkbench.results.outside_code import EDITED as EDITED
from shrinkbench.results.outside_code import lack_of
from shrinkbench.results.places import check_output
from shrinkbench.results.plan import label_of, sequential_of
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import (
    Plan,
    Problem,
    Status,
    existing_store,
    parse_plan,
    parse_result,
    status_of,
)
from shrinkbench.spec import RunSpec, SeedsAdded, digest

Sources = Mapping[str, Mapping[str, bytes]]
"""Files of outside code: place relative to the plug-in -> content, for each digest that keys name."""


@dataclass(frozen=True)
class Bundle:
    """Results read from a store or a bundle; ``digest`` identifies the content, whatever the file's name.

    ``others`` are results of the same keys as ``results`` with other numbers, or of runs that failed elsewhere.
    ``sources`` is code that is shown and never run.
    """

    name: str
    source: Path
    plan: Plan | None
    results: tuple[RunResult, ...]
    problems: tuple[Problem, ...]
    others: tuple[RunResult, ...] = ()
    sources: Sources = field(default_factory=dict)

    @functools.cached_property
    def digest(self) -> str:
        """What identifies the content, whatever the file's name; slow for thousands of results."""
        parts = [digest(result) for result in sorted(self.results, key=lambda r: r.key)]
        parts += sorted(digest(result) for result in self.others)
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """Pairs of results of one run that contradict each other, the one that is used first."""
        return conflicts_among([self.results, self.others])

    @functools.cached_property
    def differing_controls(self) -> tuple[Conflict, ...]:
        """Pairs of copies of one control, of methods that each stored it, that contradict each other."""
        return find_differing_controls(self.results)

    @property
    def disputed(self) -> frozenset[str]:
        """Keys of runs that have other numbers in another source, or failed there."""
        return frozenset(result.key for pair in self.conflicts for result in pair)

    @property
    def missing(self) -> tuple[RunSpec, ...]:
        """Planned runs without a result."""
        stored = {result.key for result in self.results}
        return tuple(run.spec for run in self.plan.runs if run.key not in stored) if self.plan else ()

    @property
    def sequential(self) -> SeedsAdded | None:
        """How seeds were added until the comparison was decided, if they were, as the plan or a run says."""
        experiment = sequential_of(self.plan)
        told = (run.provenance.seeds_added for run in self.results)
        return experiment.seeds_added if experiment else next((added for added in told if added), None)

    @property
    def status(self) -> Status:
        """How many runs of the plan are done, failed and missing."""
        return status_of(self.results, self.plan)

    def runs_by_code(self) -> dict[str, list[RunResult]]:
        """The runs that rest on outside code, by its digest."""
        found: dict[str, list[RunResult]] = {}
        for result in self.results:
            for code in result.spec.sources:
                found.setdefault(code, []).append(result)
        return found

    def lacks_source(self, code: str) -> str:
        """Why the code of digest ``code`` cannot be read here; nothing where it can."""
        return lack_of(self.sources.get(code, {}), code)


def write_bundle(source: Path | Bundle, out: Path) -> Bundle:
    """Pack all that ``source`` holds into the zip file ``out``; equal results give equal bytes."""
    check_output(out)
    check_target(out)
    bundle = read_source(source) if isinstance(source, Path) else source
    require_results(bundle, "run a sweep into it first")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", bundle.name)[:100].strip("._-")
    write_archive(out, name or "results", _contents(bundle))
    return bundle


def require_results(bundle: Bundle, remedy: str) -> None:
    """Refuse a source without any result, with the first reason why."""
    if not bundle.results:
        first = bundle.problems[0] if bundle.problems else None
        hint = f" ({first.path.relative_to(bundle.source)} {first.sentence})" if first else ""
        raise ShrinkbenchError(f"{bundle.source} holds no results; {remedy}{hint}")


def _contents(bundle: Bundle) -> dict[str, bytes]:
    files = {PLAN_NAME: bundle.plan.as_json()} if bundle.plan else {}
    for result in sorted(bundle.results, key=lambda r: r.key):
        files[result_file(result.key)] = result.as_json()
    others = {conflict_file(result.key, numbers_of(result)): result for result in bundle.others}
    for name, result in sorted(others.items()):
        files[name] = result.as_json()
    used = bundle.runs_by_code()
    for code, texts in sorted(bundle.sources.items()):
        if code in used:
            files |= {plugin_file(code, place): content for place, content in sorted(texts.items())}
    return files


def read_source(source: Path) -> Bundle:
    """Read a store's folder or a bundle's file; what is wrong with single files becomes problems."""
    if not is_folder(source):
        return read_bundle(source)
    store = existing_store(source)
    results, problems = store.results()
    others, further = store.conflicts(results)
    plan = store.find_plan()
    if isinstance(plan, Problem):
        problems, plan = [plan, *problems], None
    name = label_of([e.name for e in plan.experiments]) if plan else source.resolve().name
    ordered = sorted(results, key=lambda result: result.key)  # as a bundle has them
    sources, unread = store.sources()
    return _bundle(name, source, plan, ordered, [*problems, *further, *unread], others, sources)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle; files whose content is not what the manifest says are an error that names them."""
    plan: Plan | None = None
    results: list[RunResult] = []
    others: list[RunResult] = []
    problems: list[Problem] = []
    sources: dict[str, dict[str, bytes]] = {}
    bundle_name, files = read_archive(path)
    for name, content in files:
        plugin = PLUGIN_FILE.fullmatch(name)
        if name == PLAN_NAME:
            try:
                plan = parse_plan(path / name, content)
            except ShrinkbenchError as error:
                problems.append(Problem(path / name, str(error).removeprefix(f"{path / name} ")))
        elif plugin is not None:
            sources.setdefault(plugin["digest"], {})[plugin["file"]] = content
        else:
            outcome = parse_result(path / name, content)
            if isinstance(outcome, Problem):
                problems.append(outcome)
            else:
                (others if (path / name).parent.name == CONFLICTS else results).append(outcome)
    return _bundle(bundle_name, path, plan, results, problems, others, sources)


def _bundle(
    name: str,
    source: Path,
    plan: Plan | None,
    results: Sequence[RunResult],
    problems: Sequence[Problem],
    others: Sequence[RunResult],
    sources: Sources,
) -> Bundle:
    return Bundle(name, source, plan, tuple(results), tuple(problems), tuple(others), sources)
