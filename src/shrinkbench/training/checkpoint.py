"""Training state on disk: written in one step, so that a kill leaves the last whole epoch."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from shrinkbench.errors import DamagedWarning, ShrinkbenchError
from shrinkbench.files import remove_file, write_atomically
from shrinkbench.training.hook import Hook


class DamagedCheckpointWarning(DamagedWarning):
    """A checkpoint could not be read, and its training begins anew."""


def remove_checkpoints(folder: Path) -> None:
    """Remove what a training under way has left in ``folder``."""
    for path in folder.glob("checkpoint*.pt"):
        remove_file(path)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) to ``path`` in one step."""
    write_atomically(path, lambda place: _save(state, place))


def _save(state: dict[str, Any], place: Path) -> None:
    """Write through a handle of Python's, whose errors are the system's own; torch's name no number."""
    with place.open("wb", buffering=0) as file:
        stream = _Stream(file)
        torch.save(state, cast(IO[bytes], stream))
        if stream.refused is not None:
            raise stream.refused


class _Stream(io.RawIOBase):
    """Writes to ``file`` until the system refuses, and drops what comes after that.

    An error that is raised into its writer does not come out whole: it complains about its own position.
    """

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self._file = file
        self.refused: OSError | None = None

    def writable(self) -> bool:
        """So that it is taken for an open file."""
        return True

    def write(self, content: Any) -> int:
        """Write all of ``content``, in as many pieces as the system takes."""
        rest = memoryview(content).cast("B")
        size = len(rest)
        try:
            while rest and self.refused is None:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            self.refused = error
        return size


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state at ``path``, or ``None`` where there is none. Only tensors and plain values are read.

    A damaged checkpoint is none: it is renamed, with a ``DamagedCheckpointWarning``, and training begins anew.
    """
    try:
        return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:  # it may have gone since somebody saw it: its run is done then
        return None
    except OSError as error:
        raise ShrinkbenchError(f"cannot read {path}: {error.strerror or error}; run again") from None
    except Exception as error:  # torch names a dozen kinds of damage
        with contextlib.suppress(OSError):
            path.replace(path.with_name(f"{path.name}.damaged"))
        warnings.warn(
            f"the checkpoint {path} was damaged ({type(error).__name__}); its training begins anew",
            DamagedCheckpointWarning,
            stacklevel=2,
        )
        return None


class KeepStep(Hook):
    """Hands over the weights after one step, with its epoch and how many steps of that are done by then."""

    def __init__(
        self, module: nn.Module, step: int, save: Callable[[dict[str, Tensor], int, int], None]
    ) -> None:
        self._module, self._wanted, self._save = module, step, save
        self._before = 0  # steps of the epochs that are over
        self._epoch, self._now = 1, 0

    def after_step(self, step: int) -> None:
        """Save if this step is wanted."""
        self._now = step
        if step == self._wanted:
            self._save(self._module.state_dict(), self._epoch, step - self._before)

    def after_epoch(self, epoch: int) -> None:
        """Count."""
        self._before, self._epoch = self._now, epoch + 1


class KeepEpochs(Hook):
    """Hands over the weights at the end of chosen epochs (0: before the first), for rewinding to them."""

    def __init__(
        self, module: nn.Module, epochs: Collection[int], save: Callable[[int, dict[str, Tensor]], None]
    ) -> None:
        self._module = module
        self._epochs = epochs
        self._save = save

    def start(self, optimizer: Optimizer, *others: Optimizer) -> None:
        """Epoch 0: a resumed training begins with the same weights once more."""
        self.after_epoch(0)

    def after_epoch(self, epoch: int) -> None:
        """Save if this epoch is wanted."""
        if epoch in self._epochs:
            self._save(epoch, self._module.state_dict())
