"""What a run is made of: frozen values, resolved to the last number, and the key over all of them.

An :class:`ExperimentSpec` is what a person writes (a grid, in TOML); a :class:`RunSpec` is one cell of it
with nothing left to defaults. Two runs are the same run exactly when their keys are equal.
"""

from shrinkbench.spec.amount import (
    UNPRUNED,
    Amount,
    ChannelFraction,
    Compression,
    FractionPerLayer,
    PublishedWidths,
    Speedup,
)
from shrinkbench.spec.axes import (
    CONTINUE,
    CONTROL_METHOD,
    SCRATCH_E,
    AllocationSpec,
    AxisValue,
    FinetuningSpec,
    MethodSpec,
    ScheduleSpec,
    ScoreSpec,
    StructureSpec,
)
from shrinkbench.spec.constraints import UNCONSTRAINED, Constraints
from shrinkbench.spec.experiment import ExperimentSpec, read_experiments
from shrinkbench.spec.recipe import Averaging, Distillation, EarlyStopping, Recipe
from shrinkbench.spec.run import PretrainSpec, RunSpec
from shrinkbench.spec.sequential import SeedsAdded, UntilDecided
from shrinkbench.spec.task import (
    CLASSIFICATION,
    DETECTION,
    IMAGENET_NORMALISATION,
    DataSpec,
    ExtraSpec,
    MetricSpec,
    ModelSpec,
    Normalisation,
    Objective,
    TaskSpec,
    WeightsSpec,
    detection_of,
)
from shrinkbench.spec.value import Value, digest, parse_value

__all__ = [
    "CLASSIFICATION",
    "CONTINUE",
    "CONTROL_METHOD",
    "DETECTION",
    "IMAGENET_NORMALISATION",
    "SCRATCH_E",
    "UNCONSTRAINED",
    "UNPRUNED",
    "AllocationSpec",
    "Amount",
    "Averaging",
    "AxisValue",
    "ChannelFraction",
    "Compression",
    "Constraints",
    "DataSpec",
    "Distillation",
    "EarlyStopping",
    "ExperimentSpec",
    "ExtraSpec",
    "FinetuningSpec",
    "FractionPerLayer",
    "MethodSpec",
    "MetricSpec",
    "ModelSpec",
    "Normalisation",
    "Objective",
    "PretrainSpec",
    "PublishedWidths",
    "Recipe",
    "RunSpec",
    "ScheduleSpec",
    "ScoreSpec",
    "SeedsAdded",
    "Speedup",
    "StructureSpec",
    "TaskSpec",
    "UntilDecided",
    "Value",
    "WeightsSpec",
    "detection_of",
    "digest",
    "parse_value",
    "read_experiments",
]
