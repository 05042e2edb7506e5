"""Targets that no run can meet, found before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError, is_of_the_code
from shrinkbench.pruning import resolve
from shrinkbench.runner.trial import check_in_reach
from shrinkbench.runner.workspace import Workspace
from shrinkbench.spec import UNPRUNED, Compression, RunSpec, Speedup


def runs_out_of_reach(todo: Sequence[RunSpec], workspace: Workspace) -> dict[str, CannotMeetTargetError]:
    """Runs whose training, or pretraining, would be in vain, by key, and why; equal for all seeds.

    Of one method the largest target is asked first: where that is in reach, so are the smaller ones.
    """
    found: dict[str, CannotMeetTargetError] = {}
    known: dict[str, CannotMeetTargetError | None] = {}
    reached: set[tuple[str, str]] = set()
    for spec in sorted(todo, key=lambda spec: -getattr(spec.amount, "ratio", 1.0)):
        if spec.is_control or not isinstance(spec.amount, Compression | Speedup):
            continue
        alike = spec.model_copy(update={"seed": 0})
        family = (alike.model_copy(update={"amount": UNPRUNED}).key, spec.amount.kind)
        if family in reached:
            continue
        if alike.key not in known:
            known[alike.key] = _why_out_of_reach(alike, workspace)
        reason = known[alike.key]
        if reason is None:
            reached.add(family)
        else:
            found[spec.key] = reason
    return found


def _why_out_of_reach(spec: RunSpec, workspace: Workspace) -> CannotMeetTargetError | None:
    try:
        check_in_reach(spec, resolve(spec.method), workspace)
    except CannotMeetTargetError as error:
        return error
    except ShrinkbenchError:  # told by the run itself, in its place
        return None
    except BaseException as error:  # sys.exit in a network's code is what its run tells, too
        if isinstance(error, Exception) or not is_of_the_code(error):
            raise
    return None
