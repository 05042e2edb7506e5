"""What known networks count: parameters and multiply-adds, to tell conventions and misprints apart."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

from shrinkbench.literature.tables import read_table
from shrinkbench.spec import Value, parse_value

Convention = Literal["multiply-adds", "FLOPs, two per multiply-add", "unknown"]
FACTORS: dict[Convention, int] = {"multiply-adds": 1, "FLOPs, two per multiply-add": 2}
TOLERANCE = 0.05
"""How far an operation count may be off a known one: papers round, and count pooling and biases or not."""


class KnownNetwork(Value):
    """One variant of a network, counted; ``convolution_weights`` leaves out classifier, biases and norms."""

    dataset: str
    architecture: str
    variant: str = ""
    parameters: int
    convolution_weights: int | None = None
    multiply_adds: int
    basis: str


@cache
def known_networks() -> tuple[KnownNetwork, ...]:
    """Every network of the bundled table."""
    resource = resources.files("shrinkbench.literature") / "data" / "architectures.csv"
    with resources.as_file(resource) as path:
        rows = read_table(path, list(KnownNetwork.model_fields), remedy="reinstall the package")
        return tuple(
            parse_value(KnownNetwork, {k: v for k, v in row.cells.items() if v}, where=str(path))
            for row in rows
        )


@cache
def variants(dataset: str, architecture: str) -> tuple[KnownNetwork, ...]:
    """The known variants of what papers call ``architecture`` on ``dataset``."""
    return tuple(
        network
        for network in known_networks()
        if (network.dataset, network.architecture) == (dataset, architecture)
    )


def operations_convention(dataset: str, architecture: str, operations: float) -> Convention:
    """Whether ``operations`` of an unpruned network counts multiply-adds or both halves of each.

    >>> operations_convention("ImageNet", "VGG-16", 30.9e9)
    'FLOPs, two per multiply-add'
    >>> operations_convention("ImageNet", "AlexNet", 0.371e9)
    'unknown'
    """
    for convention, factor in FACTORS.items():
        for network in variants(dataset, architecture):
            if abs(operations / (factor * network.multiply_adds) - 1) <= TOLERANCE:
                return convention
    return "unknown"


def convolution_share(dataset: str, architecture: str) -> float | None:
    """Convolution weights over all parameters, where the table knows them (of the first such variant)."""
    for network in variants(dataset, architecture):
        if network.convolution_weights is not None:
            return network.convolution_weights / network.parameters
    return None
