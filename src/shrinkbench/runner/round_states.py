"""What runs of one method at several amounts have in common: the state after the last round that they share.

A schedule that removes the same share in every round takes the same rounds on the way to any target, up to the
last, which is a round of others too where they go through that target. The state after a round (weights, masks
and their cost, after the training that follows it) is kept for the runs of the plan that go through it. They go
on from there, to the bit as if they had done all rounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import make_folder
from shrinkbench.network.weights import load_tensors
from shrinkbench.pruning import Masks
from shrinkbench.results.record import TrainedSmaller
from shrinkbench.results.store import ResultStore
from shrinkbench.runner.provenance import Stopwatch, provenance
from shrinkbench.runner.sealing import is_whole, load_sealed, read_card, save_sealed, write_card
from shrinkbench.runner.workspace import Workspace
from shrinkbench.spec import Amount, RunSpec
from shrinkbench.spec.measures import Spent
from shrinkbench.spec.value import digest_of_fields

_WHERE = ("device", "threads", "processes", "python", "platform", "processor", "versions", "commit")
TENSORS, CARD = ("weights.safetensors", "masks.safetensors"), "card.json"
FILES = (*TENSORS, CARD)
Rounds = Sequence[Amount]


@dataclass(frozen=True)
class RoundState:
    """What is known beside the network after a round, and the training that follows it."""

    masks: Masks
    pruning: Spent
    retraining: Spent
    images: int
    smaller: TrainedSmaller | None


def code_from_outside(spec: RunSpec) -> str:
    """What of the network and its task is code from outside, which may hold more than its weights tell."""
    if spec.model.source is not None:
        return f"the network '{spec.model.name}'"
    return f"the task '{spec.task.objective.name}'" if spec.task.objective.source is not None else ""


def shares_rounds(spec: RunSpec) -> bool:
    """Whether another run may have the same rounds; a control's follow from the end of its method's.

    Of a network from outside only its tensors are known, and they may not be all that it goes on from.
    """
    schedule = spec.method.schedule
    return (
        not spec.is_control
        and not code_from_outside(spec)
        and spec.method.allocation.like is None
        and schedule.rounds != 1
        and not schedule.during
        and schedule.train_between
    )


def key_of_state(spec: RunSpec, rounds: Rounds, workspace: Workspace) -> str:
    """The key of the state after ``rounds``: of all that decides it to the bit, and nothing that comes later.

    That is also where it is computed: a run says of all of itself on what machine and with how many threads.
    """
    here = provenance(Stopwatch(), workspace.device, processes=workspace.team.size)
    fields = {
        "run": _without_target(spec, rounds[-1]).model_dump(mode="json"),
        "rounds": [amount.model_dump(mode="json") for amount in rounds],
        "train_smaller": workspace.train_smaller,
        **({"compiled": True} if workspace.compiled else {}),
        "where": here.model_dump(mode="json", include=set(_WHERE)),
    }
    return digest_of_fields(fields)


def resume_rounds(
    spec: RunSpec, rounds: Rounds, module: nn.Module, workspace: Workspace
) -> tuple[int, RoundState | None]:
    """How many of the ``rounds`` are done, with the state after them, whose weights ``module`` has then."""
    for done in range(len(rounds) - 1, 0, -1) if shares_rounds(spec) else ():
        key = key_of_state(spec, rounds[:done], workspace)
        folder = _folder(workspace, key)
        if workspace.sees(partial(_is_there, folder, key)):
            load_tensors(module, load_sealed(folder / "weights.safetensors", key=key))
            return done, _read(folder, key, workspace)
    return 0, None


def _is_there(folder: Path, key: str) -> bool:
    """Whether all files are whole and of one writer, as the card has it."""
    if not all(is_whole(folder / name, key=key) for name in FILES):
        return False
    named = read_card(folder / CARD, key=key).get("files")
    return named == {name: _digest_of(folder / name) for name in TENSORS}


def _digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(folder: Path, key: str, workspace: Workspace) -> RoundState:
    masks = load_sealed(folder / "masks.safetensors", key=key)
    card = read_card(folder / CARD, key=key)
    smaller = card["smaller"]
    return RoundState(
        Masks({name: mask.to(workspace.device) for name, mask in masks.items()}),
        Spent(**card["pruning"]),
        Spent(**card["retraining"]),
        card["images"],
        None if smaller is None else TrainedSmaller(**smaller),
    )


def wanted_states(
    spec: RunSpec, rounds: Rounds, workspace: Workspace, rounds_of: Callable[[RunSpec], Rounds]
) -> frozenset[int]:
    """After how many of ``rounds`` the state is of use to a run of the plan that is still to be done."""
    if not shares_rounds(spec) or not workspace.writes:
        return frozenset()
    store = ResultStore(workspace.root)
    try:
        planned = [run.spec for run in store.read_plan().runs]
    except ShrinkbenchError:  # a run by itself
        return frozenset()
    wanted = set()
    for other in planned:
        alike = _without_target(other, spec.amount) == _without_target(spec, spec.amount)
        if other.key == spec.key or not alike or store.entry(other.key) is not None:
            continue
        try:
            theirs = rounds_of(other)[:-1]
        except ShrinkbenchError:  # its target is out of reach, which it tells itself
            continue
        common = 0
        for mine, its in zip(rounds, theirs, strict=False):
            if mine != its:
                break
            common += 1
        wanted.add(common)
    return frozenset(wanted - {0})


def keep_state(
    spec: RunSpec, rounds: Rounds, weights: Mapping[str, Tensor], state: RoundState, workspace: Workspace
) -> None:
    """Store the state after ``rounds`` for other runs."""
    key = key_of_state(spec, rounds, workspace)
    folder = _folder(workspace, key)
    card = {
        "spec": _without_target(spec, rounds[-1]).model_dump(mode="json"),
        "rounds": [amount.model_dump(mode="json") for amount in rounds],
        "pruning": state.pruning.model_dump(),
        "retraining": state.retraining.model_dump(),
        "images": state.images,
        "smaller": None if state.smaller is None else state.smaller.model_dump(),
    }
    make_folder(folder)
    save_sealed(weights, folder / "weights.safetensors", key=key)
    save_sealed(state.masks, folder / "masks.safetensors", key=key)
    card["files"] = {name: _digest_of(folder / name) for name in TENSORS}
    write_card(folder / CARD, card, key=key)


def _without_target(spec: RunSpec, amount: Amount) -> RunSpec:
    return spec.model_copy(update={"amount": amount, "extra": (), "migrated_from": None})


def _folder(workspace: Workspace, key: str) -> Path:
    return ResultStore(workspace.root).shared_dir("states", key)
