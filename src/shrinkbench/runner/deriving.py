"""The network of a finished run that has not kept it: the run is carried out again, and has to end alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.pruning import load_entry_points
from shrinkbench.results.claims import RunClaims
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import ResultStore, existing_store
from shrinkbench.runner.beside_plan import read_beside
from shrinkbench.runner.execution import carry_run_out, require_same_numbers
from shrinkbench.runner.keeping import lacking_networks, lacks, read_kept, with_kept
from shrinkbench.runner.provenance import Stopwatch
from shrinkbench.runner.stored import SHORTEST, check_plugins
from shrinkbench.runner.workspace import Kept, Workspace, select_device
from shrinkbench.training import remove_checkpoints

__all__ = ["keep_networks", "keys_lacking", "threads_of"]


def keys_lacking(root: Path) -> tuple[str, ...]:
    """Keys of finished runs of whose network the sweep was to keep something that is not there."""
    return tuple(lacking_networks(Workspace(root=root, keep=read_beside(root).keep)))


def keep_networks(
    keys: Sequence[str],
    root: Path,
    *,
    what: Kept = "weights",
    device: str | None = None,
    data: dict[str, Path] | None = None,
    plugins: Sequence[Path] = (),
) -> tuple[Path, ...]:
    """The folders of the runs ``keys`` (or how they begin), with ``what`` of the network of each in it.

    Where it was not kept, the run is carried out once more, with the device, the threads, the folders of data
    and the weights files that it had, on smaller networks where it was trained so. Raises ``ShrinkbenchError``
    where a run did not finish, where a kept file is not what the run has written, and where another metric
    comes out than is stored: nothing is kept then.
    """
    store = existing_store(root)
    results = [_find(key, store) for key in keys]
    missing = [result for result in results if lacks(store.run_dir(result.key), what)]
    for result in results:
        if result not in missing and what == "weights":
            read_kept(store.run_dir(result.key), network=result.spec.model.name)
    if missing:
        workspace = _workspace(root, device=device, data=data, plugins=plugins)
        for result in missing:
            _derive(result, workspace, what)
    return tuple(store.run_dir(result.key) for result in results)


def _find(key: str, store: ResultStore) -> RunResult:
    """The finished run of whose key ``key`` is the beginning."""
    known = [path.parent.name for path in store.root.glob("runs/*/result.json")]
    matches = [each for each in known if len(key) >= SHORTEST and each[: len(key)] == key]
    if len(matches) != 1:
        raise ShrinkbenchError(
            f"'{one_line(key, 64)}' is the beginning of {len(matches) or 'no'} finished run"
            f"{'s' * (len(matches) != 1)} in {store.root}; give a key, or at least its first {SHORTEST} digits"
        )
    result = store.read(matches[0])
    if result.status == "failed":
        raise ShrinkbenchError(f"run {result.key[:12]} failed, and has no network: {result.error}")
    if result.spec.migrated_from is not None or result.spec.task.objective.name == "detection":
        raise ShrinkbenchError(
            f"run {result.key[:12]} is of an earlier version or of `shrinkbench detect`, which are not "
            "repeated here; give a run of a sweep"
        )
    return result


def _workspace(
    root: Path, *, device: str | None, data: dict[str, Path] | None, plugins: Sequence[Path]
) -> Workspace:
    """What the sweep has stored beside its plan, but for what is given here."""
    beside = read_beside(root)
    load_entry_points()
    check_plugins(plugins, beside)
    return Workspace(
        root=root,
        data={**beside.data, **(data or {})},
        weights=beside.weights,
        device=select_device(device or beside.device),
    )


def _derive(stored: RunResult, workspace: Workspace, what: Kept) -> None:
    """Carry the run ``stored`` out again and keep its network, if it ends with the same numbers."""
    store, key = ResultStore(workspace.root), stored.key
    claim = RunClaims(workspace.root).take(f"run-{key}")
    if claim is None:
        raise ShrinkbenchError(f"another process works on run {key[:12]}; wait for it, or stop it")
    spec, folder = stored.spec, store.run_dir(key)
    p = stored.provenance
    workspace = replace(workspace, train_smaller=p.smaller is not None, compiled=p.uncompiled is not None)
    with claim, threads_of(stored):
        ended = carry_run_out(spec.control if spec.is_control else spec, workspace, Stopwatch(), folder)
        remove_checkpoints(folder)
        require_same_numbers(ended.result.model_copy(update={"key": key, "spec": spec}), stored)
        kept = ended.keep(folder, key=key, what=what).provenance.kept
        store.write(with_kept(stored, {**stored.provenance.kept, **kept}))


@contextmanager
def threads_of(result: RunResult) -> Iterator[None]:
    """As many threads as the run had: sums of floating-point numbers depend on it."""
    number = result.provenance.threads
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
