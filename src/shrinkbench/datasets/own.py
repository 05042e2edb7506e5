"""A dataset of one's own, named by its file (``FILE.py:NAME``): a function that returns the splits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.memory import InMemoryImages, check_count, check_pass
from shrinkbench.datasets.parquet import MOST_CLASSES
from shrinkbench.datasets.revision import content_digest, revision_of
from shrinkbench.datasets.splits import balanced_order
from shrinkbench.errors import ShrinkbenchError, one_line, said_by
from shrinkbench.network.inputs import TARGETS, Inputs, describe, form_of, map_tensors, tensors_in
from shrinkbench.spec import Normalisation

HOLD_OUT = 10
_SHAPE = "let it return (train, validation, test) or (train, test), each a pair of tensors (inputs, targets)"
_FORM = "give a pair (inputs, targets), several inputs as ((a, b), targets), or a dictionary with 'labels'"


@dataclass(frozen=True)
class InMemoryExamples:
    """An :class:`~shrinkbench.datasets.card.ImageSource` over tensors of any kind, taken as they are.

    ``inputs`` (a tensor, a tuple of several, a dictionary of named ones) and ``targets`` have one row per
    example. Nothing is normalised or augmented. Batches are pairs; where targets have a ``name``, they are
    dictionaries that hold them under it, and where there are none, inputs alone.
    """

    inputs: Any
    targets: Tensor | None
    name: str | None = None

    def __len__(self) -> int:
        return len(tensors_in(self.inputs)[0])

    @property
    def labels(self) -> Tensor:
        """The targets; without any, the first input."""
        return tensors_in(self.inputs)[0] if self.targets is None else self.targets

    @property
    def tensors(self) -> list[Tensor]:
        """All inputs, and the targets."""
        return [*tensors_in(self.inputs), *([] if self.targets is None else [self.targets])]

    def select(self, rows: Tensor) -> InMemoryExamples:
        """The examples at ``rows`` (int64, any order)."""
        inputs = map_tensors(lambda t: t[rows], self.inputs)
        return InMemoryExamples(inputs, None if self.targets is None else self.targets[rows], self.name)

    def subset(self, count: int) -> InMemoryExamples:
        """The first ``count`` examples; of labelled ones, of the order that takes one of each class in turn."""
        check_count(count, len(self))
        order = balanced_order(self.labels) if are_labels(self.labels) else torch.arange(len(self))
        return self.select(order[:count])

    def batches(
        self,
        batch_size: int,
        *,
        normalisation: Normalisation,
        generator: torch.Generator | None = None,
        augment: bool = False,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Iterator[Any]:
        """Yield every example once, in shuffled order exactly when ``generator`` is given."""
        check_pass(batch_size, generator=generator, augment=augment)
        order = torch.arange(len(self))
        if generator is not None:
            order = torch.randperm(len(self), generator=generator, device=generator.device).cpu()
        return self._passes(order, batch_size, torch.device(device))

    def _passes(self, order: Tensor, batch_size: int, device: torch.device) -> Iterator[Any]:
        for rows in order.split(batch_size):
            part = self.select(rows)
            inputs = map_tensors(lambda t: t.to(device), part.inputs)
            if part.targets is None:
                yield inputs
                continue
            targets = part.targets.to(device)
            yield (inputs, targets) if self.name is None else {**inputs, self.name: targets}


def are_labels(targets: Tensor) -> bool:
    """Whether targets are classes: whole numbers from 0 and below 2^20, one per example."""
    if targets.dtype != torch.int64 or targets.dim() != 1:
        return False
    return bool(((targets >= 0) & (targets < MOST_CLASSES)).all())


@DATASETS.take_objects
def _card_of(name: str, found: object) -> DatasetCard:
    """A card as it is, or one that loads by the function; nothing is read yet."""
    if isinstance(found, DatasetCard):
        return replace(found, name=name)
    if not callable(found):
        raise ShrinkbenchError(f"'{name}' is a {type(found).__name__}; name a function, and {_SHAPE}")
    summary = (inspect.getdoc(found) or "").partition("\n")[0]
    card = DatasetCard(name=name, description=summary, load=lambda data: _load(card, found, data))
    return card


def _load(card: DatasetCard, make: Callable[..., Any], data: Path | None) -> Dataset:
    """Call ``make``, with ``data`` where it takes a folder; torch's random numbers are the same each time."""
    parameters = inspect.signature(make).parameters.values()
    takes = len(parameters)
    if data is not None and not takes:
        raise ShrinkbenchError(
            f"'{card.name}' takes no folder, and --data gives {data}; let the function take one, or leave "
            "--data out"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        with said_by(f"'{card.name}'"):
            made = make(data) if takes and (data is not None or _wants_one(parameters)) else make()
    if isinstance(made, Dataset):
        return made
    parts = [_source(card, part) for part in _parts(card, made)]
    if len(parts) == 2:
        rows = torch.arange(len(parts[0]))
        held = rows % HOLD_OUT == HOLD_OUT - 1
        if not bool(held.any()):
            raise ShrinkbenchError(
                f"'{card.name}' returned {len(rows)} examples to train on, of which every tenth is held out "
                "for validation, and there is none; let it return (train, validation, test)"
            )
        parts.insert(1, parts[0].select(rows[held]))
        parts[0] = parts[0].select(rows[~held])
    _require_alike(card, parts)
    targets = torch.cat([part.labels for part in parts])
    classes = int(targets.max()) + 1 if are_labels(targets) else 0
    images, inputs = isinstance(parts[0], InMemoryImages), _inputs(parts[0])
    one = isinstance(inputs, Tensor)
    plain = Normalisation(mean=(0.0,) * inputs.shape[1], std=(1.0,) * inputs.shape[1]) if images else None
    plain_floats = images or (one and inputs.is_floating_point())
    forms = () if one else (form_of(Inputs.of(inputs)), str(getattr(parts[0], "name", None)))
    return Dataset(
        card=replace(
            card,
            num_classes=classes or None,
            image_shape=tuple(inputs.shape[1:]) if one else None,
            normalisation=plain or card.normalisation,
        ),
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        revision=revision_of(card, *forms, *(content_digest(*_tensors(part)) for part in parts)),
        class_names=tuple(str(number) for number in range(classes)),
        example=None if plain_floats else map_tensors(lambda t: t[:1], inputs),
    )


def _wants_one(parameters: Iterable[inspect.Parameter]) -> bool:
    """Whether a call without arguments fails."""
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is p.empty and p.kind not in collecting for p in parameters)


