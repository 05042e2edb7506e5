"""One run, from its specification to its result."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from shrinkbench.datasets import EXTRAS
from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError, one_line, text_of
from shrinkbench.files import write_atomically
from shrinkbench.metrics import layer_densities, measure_size
from shrinkbench.models import get_model
from shrinkbench.network.weights import weight_parameters
from shrinkbench.pruning import Masks, resolve
from shrinkbench.results.conflicts import differ, differences
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import Problem, ResultStore, read_result
from shrinkbench.runner.keeping import Ended, copy_kept, lacks, with_kept
from shrinkbench.runner.outcomes import classify
from shrinkbench.runner.pretraining import pretraining_cost
from shrinkbench.runner.provenance import Stopwatch, provenance
from shrinkbench.runner.retraining import prune_and_train
from shrinkbench.runner.sealing import is_whole
from shrinkbench.runner.timing import latencies
from shrinkbench.runner.trial import Trial
from shrinkbench.runner.workspace import BoundData, Workspace, check_source
from shrinkbench.spec import RunSpec
from shrinkbench.spec.measures import Cost, EpochRecord, WeightHistogram
from shrinkbench.spec.value import tell_violation
from shrinkbench.surgery.folders import NetworkDescription
from shrinkbench.surgery.stored_inputs import StoredInputs
from shrinkbench.training import evaluate, remove_checkpoints

_LONGEST = 2000  # characters of a stored reason
_EXACTLY_COUNTED = 1 << 24  # weights: more than so many are not told apart by a count in float32
OnEpoch = Callable[[EpochRecord], None]


def run(spec: RunSpec, workspace: Workspace) -> RunResult:
    """Carry ``spec`` out, store its result and return it.

    Whatever goes wrong becomes a stored result with status ``failed``, but for failures of disk, memory or
    device: they say nothing about the run, and are raised.
    """
    store = ResultStore(workspace.root)
    watch = Stopwatch()
    try:
        result = _run(spec, workspace, watch)
    except Exception as error:
        if classify(error) != "scientific":
            raise
        in_code = not isinstance(error, ShrinkbenchError) or error.__cause__ is not None
        if in_code and workspace.writes:  # someone's mistake, which its sentence alone does not let them find
            write_atomically(store.run_dir(spec.key) / "traceback.txt", _traceback())
        reachable = error.largest if isinstance(error, CannotMeetTargetError) else None
        return record_failure(spec, workspace, sentence_of(error), watch, reachable=reachable)
    if workspace.writes:
        store.write(result)
        remove_checkpoints(store.run_dir(spec.key))
    return result


def _traceback() -> bytes:
    return traceback.format_exc().encode(errors="backslashreplace")


def record_failure(
    spec: RunSpec,
    workspace: Workspace,
    sentence: str,
    watch: Stopwatch | None = None,
    *,
    reachable: float | None = None,
) -> RunResult:
    """Store that ``spec`` failed, and why."""
    result = RunResult(
        key=spec.key,
        spec=spec,
        status="failed",
        error=sentence,
        reachable=reachable,
        provenance=provenance(
            watch or Stopwatch(),
            workspace.device,
            processes=workspace.team.size,
            seeds_added=workspace.seeds_added,
        ),
    )
    if not workspace.writes:
        return result
    store = ResultStore(workspace.root)
    if store.write(result) != store.result_path(spec.key):
        result = result.model_copy(update={"error": f"{sentence}; the earlier result, which is done, stays"})
    remove_checkpoints(store.run_dir(spec.key))
    return result


def sentence_of(error: BaseException) -> str:
    """One line for a stored failure; errors that are not a person's to mend carry their type."""
    if isinstance(error, ShrinkbenchError):
        told = text_of(error)
    elif isinstance(error, ValidationError):  # its own text has lines, and the address of a page
        told = f"a value of {error.title} cannot be: {tell_violation(error)}"
    else:
        told = f"{type(error).__name__}: {text_of(error)}"
    return one_line(told, _LONGEST)


def _run(spec: RunSpec, workspace: Workspace, watch: Stopwatch) -> RunResult:
    folder, what = ResultStore(workspace.root).run_dir(spec.key), workspace.keep.get(spec.key)
    if not spec.is_control:
        return _execute(spec, workspace, watch, folder)
    control = ensure_control(spec, workspace)
    if what is not None and workspace.writes:
        copy_kept(_control_dir(spec, workspace), folder, control, key=spec.key)
    else:
        control = with_kept(control, {})
    return control.model_copy(update={"key": spec.key, "spec": spec})


def ensure_control(spec: RunSpec, workspace: Workspace) -> RunResult:
    """The control that belongs to ``spec``: trained once, shared by every method; made again if damaged.

    One whose network is to be kept, and was not, is trained once more, and has to end with the same numbers.
    """
    control, folder = spec.control, _control_dir(spec, workspace)
    stored = folder / "result.json"
    whole = workspace.sees(lambda: is_whole(stored, key=control.key, check=check_control))
    earlier = read_control(stored) if whole else None
    if earlier is not None and workspace.sees(lambda: not lacks(folder, workspace.keep.get(control.key))):
        return earlier
    result = _execute(control, workspace, Stopwatch(), folder)
    if earlier is not None:
        require_same_numbers(result, earlier)
        result = with_kept(earlier, result.provenance.kept)
    if workspace.writes:
        write_atomically(stored, result.as_json())
        remove_checkpoints(folder)
    return result


def _control_dir(spec: RunSpec, workspace: Workspace) -> Path:
    return ResultStore(workspace.root).shared_dir("control", spec.control.key)


