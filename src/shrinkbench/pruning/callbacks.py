"""A Pruner in the loops of PyTorch Lightning and of Hugging Face's Trainer."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.pruner import Pruner


def lightning_callback(pruner: Pruner) -> Any:
    """A ``Callback`` of PyTorch Lightning: attach when training starts, finish when it ends, keep the state.

    The module's own optimizer has to be the only one. Raises ``ShrinkbenchError`` without Lightning.
    """

    class PrunerCallback(_imported("lightning.pytorch", "pytorch_lightning").Callback):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if len(trainer.optimizers) != 1:
                raise ShrinkbenchError(
                    f"the module has {len(trainer.optimizers)} optimizers, and a Pruner follows one; attach it "
                    "yourself in configure_optimizers"
                )
            precision = getattr(trainer, "precision_plugin", None)
            pruner.attach(trainer.optimizers[0], scaler=getattr(precision, "scaler", None))

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


def _imported(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    raise ShrinkbenchError(f"'{names[0]}' is not installed; install it, or attach the Pruner in your own loop")
