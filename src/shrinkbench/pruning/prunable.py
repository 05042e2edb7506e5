"""Which parameters of a network may be pruned, and which are left whole and named."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence, Set
from fnmatch import fnmatchcase
from itertools import accumulate

from torch import nn

from shrinkbench.errors import LeftWholeWarning, ShrinkbenchError
from shrinkbench.network.inputs import Example
from shrinkbench.network.probe import Trace, classifier_of, layer_parameters, require_materialised, trace
from shrinkbench.network.weights import (
    bias_parameters,
    embedding_parameters,
    layer_of,
    looked_up,
    recurrent_weights,
    weight_parameters,
    weights_without_parameter,
)
from shrinkbench.pruning.units import Structure


def prunable_names(
    module: nn.Module,
    *,
    input_shape: Example | None,
    prune_classifier: bool = False,
    prune_biases: bool = False,
    prune_embeddings: bool = False,
    ignore: Sequence[str] = (),
) -> tuple[str, ...]:
    """Names of the parameters that may be pruned, in the module's order.

    Weights of convolutions, linear layers and attention projections; the layer that produces the logits is
    left out unless ``prune_classifier``, biases unless ``prune_biases``, and tables that are looked up (of
    tokens, positions, types) unless ``prune_embeddings``. A table that makes the logits too, if tied,
    is the classifier, one tensor, and goes by ``prune_classifier`` alone. Batch-norm and other parameters never
    take part. ``input_shape`` (without batch dimension, or example inputs) is needed to find the classifier,
    and weights that multiply nothing; these, and weights computed without keeping zeros, a
    ``LeftWholeWarning`` names. Left out are layers whose path, or a part of it from the left, one of the globs
    ``ignore`` matches.
    """
    require_materialised(module)
    weights = frozenset(weight_parameters(module))
    tables = frozenset(embedding_parameters(module)) if prune_embeddings else frozenset[str]()
    names = weights | tables | (set(bias_parameters(module)) if prune_biases else set())
    left = _named(
        weights_without_parameter(module),
        "computed by the layer in a way that keeps no zeros in their places (torch's remove_parametrizations "
        "makes parameters)",
    )
    left += _named(recurrent_weights(module), "of a recurrent layer, whose weights no method here prunes")
    outputs: frozenset[str] = frozenset()
    if input_shape is not None:
        traced = trace(module, input_shape)
        _name_unread(module, names - traced.read)
        idle = (weights - traced.multiplied) & traced.read
        if not prune_classifier:
            outputs = classifier_of(module, traced) | (tables & traced.logits)
        left += _left_by_trace(module, traced, idle, tables, outputs)
        names -= layer_parameters(module, idle | outputs)
    elif not prune_classifier:
        raise ShrinkbenchError(
            "the classifier layer is kept, and finding it takes a forward pass; pass batches= or "
            "input_shape=(channels, height, width), example_inputs= where other things go in, or "
            "prune_classifier=True"
        )
    names -= _ignored(names, ignore)
    if not names and ignore:
        raise ShrinkbenchError(f"ignore={list(ignore)} leaves nothing to prune; leave out one of its globs")
    if not names:
        spared = _named(sorted(outputs), "kept because the outputs are written there (see prune_classifier)")
        reason = "; ".join([*left, *spared]) or "no convolution or linear layer"
        raise ShrinkbenchError(f"the network has no prunable weights: {reason}")
    if left:
        warnings.warn(f"left whole: {'; '.join(left)}", LeftWholeWarning, stacklevel=2)
    return tuple(name for name, _ in module.named_parameters() if name in names)


def _left_by_trace(
    module: nn.Module, traced: Trace, idle: Set[str], tables: Set[str], outputs: Set[str]
) -> list[str]:
    """What a pass shows to stay whole, and why."""
    left = _named(sorted(idle), "used by no product of a pass in evaluation mode")
    loose = [name for name in _loose_matrices(module, traced) if name not in tables]
    left += _named(loose, "of no layer that is pruned here, and multiplied by")
    tied = sorted(tables & outputs)
    return left + _named(tied, "also the layer of the logits, which prune_classifier frees")


def require_structure_takes(structure: Structure, module: nn.Module, names: Iterable[str]) -> None:
    """Refuse tables that are looked up where ``structure`` removes outputs, inputs or places of a product."""
    tables = looked_up(module).intersection(names)
    if tables and not structure.takes_tables:
        raise ShrinkbenchError(
            f"'{min(tables)}' is an embedding, which is looked up and is the weight of no layer that "
            f"multiplies, so that the structure '{structure.name}' has no units in it; leave prune_embeddings "
            "out (or ignore it), or choose a method of single weights"
        )


def _loose_matrices(module: nn.Module, traced: Trace) -> list[str]:
    """Matrices that a module multiplies by itself, such as those of a mixture of experts."""
    known = {id(parameter) for parameter in weight_parameters(module).values()}
    recurrent = recurrent_weights(module)
    return [
        name
        for name, parameter in module.named_parameters()
        if (name in traced.by_parameter or name in traced.hidden)
        and id(parameter) not in known
        and name not in recurrent
        and parameter.dim() > 1
        and ".parametrizations." not in name  # these are told of with the weight that they make
    ]


def _ignored(names: Set[str], globs: Sequence[str]) -> set[str]:
    """Those of ``names`` whose layer, or a module around it, a glob matches."""
    found: set[str] = set()
    for glob in globs:
        matched = {
            name
            for name in names
            if any(fnmatchcase(path, glob) for path in accumulate(name.split("."), "{}.{}".format))
        }
        if not matched:
            raise ShrinkbenchError(
                f"ignore='{glob}' matches no layer that could be pruned; write a path such as "
                f"'{layer_of(min(names))}', or a glob"
            )
        found |= matched
    return found


def _named(names: Sequence[str], reason: str) -> list[str]:
    """The first of ``names``, how many more there are, and why; nothing where there is none."""
    if not names:
        return []
    others = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return [f"'{names[0]}'{others} {reason}"]


class UnreadWarning(UserWarning):
    """Prunable parameters that an evaluation never reads: removing them costs and saves nothing there."""


def _name_unread(module: nn.Module, unread: Set[str]) -> None:
    sizes = {name: p.numel() for name, p in module.named_parameters() if name in unread}
    if sizes:
        several = f" and {len(sizes) - 3} more tensors" if len(sizes) > 3 else ""
        named = ", ".join(f"'{name}'" for name in list(sizes)[:3])
        warnings.warn(
            f"an evaluation of the network never reads {named}{several} ({sum(sizes.values()):,} parameters): "
            "they count towards compression but not towards speedup, and whole channels of theirs cannot leave",
            UnreadWarning,
            stacklevel=3,
        )
