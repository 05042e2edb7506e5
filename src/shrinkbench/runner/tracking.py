"""What runs go through, told to TensorBoard, MLflow or Weights & Biases too; no result depends on it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.links import placed
from shrinkbench.results.record import RunResult
from shrinkbench.spec.measures import EpochRecord

Values = Mapping[str, float]


class TrackingWarning(UserWarning):
    """Something could not be told; the run goes on."""


class Tracker(Protocol):
    """One run's diary in another tool."""

    def write(self, step: int, values: Values) -> None:
        """Values of one epoch; steps are counted from 1 over all trainings of the run."""
        ...

    def end(self, values: Values) -> None:
        """The run is over, with these final values; none where it has no result."""
        ...


class TensorBoard:
    """Event files in a folder of the run's own, ``DIR/tensorboard/KIND-KEY``."""

    def __init__(self, root: Path, tags: Mapping[str, str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(root / "tensorboard" / f"{tags['kind']}-{tags['key']}"))
        for name, value in tags.items():
            self._writer.add_text(name, value)

    def write(self, step: int, values: Values) -> None:
        """One scalar for each value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def end(self, values: Values) -> None:
        """Final scalars have step 0."""
        self.write(0, values)
        self._writer.close()


class MLflow:
    """A run of the experiment ``shrinkbench``, in ``DIR/mlruns`` or where ``MLFLOW_TRACKING_URI`` says."""

    def __init__(self, root: Path, tags: Mapping[str, str]) -> None:
        mlflow: Any = import_module("mlflow")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            mlflow.set_tracking_uri((root.resolve() / "mlruns").as_uri())
        mlflow.set_experiment("shrinkbench")
        self._mlflow = mlflow
        named = {f"shrinkbench.{name}": text for name, text in tags.items()}
        mlflow.start_run(run_name=tags["label"], tags=named)

    def write(self, step: int, values: Values) -> None:
        """All values in one call."""
        self._mlflow.log_metrics(dict(values), step=step)

    def end(self, values: Values) -> None:
        """Final values, and the end of the run."""
        self._mlflow.log_metrics(dict(values))
        self._mlflow.end_run()


class WeightsAndBiases:
    """A run of the project ``shrinkbench``, offline in ``DIR/wandb`` unless ``WANDB_MODE`` says otherwise."""

    def __init__(self, root: Path, tags: Mapping[str, str]) -> None:
        wandb: Any = import_module("wandb")
        self._run = wandb.init(
            project="shrinkbench",
            name=tags["label"],
            tags=[tags["key"]],
            config=dict(tags),
            dir=str(root),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def write(self, step: int, values: Values) -> None:
        """All values in one call."""
        self._run.log(dict(values), step=step)

    def end(self, values: Values) -> None:
        """Final values as the summary."""
        self._run.summary.update(dict(values))
        self._run.finish()


TRACKERS: Mapping[str, type[TensorBoard] | type[MLflow] | type[WeightsAndBiases]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def check_tracker(name: str | None) -> None:
    """Refuse a tool that is unknown or not installed."""
    if name is None:
        return
    if name not in TRACKERS:
        raise ShrinkbenchError(f"--log-to {one_line(name, 40)} is none of {', '.join(TRACKERS)}; choose one")
    if name not in sys.modules and find_spec(name) is None:
        raise ShrinkbenchError(
            f"--log-to {name}: the package is not installed; install it with: pip install 'shrinkbench[{name}]'"
        )


class Diary:
    """One run's tracker, if any. What the tool cannot do is told once, and ends its diary, not the run."""

    def __init__(self, name: str | None, root: Path, tags: Mapping[str, str]) -> None:
        self._name, self._step = name, 0
        self._tracker: Tracker | None = None
        if name is not None:
            make = TRACKERS[name]
            self._try(lambda: self._begin(make(_without_ways_out(root), tags)))

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is over. A resumed training goes on at its number."""
        self._step = self._step + 1 if self._step else record.epoch
        values = {"train/loss": record.train_loss, "train/learning_rate": record.learning_rate}
        values |= {f"validation/{name}": value for name, value in record.validation.items()}
        tracker = self._tracker
        if tracker is not None:
            self._try(lambda: tracker.write(self._step, values))

    def end(self, result: RunResult | None) -> None:
        """The run is over."""
        tracker = self._tracker
        if tracker is not None:
            self._try(lambda: tracker.end({} if result is None else final_values(result)))

    def _begin(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # another tool's, of any kind
            self._tracker = None
            warnings.warn(
                f"{self._name} takes no more of this run: {one_line(str(error), 160)}",
                TrackingWarning,
                stacklevel=3,
            )


def _without_ways_out(root: Path) -> Path:
    """``root``, unless a folder in it that the tools write into themselves is a link that leads out."""
    for folder in ("tensorboard", "mlruns", "wandb"):
        placed(root / folder)
    return root


def final_values(result: RunResult) -> dict[str, float]:
    """Quality before and after fine-tuning, on further splits, and size, by name."""
    qualities = {"before": result.before, "after": result.after, **result.further}
    values = {
        f"{split}/{name}": value
        for split, quality in qualities.items()
        if quality is not None
        for name, value in quality.metrics.items()
    }
    if result.size is not None:
        values["size/compression"] = result.size.compression
        values["size/theoretical_speedup"] = result.size.theoretical_speedup
        values["size/parameters_kept"] = float(result.size.parameters_kept)
    return values
