"""The weights of a network by name, those included that a layer computes from other parameters.

A weight that is normalised, or was pruned with torch's own tools, is no parameter. Its layer is pruned through
the parameter behind it where masking that makes the same entries zero.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from shrinkbench.errors import ShrinkbenchError

_WEIGHTS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.modules.conv._ConvNd: ("weight",),
    nn.Linear: ("weight",),
    nn.Bilinear: ("weight",),
    nn.MultiheadAttention: ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
}
_LOOKED_UP: dict[type[nn.Module], tuple[str, ...]] = {nn.Embedding: ("weight",), nn.EmbeddingBag: ("weight",)}
_BIASES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.modules.conv._ConvNd: ("bias",),
    nn.Linear: ("bias",),
    nn.Bilinear: ("bias",),
    nn.MultiheadAttention: ("in_proj_bias", "bias_k", "bias_v"),
}


@dataclass(frozen=True)
class Weight:
    """The tensor ``attribute`` of the layer at ``path``, and the ``parameter`` that stands for it, by its name.

    ``parameter`` is ``None`` where the tensor is computed in a way that does not keep zeros.
    """

    path: str
    attribute: str
    layer: nn.Module
    parameter: str | None

    @property
    def computed(self) -> bool:
        """Whether the tensor is no parameter itself."""
        return _is_computed(self.layer, self.attribute)


def is_transposed_linear(layer: nn.Module) -> bool:
    """Whether ``layer`` is a linear layer that lays its weight out as (inputs, outputs), as GPT-2's do."""
    return type(layer).__name__ == "Conv1D" and type(layer).__module__ == "transformers.pytorch_utils"


def _each(module: nn.Module, kinds: Mapping[type[nn.Module], Sequence[str]]) -> Iterator[Weight]:
    for path, layer in module.named_modules():
        prefix = f"{path}." if path else ""
        names = next((names for kind, names in kinds.items() if isinstance(layer, kind)), ())
        for name in kinds.get(nn.Linear, ()) if is_transposed_linear(layer) else names:
            if _is_computed(layer, name):
                behind = _parameter_behind(layer, name)
                yield Weight(path, name, layer, None if behind is None else prefix + behind)
            elif isinstance(getattr(layer, name, None), nn.Parameter):
                yield Weight(path, name, layer, prefix + name)


def _is_computed(layer: nn.Module, name: str) -> bool:
    return is_parametrized(layer, name) or isinstance(layer.__dict__.get(name), Tensor)


def _parameters_of(
    module: nn.Module, kinds: Mapping[type[nn.Module], Sequence[str]]
) -> dict[str, nn.Parameter]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}  # of an embedding, if tied
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for weight in _each(module, kinds):
        if weight.parameter is not None:
            parameter = module.get_parameter(weight.parameter)
            found.setdefault(id(parameter), (names[id(parameter)], parameter))
    return dict(found.values())


def weight_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of convolutions, linear layers and attention projections, by name; a tied weight once.

    Its name is the one that the module's own ``named_parameters`` has for it, be it that of an embedding.

    >>> list(weight_parameters(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))))
    ['0.weight']
    """
    return _parameters_of(module, _WEIGHTS)


def embedding_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Tables that are looked up, of tokens, positions or types, by name; a tied one once.

    One that a linear layer multiplies by too is among :func:`weight_parameters` as well.
    """
    return _parameters_of(module, _LOOKED_UP)


def looked_up(module: nn.Module) -> frozenset[str]:
    """Tables of :func:`embedding_parameters` that no linear layer multiplies by."""
    return frozenset(embedding_parameters(module).keys() - weight_parameters(module).keys())


def bias_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Biases of the layers that :func:`weight_parameters` covers."""
    return _parameters_of(module, _BIASES)


def weights_without_parameter(module: nn.Module) -> tuple[str, ...]:
    """Weights that are computed in a way that does not keep zeros, which no mask can prune."""
    return tuple(
        f"{w.path}.{w.attribute}" if w.path else w.attribute
        for w in _each(module, _WEIGHTS)
        if w.parameter is None
    )


def recurrent_weights(module: nn.Module) -> tuple[str, ...]:
    """Matrices of recurrent layers (LSTM, GRU, RNN and their cells), which are not among the weights."""
    kinds = (nn.RNNBase, nn.RNNCellBase)
    return tuple(
        f"{path}.{name}" if path else name
        for path, layer in module.named_modules()
        if isinstance(layer, kinds)
        for name, parameter in layer.named_parameters(recurse=False)
        if parameter.dim() > 1
    )


def layer_of(parameter: str) -> str:
    """The path of the layer that holds ``parameter``, be it behind a parametrisation.

    >>> layer_of("features.0.weight"), layer_of("0.parametrizations.weight.original1")
    ('features.0', '0')
    """
    path, found, _ = f".{parameter}".partition(".parametrizations.")
    return path[1:] if found else parameter.rpartition(".")[0]


def _parameter_behind(layer: nn.Module, name: str) -> str | None:
    """The parameter whose masked entries are the zeros of ``layer.name``, entry by entry.

    It is found by trying: weight and spectral normalisation and ``torch.nn.utils.prune`` have one, a weight
    that is made symmetric or orthogonal has none.
    """
    trial = in_mode(copy_of(layer), training=False)
    generator = torch.Generator().manual_seed(0)
    found = None
    with torch.inference_mode(mode=False), torch.no_grad():
        for parameter in trial.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + 1)
        whole = _compute(trial, name)
        for candidate, parameter in trial.named_parameters():
            named = candidate.startswith((f"{name}_", f"parametrizations.{name}."))
            if not named or parameter.shape != whole.shape:
                continue
            mask = (torch.rand(parameter.shape, generator=generator) < 0.5).to(parameter.device)
            values = parameter.clone()
            parameter.masked_fill_(~mask, 0)
            masked = _compute(trial, name).nan_to_num()
            parameter.copy_(values)
            if torch.equal(masked != 0, (whole != 0) & mask):
                found = candidate
    return found


def require_values(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Refuse ``masks`` that leave a computed weight without values: a norm of nothing divides by zero."""
    for weight in (*_each(module, _WEIGHTS), *_each(module, _LOOKED_UP)):
        if not weight.computed or weight.parameter is None or weight.parameter not in masks:
            continue
        trial = in_mode(copy_of(weight.layer), training=False)
        inside = weight.parameter.removeprefix(f"{weight.path}.")
        with torch.inference_mode(mode=False), torch.no_grad():
            parameter = trial.get_parameter(inside)
            parameter.masked_fill_(~masks[weight.parameter].to(parameter.device), 0)
            finite = bool(_compute(trial, weight.attribute).isfinite().all())
        if not finite:
            raise ShrinkbenchError(
                f"the masks leave nothing of an output of '{weight.path}', by whose norm its "
                f"{weight.attribute} is divided; remove_parametrizations (or remove_weight_norm) first"
            )


