"""What is measured of a network: quality, size, and one epoch of training."""

from __future__ import annotations

from typing import Literal

from shrinkbench.spec import Value


class Quality(Value):
    """Quality on one split: fractions of images classified right, and mean cross-entropy in nats."""

    top1: float
    top5: float
    loss: float
    images: int


class Size(Value):
    """Size and computation; definitions in docs/metrics.md.

    ``compression`` = parameters / parameters_kept, ``theoretical_speedup`` = multiply_adds /
    multiply_adds_kept, both for one input of the dataset's shape.
    """

    parameters: int
    parameters_kept: int
    compression: float
    multiply_adds: int
    multiply_adds_kept: int
    theoretical_speedup: float


class LayerDensity(Value):
    """Kept and total weights of one parameter tensor.

    ``outputs`` counts rows (filters) of which a weight is kept, ``None`` where nobody counted. ``positions``
    holds the kept weights at each position of a convolution's kernel, row by row, for kernels beyond 1 x 1.
    """

    kept: int
    total: int
    outputs: int | None = None
    positions: tuple[int, ...] = ()


class EpochRecord(Value):
    """One epoch of fine-tuning; quality is on the validation split."""

    epoch: int
    learning_rate: float
    train_loss: float
    validation_top1: float
    validation_loss: float


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
