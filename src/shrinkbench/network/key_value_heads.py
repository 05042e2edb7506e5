"""Heads of attention with separate projections, and groups of heads that share their keys and values.

Found by what is multiplied: a linear layer that reads the result of a product of products of three others is
the output projection of an attention, and the width of that product is one head's. A key-value head leaves
with every query head that reads it (Ainslie et al. 2023).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from shrinkbench.network.attention import Role
from shrinkbench.network.dataflow import Step, read_flow
from shrinkbench.network.groups import Group, Slice
from shrinkbench.network.weights import layer_of

_MOST_GUESSES = 32


def read_key_value_heads(
    module: nn.Module, input_shape: tuple[int, ...], proven: Callable[[Group], bool]
) -> list[Group]:
    """Every group of key-value heads; ``proven``: whether one can be cut with the settings that it names."""
    steps = read_flow(module, input_shape).steps
    found: list[Group] = []
    chosen: dict[object, tuple[str, ...]] = {}
    for step in steps:
        group = _group_of(module, step, steps)
        if group is None:
            continue
        holder = _common_parent([layer_of(step.parameter), *group.layers("produces")])
        numbers = _numbers(module.get_submodule(holder))
        alike = (type(module.get_submodule(holder)), tuple(numbers.items()), group.units)
        per_unit = _amounts(group)
        if alike not in chosen:
            guesses = (_with(group, holder, names, numbers) for names in _guesses(numbers, per_unit))
            right = next((g for g in guesses if proven(g)), None)
            chosen[alike] = tuple(name for _, name, _ in right.settings) if right else ()
        found.append(_with(group, holder, chosen[alike], numbers))
    return found


def _group_of(module: nn.Module, step: Step, steps: tuple[Step, ...]) -> Group | None:
    """The heads whose output ``step`` projects, without settings; ``None`` for everything else."""
    names = (step.parameter, *step.sources)
    if step.head_size is None or len(step.sources) != 3 or any(n.rpartition(".")[2] != "weight" for n in names):
        return None
    layers = {name: module.get_submodule(layer_of(name)) for name in names}
    used = [other for other in steps if other.parameter in names or other.sources & step.sources]
    if not all(isinstance(layer, nn.Linear) for layer in layers.values()) or len(used) != len(names):
        return None  # another layer reads them too, or one of them runs twice
    size, inner = step.head_size, module.get_parameter(step.parameter).shape[1]
    rows = {name: module.get_parameter(name).shape[0] for name in step.sources}
    narrow = min(rows.values())
    wide = [name for name, width in rows.items() if width == inner]
    if sorted(rows.values())[1:] not in ([narrow, inner], [inner, inner]) or narrow % size or inner % narrow:
        return None
    queries = wide if narrow < inner else wide[:1]
    order = {name: number for number, (name, _) in enumerate(module.named_parameters())}
    slices: list[Slice] = []
    for name in (*queries, *sorted(step.sources - set(queries), key=lambda n: order[n])):
        unit = torch.arange(rows[name]) // (rows[name] * size // narrow)
        slices += _rows(name, layers[name], unit, "produces")
    unit = torch.arange(inner) // (inner * size // narrow)
    slices.append(Slice(step.parameter, 1, unit, "consumes"))
    return Group(layer_of(slices[0].tensor), "key-value heads", narrow // size, tuple(slices))


def _rows(name: str, layer: nn.Module, unit: Tensor, role: Role) -> Iterator[Slice]:
    yield Slice(name, 0, unit, role)
    if isinstance(layer.bias, Tensor):
        yield Slice(f"{layer_of(name)}.bias".removeprefix("."), 0, unit, role)


def _common_parent(paths: list[str]) -> str:
    split = [path.split(".")[:-1] for path in paths]
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*split, strict=False))
    return ".".join(parts[0] for parts in shared)


def _numbers(holder: nn.Module) -> dict[str, int]:
    """The whole numbers above one that ``holder`` remembers."""
    return {name: n for name, n in vars(holder).items() if isinstance(n, int) and type(n) is not bool and n > 1}


def _amounts(group: Group) -> frozenset[int]:
    """What a number that counts heads, or the width of all of them, is in a network with those of ``group``."""
    widths = {len(piece.unit) for piece in group.slices}
    size = min(widths) // group.units
    return frozenset(n for width in widths for n in (width, width // size))


def _guesses(numbers: dict[str, int], amounts: frozenset[int]) -> Iterator[tuple[str, ...]]:
    """Which of the numbers fall with the heads: all that could, then fewer; the proof decides."""
    names = [name for name, number in numbers.items() if number in amounts]
    subsets = (some for n in range(len(names), -1, -1) for some in itertools.combinations(names, n))
    return itertools.islice(subsets, _MOST_GUESSES)


def _with(group: Group, holder: str, names: tuple[str, ...], numbers: dict[str, int]) -> Group:
    settings = tuple((holder, name, numbers[name] // group.units) for name in names)
    return replace(group, settings=settings)