def hooks_on(module: nn.Module) -> tuple[int, ...]:
    """The hooks of forward passes that the layers of ``module`` carry, by number."""
    return tuple(n for m in module.modules() for n in (*m._forward_pre_hooks, *m._forward_hooks))


def require_present(module: nn.Module) -> None:
    """Refuse parameters on the meta device, which have a shape and no values."""
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            raise ShrinkbenchError(
                f"parameter '{name}' is on the meta device and has no values; load the network's weights first "
                "(load_state_dict(state, assign=True))"
            )


def _compute(layer: nn.Module, name: str) -> Tensor:
    """``layer.name`` of the layer's present parameters."""
    if not is_parametrized(layer, name):
        for hook in layer._forward_pre_hooks.values():  # those of torch's own tools set the attribute
            if _sets_a_weight(hook):
                hook(layer, ())
    weight: Tensor = getattr(layer, name)
    return weight.detach()


def _sets_a_weight(hook: object) -> bool:
    """Whether it is one of torch's tools, or of a kind made from one (own methods of torch.nn.utils.prune)."""
    return any(kind.__module__.startswith("torch.nn.utils.") for kind in type(hook).__mro__)


def with_parameters(module: nn.Module) -> nn.Module:
    """``module`` after the weights that layers compute have become parameters, in place."""
    for layer in [child for child in module.modules() if is_parametrized(child)]:
        lists = cast(nn.ModuleDict, layer.parametrizations)
        values = {name: getattr(layer, name).detach() for name in lists}
        # torch's own removal takes the weight from the class, and so from every copy of the layer.
        layer.__class__ = type(layer).__bases__[0]
        del layer.parametrizations
        for name, value in values.items():
            layer.register_parameter(name, nn.Parameter(value.clone()))
    for layer in module.modules():
        hooks = layer._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if _sets_a_weight(hook)]:
            computed = getattr(hooks[key], "name", getattr(hooks[key], "_tensor_name", None))
            if isinstance(computed, str) and isinstance(layer.__dict__.get(computed), Tensor):
                del hooks[key]
                value = layer.__dict__.pop(computed).detach().clone()
                layer.register_parameter(computed, nn.Parameter(value))
    return module


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """``module.load_state_dict``, strictly, of tensors alone.

    Some networks (MNASNet) ask a state dict for their own version, which files of tensors do not hold. Raises
    ``TypeError`` for numbers that would become others: whole or complex ones where the network has real ones.
    """
    for name, own in module.state_dict().items():
        given = tensors.get(name)
        if given is not None and own.is_floating_point() and not given.is_floating_point():
            raise TypeError(f"'{name}' is of {given.dtype} and the network's of {own.dtype}")
    state = OrderedDict(tensors)
    vars(state)["_metadata"] = getattr(module.state_dict(), "_metadata", None)
    module.load_state_dict(state)


def in_mode(module: nn.Module, *, training: bool) -> nn.Module:
    """``module`` in that mode: ``train()`` of some networks returns nothing (timm's LeViT)."""
    module.train(training)
    return module


def copy_of(module: nn.Module, *, sharing: Iterable[Tensor] = ()) -> nn.Module:
    """A deep copy but for the tensors that it is ``sharing``.

    Also where layers hold what they have computed, in attributes, lists or dictionaries, which torch refuses
    to copy: a weight of theirs, or the biases of an attention (timm's LeViT).
    """
    held = (tensor for child in module.modules() for value in vars(child).values() for tensor in _held(value))
    copies = {id(tensor): tensor.detach().clone() for tensor in held if not tensor.is_leaf}
    return copy.deepcopy(module, {**copies, **{id(tensor): tensor for tensor in sharing}})


def _held(value: object) -> Iterator[Tensor]:
    """The tensors of a nested value."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _held(inner)


def require_network(module: nn.Module) -> nn.Module:
    """``module``, unless it is no network: a class, a name, a state dict or a function is none."""
    given: object = module
    if isinstance(given, nn.Module):
        return module
    what = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
    raise ShrinkbenchError(
        f"a network is a torch.nn.Module, and this is {what}; make the network (build_model(NAME) for one that "
        "has a name), load its weights into it, and pass it"
    )
