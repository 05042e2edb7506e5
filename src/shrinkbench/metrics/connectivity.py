"""Linear mode connectivity: the error along the line between two networks (Frankle et al. 2020)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError, one_line


@dataclass(frozen=True)
class Connectivity:
    """Errors at ``places`` from 0 (the first network) to 1 (the second)."""

    places: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """The highest error on the line, its ends included, above the mean of the ends.

        Frankle et al. 2020 call networks connected where it is below two percent.

        >>> Connectivity((0.0, 0.5, 1.0), (0.1, 0.5, 0.2)).barrier
        0.35
        """
        return max(self.errors) - (self.errors[0] + self.errors[-1]) / 2


def linear_connectivity(
    first: nn.Module, second: nn.Module, error: Callable[[nn.Module], float], *, points: int = 11
) -> Connectivity:
    """``error`` of the networks ``(1 - t) * first + t * second`` at ``points`` equally spaced t, ends included.

    All floating-point parameters and buffers are interpolated, running statistics of batch norms too; to renew
    them, let ``error`` do so. Neither network is changed. Raises ``ShrinkbenchError`` where they are not of one
    architecture.

    >>> a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> for net, value in ((a, -1.0), (b, 1.0)):
    ...     _ = net.weight.data.fill_(value)
    >>> linear_connectivity(a, b, lambda net: 1 - net.weight.item() ** 2, points=3).errors
    (0.0, 1.0, 0.0)
    """
    if isinstance(points, bool) or not hasattr(points, "__index__"):
        raise ShrinkbenchError(
            f"points = {one_line(repr(points), 40)} is no whole number; give how many networks of the line are "
            "measured, at least 3"
        )
    if points < 3:
        raise ShrinkbenchError(f"{points} points have none between the two networks; give at least 3")
    given: tuple[object, object] = (first, second)
    for end in given:
        if not isinstance(end, nn.Module):
            raise ShrinkbenchError(
                f"{one_line(repr(end), 60)} is no network; give two torch modules of one architecture"
            )
    ends = _state(first), _state(second)
    _check(*ends)
    network = copy.deepcopy(first)
    places = tuple(n / (points - 1) for n in range(points))
    errors = tuple(_number(error(_moved(network, *ends, t))) for t in places)
    if not all(map(math.isfinite, errors)):
        raise ShrinkbenchError(
            "the errors along the line are not all finite (infinite, or no numbers); one "
            "of the networks has diverged"
        )
    return Connectivity(places, errors)


def _number(value: object) -> float:
    """What somebody's function gave, as a number."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise ShrinkbenchError(
            f"error(network) gave {one_line(repr(value), 60)}, which is no number; let it return one, such as "
            "1 - top-1"
        ) from None


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _check(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    odd = first.keys() ^ second.keys()
    odd |= {name for name in first.keys() & second.keys() if first[name].shape != second[name].shape}
    if odd:
        raise ShrinkbenchError(
            f"the two networks are not of one architecture ('{min(odd)}' differs); compare networks of equal "
            "shapes, masked and not cut"
        )


@torch.no_grad()
def _moved(network: nn.Module, first: dict[str, Tensor], second: dict[str, Tensor], place: float) -> nn.Module:
    state = {
        name: torch.lerp(a, second[name].to(a), place) if a.is_floating_point() else a
        for name, a in first.items()
    }
    network.load_state_dict(state)
    return network
