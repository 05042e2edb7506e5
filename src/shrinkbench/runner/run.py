"""One run, from its specification to its result. The sole module that knows all parts."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.measures import EpochRecord, WeightHistogram
from shrinkbench.metrics import layer_densities, measure_size
from shrinkbench.models import build, get_model, load_weights, read_state_dict
from shrinkbench.pruning import METHODS, Masks, Upholder, prune, save_tensors
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import ResultStore, write_atomically
from shrinkbench.runner.provenance import Stopwatch, provenance
from shrinkbench.runner.workspace import BoundData, Workspace
from shrinkbench.seeds import stream
from shrinkbench.spec import PretrainSpec, RunSpec
from shrinkbench.training import Training, evaluate, train

OnEpoch = Callable[[EpochRecord], None]


def run(spec: RunSpec, workspace: Workspace) -> RunResult:
    """Carry ``spec`` out, store its result and return it.

    Whatever goes wrong becomes a stored result with status ``failed``.
    """
    store = ResultStore(workspace.root)
    watch = Stopwatch()
    try:
        result = _run(spec, workspace, watch)
    except Exception as error:
        if not isinstance(error, ShrinkbenchError):
            write_atomically(store.run_dir(spec.key) / "traceback.txt", traceback.format_exc().encode())
        return record_failure(spec, workspace, sentence_of(error), watch)
    store.write(result)
    _remove_checkpoints(store.run_dir(spec.key))
    return result


def record_failure(
    spec: RunSpec, workspace: Workspace, sentence: str, watch: Stopwatch | None = None
) -> RunResult:
    """Store that ``spec`` failed, and why."""
    result = RunResult(
        key=spec.key,
        spec=spec,
        status="failed",
        error=sentence,
        provenance=provenance(watch or Stopwatch(), workspace.device),
    )
    store = ResultStore(workspace.root)
    store.write(result)
    _remove_checkpoints(store.run_dir(spec.key))
    return result


def sentence_of(error: Exception) -> str:
    """One line for a stored failure; errors that are not a person's to mend carry their type."""
    text = str(error) if isinstance(error, ShrinkbenchError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _run(spec: RunSpec, workspace: Workspace, watch: Stopwatch) -> RunResult:
    if spec.compression > 1:
        return _execute(spec, workspace, watch, ResultStore(workspace.root).run_dir(spec.key))
    control = ensure_control(spec, workspace)
    return control.model_copy(update={"key": spec.key, "spec": spec})


def ensure_control(spec: RunSpec, workspace: Workspace) -> RunResult:
    """The control that belongs to ``spec``: trained once, shared by every method."""
    control = spec.control
    folder = ResultStore(workspace.root).shared_dir("control", control.key)
    stored = folder / "result.json"
    if stored.exists():
        return RunResult.model_validate_json(stored.read_bytes())
    result = _execute(control, workspace, Stopwatch(), folder)
    write_atomically(stored, result.model_dump_json(indent=1).encode())
    _remove_checkpoints(folder)
    return result


def ensure_pretrained(spec: PretrainSpec, workspace: Workspace) -> Path:
    """The folder of the pretrained network: weights, and a card that says where they come from."""
    folder = ResultStore(workspace.root).shared_dir("pretrained", spec.key)
    weights = folder / "weights.safetensors"
    if weights.exists():
        return folder
    watch = Stopwatch()
    data = BoundData(workspace.dataset(spec.data.name), spec.data, workspace.device)
    module = _to_device(_build(spec.model, data, spec.seed), workspace.device)
    folder.mkdir(parents=True, exist_ok=True)
    training = train(
        module,
        spec.recipe,
        data,
        seed=stream(spec.seed, "pretrain"),
        checkpoint=folder / "checkpoint.pt",
    )
    card = {
        "spec": spec.model_dump(mode="json"),
        "selected_epoch": training.selected_epoch,
        "epochs": [record.model_dump() for record in training.epochs],
        "test": evaluate(module, data.test(), precision=spec.recipe.precision).model_dump(),
        "provenance": provenance(watch, workspace.device).model_dump(mode="json"),
    }
    write_atomically(folder / "card.json", json.dumps(card, indent=1).encode())
    save_tensors(module.state_dict(), weights)
    _remove_checkpoints(folder)
    return folder


def initial_network(spec: RunSpec, workspace: Workspace, data: BoundData) -> nn.Module:
    """The network before pruning, on the run's device."""
    module = _build(spec.model, data, spec.seed)
    if spec.weights.kind == "file" and spec.weights.digest is not None:
        path = workspace.weights[spec.weights.digest]
        load_weights(module, path, card=get_model(spec.model))
    pretraining = spec.pretraining
    if pretraining is not None:
        folder = ensure_pretrained(pretraining, workspace)
        module.load_state_dict(read_state_dict(folder / "weights.safetensors"))
    return _to_device(module, workspace.device)


def _build(model: str, data: BoundData, seed: int) -> nn.Module:
    return build(model, num_classes=len(data.dataset.class_names), seed=stream(seed, "initialisation"))


def _to_device(module: nn.Module, device: str) -> nn.Module:
    # Channels-last convolutions are the faster ones on CPUs and on tensor cores.
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _execute(spec: RunSpec, workspace: Workspace, watch: Stopwatch, folder: Path) -> RunResult:
    """Prune, fine-tune and measure."""
    data = BoundData(workspace.dataset(spec.data.name), spec.data, workspace.device)
    module = initial_network(spec, workspace, data)
    shape = data.dataset.card.image_shape or get_model(spec.model).input_shape
    folder.mkdir(parents=True, exist_ok=True)
    unpruned = {name: p.detach().clone() for name, p in module.named_parameters()}
    training = Training()
    masks = Masks({})
    for iteration, compression in enumerate(_steps(spec)):
        if compression > 1:
            masks = _prune(spec, module, compression, masks, iteration, shape, data)
        masks.apply(module)
        before = evaluate(module, data.test(), precision=spec.recipe.precision)
        training = train(
            module,
            spec.recipe,
            data,
            seed=stream(spec.seed, "finetune", iteration),
            after_step=Upholder(module, masks),
            checkpoint=folder / f"checkpoint-{iteration}.pt",
        )
    return RunResult(
        key=spec.key,
        spec=spec,
        status="done",
        size=measure_size(module, shape, masks),
        before=before,
        after=evaluate(module, data.test(), precision=spec.recipe.precision),
        validation=evaluate(module, data.validation(), precision=spec.recipe.precision),
        selected_epoch=training.selected_epoch,
        epochs_run=len(training.epochs),
        epochs=tuple(training.epochs),
        layers=layer_densities(module, masks),
        weight_histogram=_histogram(unpruned, module, masks),
        references=_references(spec, data),
        provenance=provenance(watch, workspace.device),
    )


def _references(spec: RunSpec, data: BoundData) -> dict[str, str]:
    """What to cite for the method, the network and the dataset; the control has no method."""
    keys = {
        "method": METHODS.get(spec.method.name).reference if spec.compression > 1 else "",
        "model": get_model(spec.model).reference,
        "dataset": data.dataset.card.reference,
    }
    return {kind: key for kind, key in keys.items() if key}


def _steps(spec: RunSpec) -> tuple[float, ...]:
    if spec.compression == 1:
        return (1.0,)
    return METHODS.get(spec.method.name).schedule(spec.compression)


def _prune(
    spec: RunSpec,
    module: nn.Module,
    compression: float,
    masks: Masks,
    iteration: int,
    shape: tuple[int, ...],
    data: BoundData,
) -> Masks:
    order = torch.Generator().manual_seed(stream(spec.seed, "scoring-batch", iteration))
    return prune(
        module,
        METHODS.get(spec.method.name),
        compression=compression,
        batches=_lazily(lambda: data.train(spec.recipe.batch_size, generator=order, augment=False)),
        input_shape=shape,
        masks=masks,
        generator=torch.Generator().manual_seed(stream(spec.seed, "scoring", iteration)),
        iteration=iteration,
        prune_classifier=spec.prune_classifier,
        prune_biases=spec.prune_biases,
    )


def _lazily(
    make: Callable[[], Iterable[tuple[Tensor, Tensor]]],
) -> Iterable[tuple[Tensor, Tensor]]:
    """Batches that are not drawn before somebody asks for the first."""
    yield from make()


def _histogram(before: dict[str, Tensor], after: nn.Module, masks: Masks) -> WeightHistogram | None:
    """60 equal bins over the range of the masked parameters before pruning."""
    if not len(masks):
        return None
    parameters = dict(after.named_parameters())
    old = torch.cat([before[name].flatten() for name in masks]).float().cpu()
    new = torch.cat([parameters[name].detach()[masks[name]] for name in masks]).float().cpu()
    limit = float(old.abs().max()) or 1.0
    edges = torch.linspace(-limit, limit, 61)
    return WeightHistogram(
        edges=tuple(edges.tolist()),
        before=tuple(torch.histc(old, 60, -limit, limit).int().tolist()),
        after=tuple(torch.histc(new.clamp(-limit, limit), 60, -limit, limit).int().tolist()),
    )


def _remove_checkpoints(folder: Path) -> None:
    for path in folder.glob("checkpoint*.pt"):
        path.unlink(missing_ok=True)