def require_same_numbers(found: RunResult, stored: RunResult) -> None:
    """Refuse a repeated run that has measured something else than the stored one."""
    if not differ(stored, found):
        return
    name, before, now = differences((stored, found))[0]
    raise ShrinkbenchError(
        f"run {stored.key[:12]} gives {name} {now} here, and {before} is stored (made on "
        f"{one_line(stored.provenance.host, 40)}): its network is not that of the stored result, and is not "
        "kept; repeat it on the machine and with the versions that made it"
    )


def check_control(path: Path, *, key: str) -> str:
    """What is wrong with the control at ``path``, which has the key ``key``; nothing where it is whole."""
    outcome = read_result(path)
    if isinstance(outcome, Problem):
        return outcome.sentence
    return "" if (outcome.status, outcome.key) == ("done", key) else "is no control of its key that is done"


def read_control(path: Path) -> RunResult:
    """The control at ``path``; what is not one of the key that its folder names is refused."""
    outcome = read_result(path)
    if isinstance(outcome, RunResult) and outcome.status == "done":
        return outcome
    why = outcome.sentence if isinstance(outcome, Problem) else "is of a run that failed"
    raise ShrinkbenchError(f"the control {path} {why}; remove its folder, and run again (--retry-failed)")


def _execute(spec: RunSpec, workspace: Workspace, watch: Stopwatch, folder: Path) -> RunResult:
    """Prune, fine-tune, measure, and keep the network where that is asked for."""
    ended = carry_run_out(spec, workspace, watch, folder)
    what = workspace.keep.get(spec.key)
    if what is None or not workspace.writes:
        return ended.result
    return ended.keep(folder, key=spec.key, what=what)


def carry_run_out(spec: RunSpec, workspace: Workspace, watch: Stopwatch, folder: Path) -> Ended:
    """Prune, fine-tune and measure; what is under way lies in ``folder``."""
    for extra in spec.extra:
        check_source(EXTRAS, extra)
    trial = Trial.of(spec, workspace, folder)
    data, module, shape = trial.data, trial.module, trial.example
    unpruned = {name: p.detach().clone() for name, p in module.named_parameters()}
    outcome = prune_and_train(trial)
    masks, training = outcome.masks, outcome.training
    size = measure_size(module, shape, masks)
    images = len(data.train_source)
    cost = Cost(
        pretraining=pretraining_cost(spec, workspace, images=images, multiply_adds=size.multiply_adds),
        pruning=outcome.pruning,
        retraining=outcome.retraining,
    )
    result = RunResult(
        key=spec.key,
        spec=spec,
        status="done",
        size=size,
        before=outcome.before,
        after=trial.tested(),
        validation=training.validation,
        further={
            extra.name: evaluate(
                module,
                data.extra(workspace.extra(extra.name, revision=extra.revision)),
                precision=spec.recipe.precision,
                task=trial.task,
                team=workspace.team,
            )
            for extra in spec.extra
        },
        selected_epoch=training.selected_epoch,
        epochs_run=len(training.epochs),
        epochs=tuple(training.epochs),
        layers=layer_densities(module, masks),
        weight_histogram=_histogram(unpruned, module, masks),
        references=_references(spec, data),
        cost=cost,
        provenance=provenance(watch, workspace.device, processes=workspace.team.size).model_copy(
            update={
                "latency": latencies(spec, workspace, module, masks, shape) if workspace.writes else (),
                "smaller": outcome.smaller,
                "uncompiled": training.uncompiled,
                "published_as": get_model(spec.model.name).published_as,
                "seeds_added": workspace.seeds_added,
            }
        ),
    )
    classes = len(data.dataset.class_names)
    first = tuple(shape.tensors[0].shape[1:])
    description = NetworkDescription(
        spec.model.name,
        classes,
        first,
        normalisation=spec.data.normalisation,
        takes=StoredInputs.of(shape),
    )
    return Ended(result, module, masks, description)


def _references(spec: RunSpec, data: BoundData) -> dict[str, str]:
    """What to cite for the method, the network and the dataset; the control has no method."""
    keys = {
        "method": "" if spec.is_control else resolve(spec.method).reference,
        "model": get_model(spec.model.name).reference,
        "dataset": data.dataset.card.reference,
    }
    return {kind: key for kind, key in keys.items() if key}


def _histogram(before: dict[str, Tensor], after: nn.Module, masks: Masks) -> WeightHistogram | None:
    """60 equal bins over the range before pruning of masked weights: of what multiplies inputs.

    Scales and shifts of batch norms, and biases, are masked with their channels and are no such weights.
    """
    parameters = {name: p for name, p in weight_parameters(after).items() if name in masks}
    if not parameters:
        return None
    old = torch.cat([before[name].flatten() for name in parameters]).float().cpu()
    new = torch.cat([p.detach()[masks[name]] for name, p in parameters.items()]).float().cpu()
    limit = float(old.abs().max()) or 1.0
    edges = torch.linspace(-limit, limit, 61)
    return WeightHistogram(
        edges=tuple(edges.tolist()),
        before=bin_counts(old, limit),
        after=bin_counts(new.clamp(-limit, limit), limit),
    )


def bin_counts(weights: Tensor, limit: float) -> tuple[int, ...]:
    """How many of ``weights`` lie in each of 60 equal bins from -limit to limit.

    ``torch.histc`` counts in the weights' own type, and float32 counts no further than to 2^24.

    >>> bin_counts(torch.tensor([-1.0, 1.0, 1.0]), 1.0)[::59]
    (1, 2)
    """
    parts = [torch.histc(part, 60, -limit, limit).long() for part in weights.split(_EXACTLY_COUNTED)]
    return tuple(torch.stack(parts).sum(0).tolist())
