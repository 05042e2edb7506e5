"""The networks that runs end with: kept beside their results, and read again by the digest in the record.

A run's folder holds a network as :mod:`shrinkbench.surgery.folders` describes it. Its files carry the key of
the run, and the result their digests: a file that was edited or exchanged since is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import is_file
from shrinkbench.models import MODELS
from shrinkbench.pruning import Masks
from shrinkbench.results.layout import RESULT_NAME
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import Problem, ResultStore, read_result
from shrinkbench.runner.planning import PlannedRuns
from shrinkbench.runner.sealing import NotAsWrittenError, load_sealed, read_card, save_sealed, write_card
from shrinkbench.runner.workspace import Kept, Workspace
from shrinkbench.spec import ExperimentSpec
from shrinkbench.surgery.folders import (
    DESCRIPTION,
    MASKS,
    WEIGHTS,
    NetworkDescription,
    StoredNetwork,
    read_network,
)

_FILES: dict[Kept, str] = {"masks": MASKS, "weights": WEIGHTS}


@dataclass(frozen=True)
class Ended:
    """What a run ended with: its result, and the network that was measured."""

    result: RunResult
    module: nn.Module
    masks: Masks
    description: NetworkDescription

    def keep(self, folder: Path, *, key: str, what: Kept) -> RunResult:
        """Store masks, and weights where they are asked for, in ``folder``; the result that names them."""
        write_card(folder / DESCRIPTION, self.description.as_json(), key=key)
        kept: dict[Kept, str] = {"masks": save_sealed(self.masks, folder / MASKS, key=key)}
        if what == "weights":
            kept["weights"] = save_sealed(_checked(self.module.state_dict()), folder / WEIGHTS, key=key)
        return with_kept(self.result, kept)


def keep_of(plans: Iterable[tuple[ExperimentSpec, PlannedRuns]]) -> dict[str, Kept]:
    """What is kept of which network, by the key of its run: the most that any experiment asks for.

    A control is shared by the runs that refer to it, and kept under its own key too.
    """
    keep: dict[str, Kept] = {}
    for experiment, planned in plans:
        for spec in planned.runs if experiment.keep != "none" else ():
            for key in (spec.key, *((spec.control.key,) if spec.is_control else ())):
                if keep.get(key) != "weights" and experiment.keep != "none":
                    keep[key] = experiment.keep
    return keep


def with_kept(result: RunResult, kept: Mapping[Kept, str]) -> RunResult:
    """``result`` with the digests of what lies beside it."""
    provenance = result.provenance.model_copy(update={"kept": dict(kept)})
    return result.model_copy(update={"provenance": provenance})


def _checked(state: Mapping[str, object]) -> dict[str, Tensor]:
    """``state``, or an error where a file of tensors cannot hold it."""
    stray = next((name for name, value in state.items() if not isinstance(value, Tensor)), None)
    if stray is not None:
        raise ShrinkbenchError(
            f"the network's state '{stray}' is no tensor, so that its weights cannot be kept; keep masks alone"
        )
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def copy_kept(source: Path, target: Path, result: RunResult, *, key: str) -> None:
    """Store what lies in ``source`` beside ``result`` in ``target`` too, for the run ``key``."""
    for name, seal in result.provenance.kept.items():
        tensors = load_sealed(source / _FILES[name], key=result.key, seal=seal)
        save_sealed(tensors, target / _FILES[name], key=key)
    if result.provenance.kept:
        write_card(target / DESCRIPTION, read_card(source / DESCRIPTION, key=result.key), key=key)


def lacks(folder: Path, what: Kept | None) -> bool:
    """Whether ``folder`` does not hold ``what``."""
    wanted = {None: (), "masks": (MASKS,), "weights": (MASKS, WEIGHTS)}[what]
    return not all((folder / name).is_file() for name in wanted)


def lacking_networks(workspace: Workspace) -> list[str]:
    """Keys of runs that are done, and of whose network something is to be kept that is not there."""
    store = ResultStore(workspace.root)
    found = []
    for key, what in workspace.keep.items():
        entry = store.entry(key)
        if entry is not None and entry.status == "done" and lacks(store.run_dir(key), what):
            found.append(key)
    return found


def _require_code(result: RunResult, network: str) -> None:
    """Refuse another code than that of the run, which may compute something else of the same weights."""
    stated, found = result.spec.model.source, MODELS.source(network)
    if stated is not None and found != stated:
        raise ShrinkbenchError(
            f"run {result.key[:12]} has trained '{one_line(network, 60)}' as other code made it than there is "
            "now; give that code (of plug-ins, plugins/ in the sweep's folder holds copies)"
        )


def read_kept(folder: Path, *, network: str | None = None) -> tuple[StoredNetwork, RunResult]:
    """The network that lies beside a run's result, and that result.

    ``network`` is as for :func:`~shrinkbench.surgery.folders.read_network`. Raises ``ShrinkbenchError`` where
    nothing was kept, and where a file is not the one that the run has written.
    """
    result = read_result(folder / RESULT_NAME)
    if isinstance(result, Problem):
        raise ShrinkbenchError(f"{result.path} {result.sentence}; give the sweep again")
    kept = result.provenance.kept
    if "weights" not in kept:
        raise ShrinkbenchError(
            f"run {result.key[:12]} has kept no weights; make them with `shrinkbench weights {result.key[:12]} "
            f"--store {folder.parent.parent}`"
        )

    def read(path: Path) -> Mapping[str, Tensor]:
        name = next(name for name, file in _FILES.items() if file == path.name)
        return load_sealed(path, key=result.key, seal=kept.get(name))

    try:
        read_card(folder / DESCRIPTION, key=result.key)
        if "masks" in kept and not is_file(folder / MASKS):  # without them it would be told as a whole one
            raise NotAsWrittenError(folder / MASKS)
        stored = read_network(folder, network=network, read=read)
        _require_code(result, network or stored.description.network)
        return stored, result
    except NotAsWrittenError as error:
        raise ShrinkbenchError(
            f"{error.path} is missing, or not what run {result.key[:12]} has written; remove it, and make it "
            f"again with `shrinkbench weights {result.key[:12]} --store DIR`"
        ) from None
