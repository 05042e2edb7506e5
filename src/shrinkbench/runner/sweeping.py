"""A grid of runs: planned, shared work first, finished runs skipped, every outcome stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.pruning import load_entry_points, load_plugin, resolve
from shrinkbench.pruning.plugins import digest_of_plugin
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import ResultStore, Status
from shrinkbench.runner.effort import say_effort
from shrinkbench.runner.execution import ensure_control, record_failure, run, sentence_of
from shrinkbench.runner.executors import Executor
from shrinkbench.runner.own_parts import take_own_parts
from shrinkbench.runner.planning import label_methods, plan
from shrinkbench.runner.pretraining import ensure_pretrained
from shrinkbench.runner.retraining import check_in_reach, ensure_rounds, ensure_search
from shrinkbench.runner.workspace import Workspace, resolve_device
from shrinkbench.spec import ExperimentSpec, PretrainSpec, RunSpec


@dataclass(frozen=True)
class Progress:
    """One task of a sweep has ended: ``done`` of ``total`` so far. ``result`` is set for runs."""

    kind: str  # "pretraining", "control", "search", "rounds" or "run"
    done: int
    total: int
    label: str
    result: RunResult | None = None


def sweep(
    experiment: ExperimentSpec | Sequence[ExperimentSpec],
    out: Path,
    *,
    workers: int = 1,
    device: str = "auto",
    data: dict[str, Path] | None = None,
    plugins: Sequence[Path] = (),
    retry_failed: bool = False,
    on_plan: Callable[[int, int], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Status:
    """Run what ``out`` lacks of ``experiment``, one or several, and return the status of the whole.

    All are planned before anything runs. What runs share is computed first and once: each pretrained network,
    each control, each training that only finds masks. Targets that methods of several rounds, or that prune
    while they train, cannot reach fail before that. ``on_plan`` is told (runs in all, runs to do),
    ``on_note`` which methods train by another recipe than the grid's, or for much longer. A sweep
    that was killed goes on where it stopped: finished runs are stored whole, and a run that was under way
    resumes from its last epoch.
    """
    store = ResultStore(out)
    workspace = Workspace(root=out, data=data or {}, device=resolve_device(device))
    given = (experiment,) if isinstance(experiment, ExperimentSpec) else tuple(experiment)
    given, plugins = take_own_parts(given, plugins)
    experiments = tuple(map(label_methods, given))
    plans = [(each, plan(each, workspace)) for each in experiments]
    weights = {digest: path for _, planned in plans for digest, path in planned.weights.items()}
    timed = frozenset(size for each in experiments for size in each.latency)
    workspace = replace(workspace, weights=weights, latency=tuple(sorted(timed)))
    for each, planned in plans:
        store.write_plan(each, planned.runs)
        store.keep_sources(planned.runs)
    runs = {spec.key: spec for _, planned in plans for spec in planned.runs}
    todo = [spec for spec in runs.values() if _is_open(store, spec, timed, retry_failed=retry_failed)]
    if on_plan is not None:
        on_plan(len(runs), len(todo))
    if on_note is not None:
        for sentence in say_effort(todo):
            on_note(sentence)
    digests = {path: digest_of_plugin(path) for path in plugins}
    executor = Executor(workers, partial(_prepare, digests))
    try:
        _carry_out(todo, workspace, executor, on_progress or (lambda progress: None))
    finally:
        executor.close()
    return store.status()


def _is_open(store: ResultStore, spec: RunSpec, timed: frozenset[int], *, retry_failed: bool) -> bool:
    """Whether a run has to be carried out: it is not stored, or not with what is asked for now."""
    if not store.has(spec.key):
        return True
    if not (retry_failed or timed):
        return False
    try:
        stored = store.read(spec.key)
        if stored.status == "failed":
            return retry_failed
        return not spec.is_control and not timed <= {t.batch_size for t in stored.provenance.latency}
    except ShrinkbenchError:  # a damaged file is not a result
        return True


def _prepare(plugins: Mapping[Path, str | None]) -> None:
    """Load in a worker what was planned with, or nothing."""
    load_entry_points()
    for path, digest in plugins.items():
        load_plugin(path, digest=digest)


def _carry_out(
    todo: Sequence[RunSpec],
    workspace: Workspace,
    executor: Executor,
    on_progress: Callable[[Progress], None],
) -> None:
    store = ResultStore(workspace.root)
    beyond = _out_of_reach(todo, workspace)
    total, done = len(todo), 0
    for spec in todo:
        if spec.key in beyond:
            done += 1
            failed = record_failure(spec, workspace, beyond[spec.key])
            on_progress(Progress("run", done, total, _label(spec), failed))
    todo = [spec for spec in todo if spec.key not in beyond]
    pretrained = {
        p.key: p
        for p in (_of_control(spec).pretraining for spec in todo)
        if p is not None and not (store.shared_dir("pretrained", p.key) / "weights.safetensors").exists()
    }
    modes = [spec.method.finetuning for spec in todo]
    keep = tuple(sorted({mode.epoch for mode in modes if mode.weights == "rewound" and mode.epoch > 0}))
    controls = {
        spec.control.key: spec
        for spec in todo
        if spec.is_control and not (store.shared_dir("control", spec.control.key) / "result.json").exists()
    }
    searches = {
        s.key: s
        for s in (spec.searching for spec in todo)
        if s is not None and not (store.shared_dir("search", s.key) / "card.json").exists()
    }
    own = {spec.rounds.key for spec in todo if spec.rounds is not None and spec.method.allocation.like is None}
    rounds = {
        s.key: s
        for s in (spec.rounds for spec in todo)
        if s is not None and s.key not in own and not (store.shared_dir("rounds", s.key) / "card.json").exists()
    }
    total += len(pretrained) + len(controls) + len(searches) + len(rounds)
    failures: dict[str, str] = {}
    for kind, function, tasks in (
        ("pretraining", partial(_pretrain, keep), list(pretrained.values())),
        ("control", _control, list(controls.values())),
        ("search", _search, list(searches.values())),
        ("rounds", _rounds, list(rounds.values())),
    ):
        for key, label, failure in executor.map(partial(function, workspace), tasks):
            done += 1
            failures |= {key: failure} if failure else {}
            on_progress(Progress(kind, done, total, label))
    lost = {spec.key: _lost(spec, failures) for spec in todo}
    for spec in todo:
        failure = lost[spec.key]
        if failure is not None:
            done += 1
            on_progress(Progress("run", done, total, _label(spec), record_failure(spec, workspace, failure)))
    left = [spec for spec in todo if lost[spec.key] is None]
    late = {spec.key for spec in left if spec.rounds is not None and spec.method.allocation.like is not None}
    # The rounds of a method tell its controls how much of every layer to keep.
    for group in ([s for s in left if s.key not in late], [s for s in left if s.key in late]):
        for result in executor.map(partial(_run, workspace), group):
            done += 1
            on_progress(Progress("run", done, total, _label(result.spec), result))


def _out_of_reach(todo: Sequence[RunSpec], workspace: Workspace) -> dict[str, str]:
    """Runs whose training would be in vain, by key, and why; equal for all seeds."""
    found: dict[str, str] = {}
    known: dict[str, str | None] = {}
    for spec in todo:
        if spec.is_control or (spec.method.schedule.rounds == 1 and not spec.method.schedule.during):
            continue
        alike = spec.model_copy(update={"seed": 0})
        if alike.key not in known:
            known[alike.key] = _why_out_of_reach(alike, workspace)
        reason = known[alike.key]
        if reason is not None:
            found[spec.key] = reason
    return found


def _why_out_of_reach(spec: RunSpec, workspace: Workspace) -> str | None:
    try:
        check_in_reach(spec, resolve(spec.method), workspace)
    except CannotMeetTargetError as error:
        return sentence_of(error)
    except ShrinkbenchError:  # told by the run itself, in its place
        return None
    return None


def _of_control(spec: RunSpec) -> RunSpec:
    """What is carried out for ``spec``: its control, where nothing is pruned."""
    return spec.control if spec.is_control else spec


Shared = tuple[str, str, str | None]  # key, label, what went wrong


def _lost(spec: RunSpec, failures: Mapping[str, str]) -> str | None:
    """Why ``spec`` cannot run: something that it shares with others has failed."""
    pretraining = _of_control(spec).pretraining
    if pretraining is not None and pretraining.key in failures:
        return f"pretraining failed: {failures[pretraining.key]}"
    if spec.is_control and spec.control.key in failures:
        return f"the control failed: {failures[spec.control.key]}"
    searching = spec.searching
    if searching is not None and searching.key in failures:
        return f"the training that prunes failed: {failures[searching.key]}"
    rounds = spec.rounds
    if rounds is not None and rounds.key in failures:
        return f"the method whose proportions this control has failed: {failures[rounds.key]}"
    return None


def _pretrain(keep: tuple[int, ...], workspace: Workspace, spec: PretrainSpec) -> Shared:
    try:
        ensure_pretrained(spec, workspace, keep=keep)
    except Exception as error:
        return spec.key, _label(spec), sentence_of(error)
    return spec.key, _label(spec), None


def _control(workspace: Workspace, spec: RunSpec) -> Shared:
    try:
        ensure_control(spec, workspace)
    except Exception as error:
        return spec.control.key, _label(spec), sentence_of(error)
    return spec.control.key, _label(spec), None


def _search(workspace: Workspace, spec: RunSpec) -> Shared:
    try:
        ensure_search(spec, workspace)
    except Exception as error:
        return spec.key, _label(spec), sentence_of(error)
    return spec.key, _label(spec), None


def _rounds(workspace: Workspace, spec: RunSpec) -> Shared:
    try:
        ensure_rounds(spec, workspace)
    except Exception as error:
        return spec.key, _label(spec), sentence_of(error)
    return spec.key, _label(spec), None


def _run(workspace: Workspace, spec: RunSpec) -> RunResult:
    return run(spec, workspace)


def _label(spec: RunSpec | PretrainSpec) -> str:
    name = f"{spec.data.name} {spec.model.name}"
    if isinstance(spec, RunSpec):
        name += " control" if spec.is_control else f" {spec.method.name} {spec.amount.label}"
    return f"{name} seed {spec.seed}"
