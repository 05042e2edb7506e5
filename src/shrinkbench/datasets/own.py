"""A dataset of one's own, named by its file (``FILE.py:NAME``): a function that returns the splits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shrinkbench.datasets.card import DATASETS, Batch, Dataset, DatasetCard
from shrinkbench.datasets.memory import InMemoryImages, check_count, check_pass
from shrinkbench.datasets.revision import content_digest, revision_of
from shrinkbench.datasets.splits import balanced_order
from shrinkbench.errors import ShrinkbenchError, said_by
from shrinkbench.spec import Normalisation

HOLD_OUT = 10
_SHAPE = "let it return (train, validation, test) or (train, test), each a pair of tensors (inputs, targets)"


@dataclass(frozen=True)
class InMemoryExamples:
    """An :class:`~shrinkbench.datasets.card.ImageSource` over tensors of any kind, taken as they are.

    ``inputs`` and ``targets`` have one row per example. Nothing is normalised or augmented.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def labels(self) -> Tensor:
        """The targets."""
        return self.targets

    def select(self, rows: Tensor) -> InMemoryExamples:
        """The examples at ``rows`` (int64, any order)."""
        return InMemoryExamples(self.inputs[rows], self.targets[rows])

    def subset(self, count: int) -> InMemoryExamples:
        """The first ``count`` examples; of labelled ones, of the order that takes one of each class in turn."""
        check_count(count, len(self))
        order = balanced_order(self.targets) if are_labels(self.targets) else torch.arange(len(self))
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
    ) -> Iterator[Batch]:
        """Yield every example once, in shuffled order exactly when ``generator`` is given."""
        check_pass(batch_size, generator=generator, augment=augment)
        order = torch.arange(len(self))
        if generator is not None:
            order = torch.randperm(len(self), generator=generator, device=generator.device).cpu()
        return self._passes(order, batch_size, torch.device(device))

    def _passes(self, order: Tensor, batch_size: int, device: torch.device) -> Iterator[Batch]:
        for rows in order.split(batch_size):
            yield self.inputs[rows].to(device), self.targets[rows].to(device)


def are_labels(targets: Tensor) -> bool:
    """Whether targets are classes: whole numbers from 0, one per example."""
    return targets.dtype == torch.int64 and targets.dim() == 1 and bool((targets >= 0).all())


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
    takes = len(inspect.signature(make).parameters)
    if data is not None and not takes:
        raise ShrinkbenchError(
            f"'{card.name}' takes no folder, and --data gives {data}; let the function take one, or leave "
            "--data out"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        with said_by(f"'{card.name}'"):
            made = make(data) if takes else make()
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
    targets = torch.cat([part.labels for part in parts])
    classes = int(targets.max()) + 1 if are_labels(targets) else 0
    inputs = _inputs(parts[0])
    images = isinstance(parts[0], InMemoryImages)
    plain = Normalisation(mean=(0.0,) * inputs.shape[1], std=(1.0,) * inputs.shape[1])
    return Dataset(
        card=replace(
            card,
            num_classes=classes or None,
            image_shape=tuple(inputs.shape[1:]),
            normalisation=plain if images else card.normalisation,
        ),
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        revision=revision_of(card, *(content_digest(_inputs(part), part.labels) for part in parts)),
        class_names=tuple(str(number) for number in range(classes)),
        example=None if images or inputs.is_floating_point() else inputs[:1],
    )


def _inputs(source: InMemoryImages | InMemoryExamples) -> Tensor:
    return source.images if isinstance(source, InMemoryImages) else source.inputs


def _parts(card: DatasetCard, made: Any) -> Sequence[Any]:
    if not isinstance(made, tuple | list):
        raise ShrinkbenchError(f"'{card.name}' returned a {type(made).__name__}; {_SHAPE}")
    if len(made) not in (2, 3):
        raise ShrinkbenchError(f"'{card.name}' returned {len(made)} splits; {_SHAPE}")
    if any(isinstance(part, Tensor | np.ndarray) for part in made):
        raise ShrinkbenchError(f"'{card.name}' returned tensors in place of pairs of them; {_SHAPE}")
    return made


def _source(card: DatasetCard, part: Any) -> InMemoryImages | InMemoryExamples:
    """One split: a pair of tensors or arrays, or a dataset of torch that is read whole."""
    if not isinstance(part, tuple | list):
        if not hasattr(part, "__getitem__") or not hasattr(part, "__len__"):
            raise ShrinkbenchError(f"a split of '{card.name}' is a {type(part).__name__}; {_SHAPE}")
        with said_by(f"a split of '{card.name}', read row by row,"):
            rows = [part[number] for number in range(len(part))]
            part = tuple(torch.stack([torch.as_tensor(row[place]) for row in rows]) for place in (0, 1))
    if len(part) != 2:
        raise ShrinkbenchError(f"a split of '{card.name}' holds {len(part)} things; {_SHAPE}")
    with said_by(f"a split of '{card.name}', taken as two tensors,"):
        inputs, targets = (torch.as_tensor(value) for value in part)
    if len(inputs) != len(targets) or not len(inputs):
        raise ShrinkbenchError(
            f"a split of '{card.name}' has {len(inputs)} inputs and {len(targets)} targets; give one target "
            "for each of at least one input"
        )
    if inputs.dtype == torch.uint8 and inputs.dim() == 4 and are_labels(targets):
        return InMemoryImages(inputs, targets, pad=0)
    inputs = inputs.float() if inputs.is_floating_point() or inputs.dtype == torch.uint8 else inputs
    return InMemoryExamples(inputs, targets.float() if targets.is_floating_point() else targets)