def _inputs(source: InMemoryImages | InMemoryExamples) -> Any:
    return source.images if isinstance(source, InMemoryImages) else source.inputs


def _tensors(source: InMemoryImages | InMemoryExamples) -> list[Tensor]:
    return [source.images, source.labels] if isinstance(source, InMemoryImages) else source.tensors


def _require_alike(card: DatasetCard, parts: Sequence[InMemoryImages | InMemoryExamples]) -> None:
    """Refuse splits of other inputs than those that are trained on: in number, names, dimensions or kind."""

    def form(part: InMemoryImages | InMemoryExamples) -> str:
        inputs = map_tensors(lambda t: (t.dim(), t.is_floating_point()), _inputs(part))
        return repr((type(part), inputs, part.labels.dim(), part.labels.is_floating_point()))

    other = next((part for part in parts if form(part) != form(parts[0])), None)
    if other is not None:
        shown = [one_line(describe((_inputs(part), part.labels)), 70) for part in (parts[0], other)]
        raise ShrinkbenchError(
            f"the splits of '{card.name}' differ: {shown[0]} and {shown[1]}; give the same inputs and targets "
            "in all"
        )


def _parts(card: DatasetCard, made: Any) -> Sequence[Any]:
    if not isinstance(made, tuple | list):
        raise ShrinkbenchError(f"'{card.name}' returned a {type(made).__name__}; {_SHAPE}")
    if len(made) not in (2, 3):
        raise ShrinkbenchError(f"'{card.name}' returned {len(made)} splits; {_SHAPE}")
    if any(isinstance(part, Tensor | np.ndarray) for part in made):
        raise ShrinkbenchError(f"'{card.name}' returned tensors in place of pairs of them; {_SHAPE}")
    return made


