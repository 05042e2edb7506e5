"""A grid of runs: planned, shared work first, finished runs skipped, every outcome stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.files import absolute
from shrinkbench.pruning.plugins import digest_of_plugin
from shrinkbench.results.claims import RunClaims
from shrinkbench.results.places import check_places
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import ResultStore, Status
from shrinkbench.runner.beside_plan import check_names, write_beside
from shrinkbench.runner.dependencies import graph_of
from shrinkbench.runner.dispatching import Dispatcher, Stop
from shrinkbench.runner.effort import expected_work, say_effort
from shrinkbench.runner.execution import record_failure, sentence_of
from shrinkbench.runner.executors import Ending, Executor, InProcess, LocalProcesses, Setting, Task, Together
from shrinkbench.runner.executors.performing import digest_at, find_done, is_free
from shrinkbench.runner.fixed_rules import check_rules
from shrinkbench.runner.keeping import keep_of, lacking_networks
from shrinkbench.runner.own_parts import take_own_parts
from shrinkbench.runner.planning import PlannedRuns, label_methods, plan
from shrinkbench.runner.reach import runs_out_of_reach
from shrinkbench.runner.shared import look_at_shared
from shrinkbench.runner.tracking import check_tracker
from shrinkbench.runner.workspace import Workspace, forget_datasets, gpus_of, resolve_device, select_device
from shrinkbench.spec import ExperimentSpec, RunSpec
from shrinkbench.training.compiling import require_compiler
from shrinkbench.training.team import check_share
from shrinkbench.training.together import places_of

GRACE = 20.0
"""Seconds in which runs may end their epoch, where they are asked to stop with their state stored."""


@dataclass(frozen=True)
class Progress:
    """One task of a sweep has ended: ``done`` of ``total`` so far. ``result`` is set for runs.

    ``share`` is that of the expected work, by which the time left is told: tasks are of very different lengths.
    """

    kind: str  # "pretraining", "control", "search", "rounds" or "run"
    done: int
    total: int
    label: str
    share: float
    result: RunResult | None = None


@dataclass(frozen=True)
class Prepared:
    """A sweep before anything is written: every planned run by key, and those to do."""

    plans: tuple[tuple[ExperimentSpec, PlannedRuns], ...]
    runs: Mapping[str, RunSpec]
    todo: tuple[RunSpec, ...]
    setting: Setting
    store: ResultStore


def prepare_sweep(
    experiment: ExperimentSpec | Sequence[ExperimentSpec],
    out: Path,
    *,
    device: str = "auto",
    data: dict[str, Path] | None = None,
    plugins: Sequence[Path] = (),
    retry_failed: bool = False,
    train_smaller: bool = False,
    compiled: bool = False,
    only: Callable[[RunSpec], bool] | None = None,
) -> Prepared:
    """Plan all experiments, or ``only`` some of their runs; mistakes are told, and nothing is written."""
    if compiled:
        require_compiler()
    workspace = Workspace(
        root=out,
        data=data or {},
        device=resolve_device(device),
        train_smaller=train_smaller,
        compiled=compiled,
    )
    given = (experiment,) if isinstance(experiment, ExperimentSpec) else tuple(experiment)
    given, plugins = take_own_parts(given, plugins)
    forget_datasets()
    plans = tuple((each, plan(each, workspace)) for each in map(label_methods, given))
    if only is not None:
        plans = tuple((each, _part_of(planned, only)) for each, planned in plans)
    weights = {digest: path for _, planned in plans for digest, path in planned.weights.items()}
    timed = frozenset(size for each, _ in plans for size in each.latency)
    keep = keep_of(plans)
    added = next((each.seeds_added for each, _ in plans if each.seeds_added), None)
    workspace = replace(workspace, weights=weights, latency=tuple(sorted(timed)), keep=keep, seeds_added=added)
    setting = Setting(workspace, {absolute(path): digest_of_plugin(path) for path in plugins})
    check_names(setting)
    runs = {spec.key: spec for _, planned in plans for spec in planned.runs}
    store = ResultStore(workspace.root)
    is_open = opener(workspace, retry_failed=retry_failed, store=store)
    return Prepared(plans, runs, tuple(filter(is_open, runs.values())), setting, store)


def sweep(
    experiment: ExperimentSpec | Sequence[ExperimentSpec],
    out: Path | str,
    *,
    workers: int = 1,
    device: str = "auto",
    data: dict[str, Path] | None = None,
    plugins: Sequence[Path] = (),
    retry_failed: bool = False,
    train_smaller: bool = False,
    compiled: bool = False,
    only: Callable[[RunSpec], bool] | None = None,
    executor: Executor | None = None,
    devices: int = 1,
    num_nodes: int = 1,
    log_to: str | None = None,
    max_retries: int = 1,
    on_plan: Callable[[int, int], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    stopping: Callable[[], Stop] | None = None,
) -> Status:
    """Run what ``out`` lacks of ``experiment``, one or several, and return the status of these runs.

    All are planned before anything runs. What runs share is computed once: each pretrained network, each
    control, each training that only finds masks; a run starts when what it needs is there. Targets that
    methods of several rounds, or that prune while they train, cannot reach fail before that.

    Tasks run in this process, with ``workers`` > 1 in as many of this machine, or where ``executor`` says. One
    whose process dies, or that disk or memory fail, is tried again ``max_retries`` times; a failure of the
    first kind is stored then, one of the second is told by ``on_note`` and its runs stay missing. Several
    sweeps into one folder share the work.

    With ``devices`` or ``num_nodes`` above 1, every run is carried out by as many processes on as many
    machines, which train and evaluate together (docs/clusters.md); ``log_to`` names a tool that is told of
    every epoch: ``tensorboard``, ``mlflow`` or ``wandb``.

    With ``train_smaller``, a training that only upholds masks runs on the physically smaller network where that
    is the same computation (docs/structured-pruning.md); with ``compiled``, the steps of such trainings and of
    pretraining go through ``torch.compile`` (docs/performance.md). A run's provenance tells whether they did.

    ``only`` says which of the runs that prune are planned, with the controls that these refer to.

    ``on_plan`` is told (runs in all, runs to do); ``stopping`` says whether to go on, to finish what runs, or
    to stop at once. A sweep that was killed goes on where it stopped: finished runs are stored whole, and a
    run that was under way resumes from its last epoch.
    """
    out = absolute(out)
    check_tracker(log_to)
    chosen = executor or _default_executor(workers, device, devices, num_nodes)
    check_retries(max_retries)
    prepared = prepare_sweep(
        experiment,
        out,
        device=device,
        data=data,
        plugins=plugins,
        retry_failed=retry_failed,
        train_smaller=train_smaller,
        compiled=compiled,
        only=only,
    )
    check_shares(prepared.todo, devices * num_nodes)
    store_plan(prepared, device=device)
    if on_plan is not None:
        on_plan(len(prepared.runs), len(prepared.todo))
    if on_note is not None:
        for problem in ResultStore(out).damaged(spec.key for spec in prepared.todo):
            on_note(f"{problem.path} {problem.sentence}; it is set aside, and the run carried out again")
        for sentence in (*say_effort(prepared.todo), *say_lacking(prepared)):
            on_note(sentence)
    carry_out(
        prepared.todo,
        replace(prepared.setting, workspace=replace(prepared.setting.workspace, log_to=log_to)),
        chosen,
        is_open=opener(prepared.setting.workspace, retry_failed=retry_failed),
        max_retries=max_retries,
        on_progress=on_progress,
        on_note=on_note,
        stopping=stopping,
    )
    if not prepared.store.plan_path.exists():  # else what is left would be counted as all of it
        raise ShrinkbenchError(
            f"{out} was moved away or emptied while the sweep went on; put it back, and give the command again"
        )
    return ResultStore(out).status()


def _part_of(planned: PlannedRuns, only: Callable[[RunSpec], bool]) -> PlannedRuns:
    """The runs that prune of which ``only`` holds, and the unpruned ones that they refer to."""
    chosen = {spec.key: spec for spec in planned.runs if not spec.is_control and only(spec)}
    controls = {spec.control.key for spec in chosen.values()}
    runs = [s for s in planned.runs if s.key in chosen or (s.is_control and s.control.key in controls)]
    return replace(planned, runs=tuple(runs))


def say_lacking(prepared: Prepared) -> list[str]:
    """That finished runs lack what is to be kept of them, and how it is made; nothing where none does."""
    workspace = prepared.setting.workspace
    todo = {spec.key for spec in prepared.todo}
    lacking = [key for key in lacking_networks(workspace) if key in prepared.runs and key not in todo]
    if not lacking:
        return []
    one = f"1 finished run ({lacking[0][:12]}) lacks its network"
    many = f"{len(lacking)} finished runs lack their networks"
    return [
        f"{one if len(lacking) == 1 else many}, which keep asks for; `shrinkbench weights --store "
        f"{workspace.root}` runs {'it' if len(lacking) == 1 else 'them'} again and keeps them"
    ]


def store_plan(prepared: Prepared, *, device: str) -> None:
    """Write what any process needs to carry one of the runs out: plan, code from outside, places.

    Raises ``ShrinkbenchError`` where a link in the folder leads out of it, or something is in the way there.
    """
    store = prepared.store
    check_places(store.root, (spec.key for spec in prepared.todo))
    check_rules(store, [each for each, _ in prepared.plans])
    for each, planned in prepared.plans:
        store.write_plan(each, planned.runs)
        store.keep_sources(planned.runs)
    store.extend_index()
    write_beside(prepared.setting, device=device, planned=prepared.runs)


def check_retries(max_retries: int) -> None:
    """Refuse a number of retries that is none."""
    if max_retries < 0:
        raise ShrinkbenchError(f"--max-retries {max_retries} is not a number of at least 0")


def check_shares(runs: Iterable[RunSpec], processes: int) -> None:
    """Refuse recipes whose batches ``processes`` cannot share equally, before anything runs."""
    for spec in runs:
        pretraining = None if spec.pretraining is None else spec.pretraining.recipe
        for recipe in (spec.recipe, spec.search, pretraining):
            if recipe is not None:
                check_share(recipe, processes)


def _default_executor(workers: int, device: str, devices: int, num_nodes: int) -> Executor:
    if devices * num_nodes != 1:
        return train_together(workers, device, devices, num_nodes)
    if workers == 1:
        select_device(device)
        return InProcess()
    return LocalProcesses(workers, gpus=gpus_of(device))


def train_together(workers: int | None, device: str, devices: int, num_nodes: int) -> Executor:
    """Where one run is carried out by several processes."""
    if workers not in (None, 1):
        raise ShrinkbenchError(
            f"--workers {workers} runs and --devices {devices} for one run are two ways of using this machine; "
            "give one of them"
        )
    return Together(places_of(resolve_device(device), devices, num_nodes))


def carry_out(
    todo: Sequence[RunSpec],
    setting: Setting,
    executor: Executor,
    *,
    is_open: Callable[[RunSpec], bool],
    max_retries: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    stopping: Callable[[], Stop] | None = None,
) -> None:
    """Carry planned runs out by ``executor``, with what they need; the executor is closed at the end.

    Those that others have carried out since they were planned, so that they are no more ``is_open``, are not.
    """
    workspace = setting.workspace
    check_places(workspace.root, (spec.key for spec in todo))
    wish = stopping or (lambda: "go on")
    store = ResultStore(workspace.root)
    before = {spec.key: digest_at(store.result_path(spec.key)) for spec in todo}
    # Asked after the digests were taken: what is open now was so then, and none of them is of a fresh result.
    todo = [spec for spec in todo if before[spec.key] is None or is_open(spec)]
    tell = on_note or (lambda note: None)
    try:
        if todo:
            executor.start(setting, tasks=len(todo))
        beyond = runs_out_of_reach(todo, workspace)
        within = [spec for spec in todo if spec.key not in beyond]
        graph = graph_of(within, lambda task: look_at_shared(task, workspace.root, tell), before)
        work = sum(map(expected_work, graph))
        keeper = _Keeper(workspace, len(beyond) + len(graph), work, on_progress, tell)
        for spec in todo:
            if spec.key in beyond:
                keeper.keep_beyond(spec, beyond[spec.key])
        if graph:
            Dispatcher(
                graph,
                executor,
                retries=max_retries,
                on_end=keeper.keep,
                on_note=keeper.note,
                stopping=wish,
                is_free=lambda task: is_free(task, workspace.root),
                find_done=lambda task: find_done(task, workspace.root),
            ).carry_out()
    finally:
        executor.close(grace=GRACE if wish() == "checkpoint" else 0)
        with suppress(ShrinkbenchError):  # of processes that were killed; what is left bothers nobody
            RunClaims(workspace.root).remove_stale()


@dataclass
class _Keeper:
    """Stores failures that no process has stored, and counts and tells what has ended."""

    workspace: Workspace
    total: int
    work: float
    on_progress: Callable[[Progress], None] | None
    note: Callable[[str], None]
    done: int = 0
    worked: float = 0.0
    told: set[str] = field(default_factory=set)

    def keep_beyond(self, spec: RunSpec, error: CannotMeetTargetError) -> None:
        """Store a run whose target is out of reach as failed."""
        sentence = sentence_of(error)
        result = record_failure(spec, self.workspace, sentence, reachable=error.largest)
        self.keep(Task("run", spec.key, spec), Ending("failed", sentence, result))

    def keep(self, task: Task, ending: Ending) -> None:
        self.done += 1
        result = ending.result
        if result is None or result.reachable is None:  # what is out of reach was told before any work
            self.worked += expected_work(task)
        if ending.kind == "environment":
            stands = task.kind == "run" and ResultStore(self.workspace.root).has(task.key)
            left = "its earlier result stays" if stands else "is missing"
            self.note(f"{task.kind} {task.label} could not be carried out, and {left}: {ending.sentence}")
            return
        if ending.kind == "failed" and isinstance(task.spec, RunSpec) and task.kind == "run" and result is None:
            result = record_failure(task.spec, self.workspace, ending.sentence)
        smaller = result.provenance.smaller if result is not None else None
        if smaller is not None and smaller.masked_because and smaller.masked_because not in self.told:
            self.told.add(smaller.masked_because)  # once, of however many runs
            self.note(f"run {task.label} was trained masked: {smaller.masked_because}")
        if self.on_progress is not None:
            share = min(1.0, self.worked / self.work) if self.work else 1.0
            self.on_progress(Progress(task.kind, self.done, self.total, task.label, share, result))


def open_runs(runs: Iterable[RunSpec], workspace: Workspace, *, retry_failed: bool) -> tuple[RunSpec, ...]:
    """Those of ``runs`` that are to be carried out: not stored, or not with what is asked for now."""
    return tuple(filter(opener(workspace, retry_failed=retry_failed), runs))


def opener(
    workspace: Workspace, *, retry_failed: bool, store: ResultStore | None = None
) -> Callable[[RunSpec], bool]:
    """Tells whether a run is to be carried out, as of when it is asked."""
    there, timed = store or ResultStore(workspace.root), frozenset(workspace.latency)
    return lambda spec: _is_open(there, spec, timed, retry_failed=retry_failed)


def _is_open(store: ResultStore, spec: RunSpec, timed: frozenset[int], *, retry_failed: bool) -> bool:
    stored = store.entry(spec.key)
    if stored is None or stored.status == "failed":
        return stored is None or retry_failed
    return not spec.is_control and not timed <= set(stored.timed)
