"""Parameters and compression ratio, counted from masks and never from the values of weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.weights import require_network
from shrinkbench.spec.measures import LayerDensity


def count_parameters(module: nn.Module) -> int:
    """All parameters of ``module``, prunable or not; a tied parameter once; buffers never.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in require_network(module).parameters())


def require_shapes_of(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raise ``ShrinkbenchError`` where one of ``tensors`` is of no parameter, or of another shape."""
    parameters = dict(require_network(module).named_parameters(remove_duplicate=False))
    for name, tensor in tensors.items():
        if name not in parameters:
            raise ShrinkbenchError(f"the network has no parameter '{name}'; {_instead_of(name, parameters)}")
        if not isinstance(tensor, Tensor):
            raise ShrinkbenchError(f"the mask of '{name}' is a {type(tensor).__name__}; give a boolean tensor")
        if tensor.shape != parameters[name].shape:
            raise ShrinkbenchError(
                f"the mask of '{name}' has shape {tuple(tensor.shape)}, the parameter "
                f"{tuple(parameters[name].shape)}; these masks are for another network"
            )


def require_masks_of(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """:func:`require_shapes_of`, and refuse masks that are not boolean or by a tied weight's second name."""
    require_shapes_of(module, masks)
    parameters = dict(module.named_parameters())
    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise ShrinkbenchError(f"the mask of '{name}' is {mask.dtype}; give boolean ones: mask != 0")
        if name not in parameters:
            tied = module.get_parameter(name)
            first = next(known for known, parameter in parameters.items() if parameter is tied)
            raise ShrinkbenchError(f"'{name}' is another name of '{first}'; give its mask as '{first}'")


def _instead_of(name: str, parameters: Mapping[str, Tensor]) -> str:
    """What to do about a mask of ``name``, which no parameter has."""
    plain = name.replace("_orig_mod.", "").removeprefix("module.")
    for known in (plain, plain.removesuffix("_orig"), f"{plain}_orig"):
        if known in parameters:
            return f"give the mask of '{known}' under that name"
    return "these masks are for another network"


def count_kept(module: nn.Module, masks: Mapping[str, Tensor]) -> int:
    """Parameters that the masks keep; parameters without a mask are kept whole."""
    require_masks_of(module, masks)
    pruned = sum(mask.numel() - int(mask.sum()) for mask in masks.values())
    return count_parameters(module) - pruned


def layer_densities(module: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, LayerDensity]:
    """Kept and total weights of every masked parameter, in the module's order.

    >>> import torch
    >>> mask = torch.ones(2, 1, 3, 3, dtype=torch.bool)
    >>> mask[0] = False
    >>> layer_densities(nn.Conv2d(1, 2, 3), {"weight": mask})["weight"].positions
    (1, 1, 1, 1, 1, 1, 1, 1, 1)
    """
    return {name: _density(masks[name]) for name, _ in module.named_parameters() if name in masks}


def _density(mask: Tensor) -> LayerDensity:
    kernel = mask.flatten(2) if mask.dim() > 2 else mask.new_empty(0)
    return LayerDensity(
        kept=int(mask.sum()),
        total=mask.numel(),
        outputs=int(mask.flatten(1).any(1).sum() if mask.dim() > 1 else mask.sum()),
        positions=tuple(kernel.sum((0, 1)).tolist()) if kernel.dim() > 2 and kernel.shape[2] > 1 else (),
    )