def _source(card: DatasetCard, part: Any) -> InMemoryImages | InMemoryExamples:
    """One split: inputs and targets, or a dataset of torch that is read whole."""
    if not isinstance(part, tuple | list | Mapping):
        if not hasattr(part, "__getitem__") or not hasattr(part, "__len__"):
            raise ShrinkbenchError(f"a split of '{card.name}' is a {type(part).__name__}; {_SHAPE}")
        with said_by(f"a split of '{card.name}', read row by row,"):
            part = _read_whole(card, part)
    if isinstance(part, Mapping):
        name = next((name for name in TARGETS if name in part), None)
        pair = {key: value for key, value in part.items() if key != name}, part[name] if name else None
    elif len(part) == 2:
        name, pair = None, tuple(part)
    else:
        raise ShrinkbenchError(f"a split of '{card.name}' holds {len(part)} things; {_FORM}")
    with said_by(f"a split of '{card.name}', taken as tensors,"):
        inputs = _as_tensors(pair[0])
        targets = None if pair[1] is None else _as_targets(torch.as_tensor(pair[1]))
    _require_rows(card, inputs, targets)
    images = isinstance(inputs, Tensor) and inputs.dtype == torch.uint8 and inputs.dim() == 4
    if images and targets is not None and are_labels(targets):
        return InMemoryImages(inputs, targets, pad=0)
    return InMemoryExamples(map_tensors(_as_floats, inputs), targets, name)


def _read_whole(card: DatasetCard, rows: Any) -> Any:
    """The rows of a dataset, which are pairs or dictionaries, as one pair or dictionary."""
    read = [rows[number] for number in range(len(rows))]
    if read and isinstance(read[0], Mapping):
        return _stacked(read)
    lengths = {len(row) if isinstance(row, tuple | list) else 1 for row in read}
    if lengths - {2}:
        raise ShrinkbenchError(f"a row of a split of '{card.name}' holds {max(lengths)} things; {_FORM}")
    return tuple(_stacked([row[place] for row in read]) for place in (0, 1))


def _stacked(rows: Sequence[Any]) -> Any:
    """Rows of a dataset as one: tuples and dictionaries of tensors with a row for each."""
    first = rows[0]
    if isinstance(first, Mapping):
        return {key: _stacked([row[key] for row in rows]) for key in first}
    if isinstance(first, tuple | list) and any(_holds_tensors(value) for value in first):
        return tuple(_stacked([row[place] for row in rows]) for place in range(len(first)))
    return torch.stack([torch.as_tensor(row) for row in rows])


def _holds_tensors(tree: Any) -> bool:
    """Whether ``tree`` is several inputs, and not rows of numbers."""
    if isinstance(tree, tuple | list):
        return any(map(_holds_tensors, tree))
    return isinstance(tree, Tensor | np.ndarray | Mapping)


def _as_tensors(tree: Any) -> Any:
    """``tree`` with tensors in place of arrays and lists: one input, a tuple of several or named ones."""
    if isinstance(tree, Mapping):
        return {key: _as_tensors(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and _holds_tensors(tree):
        return tuple(map(_as_tensors, tree))
    return torch.as_tensor(tree).detach()


def _as_targets(targets: Tensor) -> Tensor:
    """Floating numbers in single precision, and one whole number for each example as classes are."""
    if targets.is_floating_point():
        return targets.detach().float()
    whole = targets.dim() == 1 and targets.dtype != torch.bool and not targets.is_complex()
    return targets.long() if whole else targets


def _as_floats(tensor: Tensor) -> Tensor:
    """Floating numbers in single precision; bytes too, those of images from 0 to 1."""
    if tensor.dtype == torch.uint8:
        return tensor.float() / 255 if tensor.dim() == 4 else tensor.float()
    return tensor.float() if tensor.is_floating_point() else tensor


def _require_rows(card: DatasetCard, inputs: Any, targets: Tensor | None) -> None:
    """Refuse a split without examples, or whose tensors have not one row for each."""
    tensors = [*tensors_in(inputs), *([] if targets is None else [targets])]
    if any(tensor.is_meta for tensor in tensors):
        raise ShrinkbenchError(f"a split of '{card.name}' holds tensors without values (device meta)")
    counts = [len(tensor) if tensor.dim() else 0 for tensor in tensors]
    if len(tensors_in(inputs)) and len(set(counts)) == 1 and counts[0]:
        return
    told = f"{counts[0]} inputs and {counts[-1]} targets" if len(counts) == 2 else describe((inputs, targets))
    raise ShrinkbenchError(
        f"a split of '{card.name}' has {one_line(told, 120)}; give one row of each input and one target for "
        "each of at least one example"
    )
