"""Masks that other tools have left in a file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.state_dicts import masked_names, read_entries, with_masks_applied, with_names_of
from shrinkbench.models.weights import load_weights
from shrinkbench.pruning.masks import Masks


def import_masks(module: nn.Module, path: Path | str, *, entry: str | None = None) -> Masks:
    """Load the checkpoint at ``path`` into ``module`` and return the masks that it holds.

    They are those of ``torch.nn.utils.prune`` (``X_orig`` and ``X_mask``), and zeros of other weights (see
    :meth:`Masks.from_module`). ``entry`` is as for :func:`shrinkbench.models.load_weights`. Raises
    ``ShrinkbenchError`` where nothing is pruned, and for networks that were made smaller.
    """
    file = Path(path).expanduser()
    state = read_entries(file, entry=entry, own=module.state_dict())
    masked, plain = set(masked_names(state)), with_masks_applied(state)
    own = {name: p.shape for name, p in module.named_parameters()}
    found = with_names_of(own, plain, file)
    smaller = [n for n, shape in own.items() if n in found and found[n].numel() < shape.numel()]
    if smaller:
        raise ShrinkbenchError(
            f"{file} holds a smaller network ('{smaller[0]}' is {tuple(found[smaller[0]].shape)}, not "
            f"{tuple(own[smaller[0]])}), of which masks cannot be told; measure it as the network that it is"
        )
    load_weights(module, file, entry=entry)
    if not masked:
        return Masks.from_module(module)
    whole = {
        n: state[f"{n}_mask"] != 0 if n in masked else (value != 0) | (value.dim() < 2)
        for n, value in plain.items()
    }
    masks = with_names_of(own, whole, file)
    pruned = {name: masks[name] for name in own if not bool(masks[name].all())}
    if not pruned:
        raise ShrinkbenchError(f"the masks in {file} keep every weight, so that nothing is pruned; give others")
    return Masks(pruned)
