"""What is measured of a network: quality, size, and one epoch of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shrinkbench.spec.value import Value

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Quality(Value):
    """Quality on one split: the task's metrics by name, over so many examples."""

    metrics: dict[str, Finite] = Field(min_length=1)
    examples: Positive

    def __getitem__(self, name: str) -> float:
        return self.metrics[name]


class Size(Value):
    """Size and computation; definitions in docs/metrics.md.

    ``compression`` = parameters / parameters_kept, ``theoretical_speedup`` = multiply_adds /
    multiply_adds_kept, both for one input of the dataset's shape.
    """

    parameters: Positive
    parameters_kept: Count
    compression: Annotated[float, Field(ge=1)]
    multiply_adds: Count
    multiply_adds_kept: Count
    theoretical_speedup: Annotated[float, Field(ge=1)]


class LayerDensity(Value):
    """Kept and total weights of one parameter tensor.

    ``outputs`` counts rows (filters) of which a weight is kept, ``None`` where nobody counted. ``positions``
    holds the kept weights at each position of a convolution's kernel, row by row, for kernels beyond 1 x 1.
    """

    kept: Count
    total: Count
    outputs: Count | None = None
    positions: tuple[int, ...] = ()


class EpochRecord(Value):
    """One epoch of fine-tuning; ``validation`` holds the task's metrics on the validation split."""

    epoch: Positive
    learning_rate: Finite
    train_loss: Finite
    validation: dict[str, Finite]


class WeightHistogram(Value):
    """Prunable weights of the whole network in bins: before pruning, and those kept after fine-tuning.

    ``edges`` has one entry more than the two counts; weights outside lie in the outermost bins.
    """

    edges: tuple[float, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


class Spent(Value):
    """Effort of one stage: epochs of training, images seen, multiply-adds of forward and backward passes.

    Images that were only scored on count as seen, not as epochs. Weights that masks hold at zero cost nothing.
    """

    epochs: float
    images: int
    multiply_adds: float


class Budget(Value):
    """What a run cost in all, by stage; what several runs share counts for each of them.

    ``pretraining`` is ``None`` where it is unknown: weights of a file tell nothing of their making.
    ``pruning`` is finding the masks, earlier rounds of an iterative method included; ``retraining`` is the
    training whose outcome is measured, while it prunes or after.
    """

    pretraining: Spent | None
    pruning: Spent
    retraining: Spent


class Latency(Value):
    """Median wall time of one forward pass, dense and pruned, on the run's device.

    ``form`` tells what was timed: the network with its masks, or the physically smaller one.
    """

    batch_size: int
    form: Literal["masked", "small"]
    dense_seconds: float
    seconds: float
    threads: int
    precision: str
