"""The networks that runs start from: built, trained once for all runs that share them, and rewound to."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import check_target, make_folder, sha256_of, write_atomically
from shrinkbench.models import MODELS, build, get_model, load_weights
from shrinkbench.network.probe import require_materialised
from shrinkbench.network.weights import load_tensors
from shrinkbench.pruning import Finetuning, save_tensors
from shrinkbench.results.store import ResultStore
from shrinkbench.runner.provenance import Stopwatch, provenance
from shrinkbench.runner.sealing import is_whole, load_sealed, read_card, save_sealed, write_card
from shrinkbench.runner.workspace import BoundData, Workspace, check_source
from shrinkbench.seeds import stream
from shrinkbench.spec import PretrainSpec, RunSpec
from shrinkbench.spec.measures import EpochRecord, Spent
from shrinkbench.spec.training_cost import NOTHING, training_cost
from shrinkbench.tasks import task_of
from shrinkbench.training import KeepEpochs, KeepStep, evaluate, remove_checkpoints, train


def untrained_network(model: str, data: BoundData, seed: int, *purpose: str) -> nn.Module:
    """``model`` with its initial weights, on the device of ``data``; a ``purpose`` draws others."""
    names = ("initialisation", *purpose)
    module = build(model, num_classes=len(data.dataset.class_names), seed=stream(seed, *names))
    require_materialised(module)
    # Channels-last convolutions are the faster ones on CPUs and on tensor cores.
    return module.to(data.device).to(memory_format=torch.channels_last)


def initial_network(spec: RunSpec, workspace: Workspace, data: BoundData) -> nn.Module:
    """The network before pruning: trained, read from a file, or with its initial weights."""
    check_source(MODELS, spec.model)
    if spec.method.start == "initialisation" or spec.weights.seed is None:
        module = untrained_network(spec.model.name, data, spec.seed)
    else:  # what a network draws and its weights do not hold is of the seed that it was trained from
        module = untrained_network(spec.model.name, data, spec.weights.seed)
    if spec.method.start == "initialisation":
        return module
    if spec.weights.kind == "file" and spec.weights.digest is not None:
        digest = spec.weights.digest
        card = get_model(spec.model.name)
        path, entry = workspace.weights[digest], spec.weights.entry
        load_weights(module, path, card=card, sha256=digest, entry=entry)
    if spec.pretraining is not None:
        folder = ensure_pretrained(spec.pretraining, workspace)
        load_tensors(module, load_sealed(folder / "weights.safetensors", key=spec.pretraining.key))
    return module


def ensure_pretrained(
    spec: PretrainSpec,
    workspace: Workspace,
    *,
    keep: Collection[int] = (),
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Path:
    """The folder of the pretrained network: weights, and a card that says where they come from.

    The weights after each epoch in ``keep`` (0: before the first) lie there too. Damaged files are made again.
    """
    folder = ResultStore(workspace.root).shared_dir("pretrained", spec.key)
    weights = folder / "weights.safetensors"
    names = ("weights.safetensors", "card.json")
    if workspace.sees(lambda: all(is_whole(folder / name, key=spec.key) for name in names)):
        for epoch in keep:
            _ensure_epoch(spec, epoch, workspace, folder)
        return folder
    watch = Stopwatch()
    check_source(MODELS, spec.model)
    data = BoundData(workspace.dataset(spec.data.name), spec.data, workspace.device)
    module = untrained_network(spec.model.name, data, spec.seed)
    task = task_of(spec.objective)
    make_folder(folder)
    training = train(
        module,
        spec.recipe,
        data,
        seed=stream(spec.seed, "pretrain"),
        hooks=[_keeper(spec, module, keep, workspace, folder)],
        checkpoint=folder / f"checkpoint{workspace.checkpoint_label}.pt",
        on_epoch=on_epoch or workspace.on_epoch,
        task=task,
        team=workspace.team,
        compiled=workspace.compiled,
    )
    tested = evaluate(module, data.test(), precision=spec.recipe.precision, task=task, team=workspace.team)
    made = provenance(watch, workspace.device, processes=workspace.team.size)
    card = {
        "spec": spec.model_dump(mode="json"),
        "selected_epoch": training.selected_epoch,
        "epochs": [record.model_dump() for record in training.epochs],
        "test": tested.model_dump(),
        "provenance": made.model_copy(update={"uncompiled": training.uncompiled}).model_dump(mode="json"),
    }
    if workspace.writes:
        write_card(folder / "card.json", card, key=spec.key)
        save_sealed(module.state_dict(), weights, key=spec.key)
        remove_checkpoints(folder)
    workspace.team.tell(None)  # who reads it next waits until it is there
    return folder


def pretraining_cost(spec: RunSpec, workspace: Workspace, *, images: int, multiply_adds: int) -> Spent | None:
    """What the weights cost that ``spec`` starts from; ``None`` for those of a file, which do not tell."""
    if spec.method.from_scratch or spec.method.start == "initialisation":
        return NOTHING  # none of the large network's training is in the weights that are measured
    if spec.weights.kind == "file":
        return None
    if spec.pretraining is None:
        return NOTHING
    folder = ensure_pretrained(spec.pretraining, workspace)
    epochs = len(read_card(folder / "card.json", key=spec.pretraining.key)["epochs"])
    return training_cost(epochs=epochs, images=images, multiply_adds=multiply_adds)


def pretrain(
    spec: PretrainSpec,
    workspace: Workspace,
    out: Path,
    *,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Path:
    """Train ``spec`` and write the weights to ``out`` (safetensors) with a card beside it; returns the card.

    A call that was killed goes on where it stopped, as long as ``workspace.root`` is the same folder.
    """
    path = out.with_suffix(".json")
    for target in (out, path):
        check_target(target)
    folder = ensure_pretrained(spec, workspace, on_epoch=on_epoch)
    tensors = load_sealed(folder / "weights.safetensors", key=spec.key)
    save_tensors(tensors, out)
    card = {
        "name": out.stem,
        "model": spec.model.name,
        "dataset": spec.data.name,
        "sha256": sha256_of(out),
        "normalisation": spec.data.normalisation.model_dump(mode="json"),
        **read_card(folder / "card.json", key=spec.key),
    }
    write_atomically(path, json.dumps(card, indent=1).encode())
    return path


def _keeper(
    spec: PretrainSpec, module: nn.Module, epochs: Collection[int], workspace: Workspace, folder: Path
) -> KeepEpochs:
    def save(epoch: int, state: dict[str, Tensor]) -> None:
        if workspace.writes:
            save_sealed(state, epoch_file(folder, epoch), key=epoch_key(spec, epoch))

    return KeepEpochs(module, epochs, save)


def epoch_key(spec: PretrainSpec, epoch: int) -> str:
    """What the weights after ``epoch`` are sealed for."""
    return f"{spec.key} epoch {epoch}"


def epoch_file(folder: Path, epoch: int) -> Path:
    """Where the weights after ``epoch`` lie."""
    return folder / f"epoch-{epoch}.safetensors"


def _ensure_epoch(spec: PretrainSpec, epoch: int, workspace: Workspace, folder: Path) -> Path:
    """The weights after ``epoch``: where pretraining did not keep them, its beginning is repeated."""
    path = epoch_file(folder, epoch)
    if epoch > spec.recipe.epochs:
        raise ShrinkbenchError(
            f"cannot rewind to epoch {epoch}: recipe '{spec.recipe.name}' trains for {spec.recipe.epochs} "
            "epochs; choose an earlier epoch"
        )
    if not workspace.sees(lambda: is_whole(path, key=epoch_key(spec, epoch))):
        data = BoundData(workspace.dataset(spec.data.name), spec.data, workspace.device)
        module = untrained_network(spec.model.name, data, spec.seed)
        keeper = _keeper(spec, module, (epoch,), workspace, folder)
        train(
            module,
            spec.recipe,
            data,
            seed=stream(spec.seed, "pretrain"),
            hooks=[keeper],
            last_epoch=epoch,
            task=task_of(spec.objective),
            team=workspace.team,
            compiled=workspace.compiled,
        )
        workspace.team.tell(None)
    return path


def _step_key(spec: PretrainSpec, step: int) -> str:
    return f"{spec.key} step {step}"


def _ensure_step(spec: PretrainSpec, step: int, workspace: Workspace, folder: Path) -> Path:
    """The weights after ``step``, beside a card that says in which epoch that is; pretraining is repeated."""
    path, card, key = folder / f"step-{step}.safetensors", folder / f"step-{step}.json", _step_key(spec, step)
    if workspace.sees(lambda: is_whole(path, key=key) and is_whole(card, key=key)):
        return path
    data = BoundData(workspace.dataset(spec.data.name), spec.data, workspace.device)
    module = untrained_network(spec.model.name, data, spec.seed)
    found: list[int] = []

    def save(state: dict[str, Tensor], epoch: int, done: int) -> None:
        found.append(epoch)
        if workspace.writes:
            write_card(card, {"epoch": epoch, "done": done}, key=key)
            save_sealed(state, path, key=key)

    train(
        module,
        spec.recipe,
        data,
        seed=stream(spec.seed, "pretrain"),
        hooks=[KeepStep(module, step, save)],
        # An epoch's last batch may be short, or join the one before: without it the step is no later.
        last_epoch=step // max(len(data.train_source) // spec.recipe.batch_size, 1) + 1,
        task=task_of(spec.objective),
        team=workspace.team,
        compiled=workspace.compiled,
    )
    workspace.team.tell(None)
    if not found:
        raise ShrinkbenchError(
            f"cannot rewind to step {step}: recipe '{spec.recipe.name}' of {spec.recipe.epochs} epochs has "
            "fewer steps; choose an earlier step"
        )
    return path


def place_of_step(spec: RunSpec, mode: Finetuning, workspace: Workspace) -> tuple[int, int]:
    """The epoch that training goes on with after ``mode`` has rewound, and how many of its batches are over."""
    if not mode.step or spec.pretraining is None:
        return mode.epoch + 1, 0
    folder = ensure_pretrained(spec.pretraining, workspace)
    path = _ensure_step(spec.pretraining, mode.step, workspace, folder)
    card = read_card(path.with_suffix(".json"), key=_step_key(spec.pretraining, mode.step))
    return card["epoch"], card["done"]


def weights_to_restart_from(
    spec: RunSpec, mode: Finetuning, workspace: Workspace, data: BoundData, iteration: int
) -> dict[str, Tensor] | None:
    """What :func:`shrinkbench.pruning.restart` needs: the weights rewound to, or a fresh draw."""
    if mode.weights == "kept":
        return None
    if mode.weights in ("reinitialised", "scratch"):
        return untrained_network(spec.model.name, data, spec.seed, "anew", str(iteration)).state_dict()
    if mode.epoch == 0 and not mode.step and spec.weights.kind != "file":
        seed = spec.seed if spec.pretraining is None else spec.pretraining.seed
        return untrained_network(spec.model.name, data, seed).state_dict()
    if spec.pretraining is None:
        raise ShrinkbenchError(
            f"fine-tuning mode '{mode.name}' rewinds weights, and '{spec.weights.name}' has no earlier epochs; "
            "use weights = 'pretrain'"
        )
    if mode.step:
        folder = ensure_pretrained(spec.pretraining, workspace)
        path = _ensure_step(spec.pretraining, mode.step, workspace, folder)
        return load_sealed(path, key=_step_key(spec.pretraining, mode.step))
    folder = ensure_pretrained(spec.pretraining, workspace, keep=(mode.epoch,))
    return load_sealed(epoch_file(folder, mode.epoch), key=epoch_key(spec.pretraining, mode.epoch))
