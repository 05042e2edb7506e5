"""Single runs of a stored plan: the unit that any scheduler can start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import absolute
from shrinkbench.links import check_links
from shrinkbench.pruning import load_entry_points, load_plugin
from shrinkbench.pruning.plugins import digest_of_plugin
from shrinkbench.results.plan import Plan, sequential_of
from shrinkbench.results.store import ResultStore
from shrinkbench.runner.beside_plan import Beside, read_beside
from shrinkbench.runner.dispatching import Stop
from shrinkbench.runner.executors import InProcess, Setting
from shrinkbench.runner.sweeping import (
    Progress,
    carry_out,
    check_retries,
    check_shares,
    open_runs,
    opener,
    train_together,
)
from shrinkbench.runner.tracking import check_tracker
from shrinkbench.runner.workspace import Workspace, select_device
from shrinkbench.spec import RunSpec

SHORTEST = 6
"""Digits of a key that are enough to name it, where no other begins with them."""
LENGTH = 64
"""Digits of a whole key."""


def run_stored(
    keys: Sequence[str],
    out: Path,
    *,
    device: str | None = None,
    data: dict[str, Path] | None = None,
    plugins: Sequence[Path] = (),
    retry_failed: bool = False,
    devices: int = 1,
    num_nodes: int = 1,
    log_to: str | None = None,
    train_smaller: bool | None = None,
    compiled: bool | None = None,
    max_retries: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    stopping: Callable[[], Stop] | None = None,
) -> dict[str, str]:
    """Carry out the runs ``keys`` of the plan in ``out`` in this process, with what they need.

    Folders of data, weights files, batch sizes to time, the device, and whether smaller networks are trained
    and steps compiled, are those that the sweep has stored beside the plan, unless given here. ``devices``,
    ``num_nodes`` and ``log_to`` are those of :func:`~shrinkbench.runner.sweep`. Plug-ins are code and have to
    be given. Returns ``done``, ``failed`` or ``missing`` for each key. Raises ``ShrinkbenchError`` where a key
    or what a run needs is not there.
    """
    check_retries(max_retries)
    check_tracker(log_to)
    out = absolute(out)
    store = ResultStore(out)
    plan = store.read_plan()
    specs, sequential = _find(keys, plan, out), sequential_of(plan)
    check_links(out)
    beside = read_beside(out)
    alone, where = devices * num_nodes == 1, device or beside.device
    executor = InProcess() if alone else train_together(None, where, devices, num_nodes)
    load_entry_points()
    digests = check_plugins(plugins, beside)
    workspace = Workspace(
        root=out,
        data={**beside.data, **(data or {})},
        weights=beside.weights,
        device=select_device(where),
        latency=beside.latency,
        keep=beside.keep,
        log_to=log_to,
        train_smaller=beside.train_smaller if train_smaller is None else train_smaller,
        compiled=beside.compiled if compiled is None else compiled,
        seeds_added=sequential.seeds_added if sequential else None,
    )
    todo = open_runs(specs, workspace, retry_failed=retry_failed)
    check_shares(todo, devices * num_nodes)
    setting = Setting(workspace, digests)
    carry_out(
        todo,
        setting,
        executor,
        is_open=opener(workspace, retry_failed=retry_failed),
        max_retries=max_retries,
        on_progress=on_progress,
        on_note=on_note,
        stopping=stopping,
    )
    return {spec.key: store.read(spec.key).status if store.has(spec.key) else "missing" for spec in specs}


def _find(keys: Sequence[str], plan: Plan, root: Path) -> list[RunSpec]:
    """The planned runs of whose keys ``keys`` are the beginnings."""
    planned = {run.key: run.spec for run in plan.runs}
    found = []
    for key in keys:
        exact = [planned[key]] if key in planned else []
        matches = exact or [
            spec for each, spec in planned.items() if len(key) >= SHORTEST and each[: len(key)] == key
        ]
        if len(matches) != 1:
            raise ShrinkbenchError(_why_not_one(key, len(matches), root))
        if matches[0].migrated_from is not None:
            raise ShrinkbenchError(
                f"run {key[:12]} was planned by an earlier version of shrinkbench; give the sweep again"
            )
        found.append(matches[0])
    return found


def _why_not_one(key: str, count: int, root: Path) -> str:
    """What is wrong with a key by which no run, or more than one, is found."""
    shown = one_line(key, 40)
    if len(key) < SHORTEST:
        return f"'{shown}' is too short to name a run of {root}; give the first {SHORTEST} digits of its key"
    if len(key) > LENGTH:
        return f"'{shown}' has {len(key):,} signs, and keys have {LENGTH}; give a key of the plan in {root}"
    if not set(key) <= set("0123456789abcdef"):
        return f"'{shown}' is no key, which has digits and the letters a to f; give one of the plan in {root}"
    return (
        f"'{shown}' is the beginning of {f'{count} runs' if count else 'no run'} of the plan in {root}; give a "
        f"key of plan.json, or at least its first {SHORTEST} digits{' and more of them' if count else ''}"
    )


def check_plugins(plugins: Sequence[Path], beside: Beside) -> dict[Path, str | None]:
    """Plug-ins that were given, as they were when the runs were planned; one that is lacking is named.

    What a file in the folder names is not loaded by itself: code runs only where a person has asked for it.
    """
    given = {path: digest_of_plugin(path) for path in plugins}
    lacking = [path for path, digest in beside.plugins.items() if digest not in given.values()]
    if lacking:
        raise ShrinkbenchError(
            f"the plan was made with the plug-in {lacking[0]}, which is not given or was edited since; it is "
            "code: give --plugin FILE if you trust it"
        )
    for path, digest in given.items():
        load_plugin(path, digest=digest)
    return given
