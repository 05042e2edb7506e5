"""A Pruner in the loops of PyTorch Lightning and of Hugging Face's Trainer."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.pruner import Pruner


def lightning_callback(pruner: Pruner) -> Any:
    """A ``Callback`` of PyTorch Lightning: attach when training starts, finish when it ends, keep the state.

    It follows the optimizers that hold parameters of the network. Other callbacks go first, those that write
    checkpoints aside: what averages weights puts the average in their place at the end, and into checkpoints,
    where pruned weights are then zeroed too. Raises ``ShrinkbenchError`` without Lightning.
    """
    lightning = _imported("lightning.pytorch", "pytorch_lightning")

    class PrunerCallback(lightning.Callback):  # type: ignore[misc, name-defined]
        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            # A new list, since the present one is being gone through.
            writers = [c for c in trainer.callbacks if isinstance(c, lightning.callbacks.Checkpoint)]
            trainer.callbacks = [c for c in trainer.callbacks if c is not self and c not in writers]
            trainer.callbacks += [self, *writers]

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            own = {id(p) for p in pruner.module.parameters()}
            moving = [o for o in trainer.optimizers if any(id(p) in own for p in _parameters_of(o))]
            if not moving:
                raise ShrinkbenchError(
                    f"none of the module's {len(trainer.optimizers)} optimizers holds a parameter of the "
                    "network that is pruned; give the Pruner the network that is trained"
                )
            precision = getattr(trainer, "precision_plugin", None)
            pruner.attach(*moving, scaler=getattr(precision, "scaler", None))

        def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
            if pruner.is_done:
                checkpoint["state_dict"] = _zeroed(checkpoint["state_dict"], pl_module, pruner)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            pruner.finish()

        def state_dict(self) -> dict[str, Any]:
            return pruner.state_dict()

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            pruner.load_state_dict(state_dict)

    return PrunerCallback()


def trainer_callback(pruner: Pruner) -> Any:
    """A ``TrainerCallback`` of Hugging Face: the state lies as ``pruner.pt`` in each checkpoint's folder.

    Raises ``ShrinkbenchError`` without transformers.
    """

    def file(args: Any, state: Any) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}" / "pruner.pt"

    class PrunerCallback(_imported("transformers").TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step:
                if not file(args, state).is_file():
                    raise ShrinkbenchError(
                        f"training goes on from step {state.global_step}, and there is no {file(args, state)}; "
                        "go on from a checkpoint that was saved with this callback"
                    )
                pruner.load_state_dict(torch.load(file(args, state), map_location="cpu", weights_only=True))
            pruner.attach(kwargs["optimizer"])

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            torch.save(pruner.state_dict(), file(args, state))

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            best = state.best_model_checkpoint if args.load_best_model_at_end else None
            if best is not None:
                then = torch.load(Path(best) / "pruner.pt", map_location="cpu", weights_only=True)["hook"]
                if not Masks(then["masks"]).equal(pruner.masks):
                    raise ShrinkbenchError(
                        f"load_best_model_at_end has put weights of {Path(best).name} in place, whose masks "
                        "were not the final ones; leave it out, or load the last one and apply pruner.masks"
                    )
            pruner.finish()

    return PrunerCallback()


def _parameters_of(optimizer: Any) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _zeroed(state: dict[str, Tensor], whole: nn.Module, pruner: Pruner) -> dict[str, Tensor]:
    """``state`` of ``whole``, of which the pruned network is a part, with pruned weights at zero."""
    names = {id(p): name for name, p in whole.named_parameters()}
    parameters = dict(pruner.module.named_parameters(remove_duplicate=False))
    gone = {names.get(id(parameters[name])): ~mask for name, mask in pruner.masks.items()}
    return {n: t.masked_fill(gone[n].to(t.device), 0) if n in gone else t for n, t in state.items()}


def _imported(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    raise ShrinkbenchError(f"'{names[0]}' is not installed; install it, or attach the Pruner in your own loop")
