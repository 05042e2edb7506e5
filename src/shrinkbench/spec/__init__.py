"""What a run is made of: frozen values, resolved to the last number, and the key over all of them.

An :class:`ExperimentSpec` is what a person writes (a grid, in TOML); a :class:`RunSpec` is one cell of it
with nothing left to defaults. Two runs are the same run exactly when their keys are equal.
"""

from shrinkbench.spec.axes import CONTROL_METHOD, MethodSpec
from shrinkbench.spec.experiment import ExperimentSpec, read_experiments
from shrinkbench.spec.recipe import EarlyStopping, Recipe
from shrinkbench.spec.run import PretrainSpec, RunSpec
from shrinkbench.spec.task import IMAGENET_NORMALISATION, DataSpec, ExtraSpec, Normalisation, WeightsSpec
from shrinkbench.spec.value import Value, digest, parse_value

__all__ = [
    "CONTROL_METHOD",
    "IMAGENET_NORMALISATION",
    "DataSpec",
    "EarlyStopping",
    "ExperimentSpec",
    "ExtraSpec",
    "MethodSpec",
    "Normalisation",
    "PretrainSpec",
    "Recipe",
    "RunSpec",
    "Value",
    "WeightsSpec",
    "digest",
    "parse_value",
    "read_experiments",
]
