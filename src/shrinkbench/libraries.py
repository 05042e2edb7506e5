"""Libraries that are imported where they are used, and what to install where one is missing or does not fit."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from shrinkbench.errors import ShrinkbenchError


def torchvision() -> ModuleType:
    """The module torchvision, whose compiled operators must fit the installed torch.

    Raises ``ShrinkbenchError`` where they do not: the wheels of both come in pairs of one build.
    """
    try:
        module = import_module("torchvision")
        fits = import_module("torchvision.extension")._has_ops()
    except (ImportError, OSError, RuntimeError):  # an operator that is described before it exists
        fits = False
    if not fits:
        raise ShrinkbenchError(
            f"torchvision {_version_of('torchvision')} does not fit torch {_version_of('torch')}; install both "
            "in one command and from one source, for example: pip install --force-reinstall torch torchvision"
        )
    return module


def optional(name: str, *, extra: str, purpose: str) -> ModuleType:
    """The optional library ``name``; a sentence says how to install it where it is missing."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise ShrinkbenchError(
            f"{purpose} need the optional package {name}; install it with: pip install 'shrinkbench[{extra}]'"
        ) from None


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
