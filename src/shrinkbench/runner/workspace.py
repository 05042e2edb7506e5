"""Where things lie and what they run on: the part of a run that is not in its key."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from shrinkbench.datasets import (
    DATASETS,
    Dataset,
    DatasetCard,
    ExtraImages,
    ImageSource,
    load_dataset,
    load_extra,
)
from shrinkbench.errors import InputError, ShrinkbenchError, of_input
from shrinkbench.files import absolute
from shrinkbench.models import ModelCard, example_for, shape_for
from shrinkbench.network.inputs import Inputs
from shrinkbench.registry import Registry
from shrinkbench.runner.repeatable import compute_repeatably
from shrinkbench.runner.shares import visible_gpus
from shrinkbench.spec import DataSpec, ExtraSpec, ModelSpec, Normalisation, SeedsAdded
from shrinkbench.spec.measures import EpochRecord
from shrinkbench.training.team import ALONE, Team, is_head

EVALUATION_BATCH = 128
Kept = Literal["masks", "weights"]
_GPU = re.compile(r"cuda:(?P<index>[0-9]{1,3})")


@dataclass(frozen=True)
class Workspace:
    """Places and device. ``data`` maps dataset names to folders, ``""`` to the one for all others;
    ``weights`` maps the SHA-256 of a weights file to its path. ``latency`` names the batch sizes at which
    pruned networks are timed, ``keep`` says by key which networks are stored beside their results, and how much
    of them. ``on_epoch`` is told of every epoch of a run's trainings once its state is on disk. ``team`` are
    the processes that carry a run out together, ``log_to`` a tool that is told of it too. With
    ``train_smaller``, trainings that only uphold masks run on the physically smaller network where that is the
    same computation; ``compiled`` sends the steps of those that uphold masks, and of pretraining, through
    ``torch.compile``. ``seeds_added`` are rules by which seeds are added until decided, which results record.
    Places are absolute: a method may change to another folder."""

    root: Path
    data: Mapping[str, Path] = field(default_factory=dict)
    weights: Mapping[str, Path] = field(default_factory=dict)
    device: str = "cpu"
    latency: tuple[int, ...] = ()
    keep: Mapping[str, Kept] = field(default_factory=dict)
    on_epoch: Callable[[EpochRecord], None] | None = None
    team: Team = ALONE
    log_to: str | None = None
    train_smaller: bool = False
    compiled: bool = False
    seeds_added: SeedsAdded | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", absolute(self.root))
        for name in ("data", "weights"):
            places = {key: absolute(path) for key, path in getattr(self, name).items()}
            object.__setattr__(self, name, places)
        compute_repeatably(self.device)

    @property
    def checkpoint_label(self) -> str:
        """What tells checkpoints apart that trainings of another kind cannot go on from."""
        return "-compiled" if self.compiled else ""

    @property
    def writes(self) -> bool:
        """Whether this process stores what it finds: of a team only the head does."""
        return is_head(self.team)

    def sees(self, look: Callable[[], bool]) -> bool:
        """What the head finds by ``look``, which may set files aside: all processes of a team go on alike."""
        return self.team.tell(self.writes and look())

    def dataset(self, name: str) -> Dataset:
        """The dataset, loaded once per process."""
        with of_input():
            return _load(name, self.data.get(name, self.data.get("")), DATASETS.get(name))

    def extra(self, name: str, *, revision: str | None = None) -> ExtraImages:
        """The further evaluation split, loaded once per process; its folder is given by its own name.

        One whose content is not of the ``revision`` that was planned is refused.
        """
        with of_input():
            extra = _load_extra(name, self.data.get(name))
        _check_revision(f"the extra evaluation '{name}'", extra.revision, revision or extra.revision)
        return extra


@lru_cache(maxsize=4)
def _load_extra(name: str, path: Path | None) -> ExtraImages:
    return load_extra(name, path)


@lru_cache(maxsize=4)
def _load(name: str, path: Path | None, _: DatasetCard) -> Dataset:
    """The dataset; of one name there may be several cards, as of copies of one file."""
    return load_dataset(name, path)


def forget_datasets() -> None:
    """Let the next to ask for a dataset read it again: other content may lie there since the last sweep."""
    _load.cache_clear()
    _load_extra.cache_clear()


def resolve_device(name: str) -> str:
    """``cpu`` or ``cuda``: ``auto`` takes CUDA where there is any; asking for what is absent is an error.

    ``cuda:N`` is ``cuda`` too: which GPU a process sees is decided where it starts (:func:`gpus_of`). What is
    computed on it by this process repeats from here on (:func:`compute_repeatably`).
    """
    device = _resolve(name)
    compute_repeatably(device)
    return device


def _resolve(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") and not _GPU.fullmatch(name):
        raise ShrinkbenchError(f"unknown device '{name}'; choose auto, cpu, cuda or one GPU as cuda:0")
    if name != "cpu" and not torch.cuda.is_available():
        raise ShrinkbenchError("there is no CUDA device on this machine; use --device cpu or auto")
    return "cpu" if name == "cpu" else "cuda"


def select_device(name: str) -> str:
    """:func:`resolve_device`, for a task in this process: of ``cuda:N`` that GPU is the one it uses."""
    device, single = resolve_device(name), _GPU.fullmatch(name)
    if single is not None:
        gpus_of(name)  # told where there is no such GPU
        torch.cuda.set_device(int(single["index"]))
    return device


def gpus_of(device: str) -> tuple[str, ...]:
    """The GPUs of this machine that ``device`` means, by the names that CUDA_VISIBLE_DEVICES takes."""
    if resolve_device(device) == "cpu":
        return ()
    single = _GPU.fullmatch(device)
    index = int(single["index"]) if single else None
    return visible_gpus(torch.cuda.device_count(), visible=os.environ.get("CUDA_VISIBLE_DEVICES"), index=index)


def _check_revision(what: str, found: str, planned: str, *, made: bool = False) -> None:
    """Refuse content that is not what a run's key says: another process may have loaded it, at another time.

    What is ``made`` by code may be another each time, where that draws random numbers of its own.
    """
    if found != planned:
        seeds = ", or seed what its file draws at random" if made else ""
        raise InputError(
            f"{what} has changed since the run was planned: its digest begins with {found[:12]}, not "
            f"{planned[:12]}; put the old data back, or start the sweep again to plan with the new{seeds}"
        )


def check_source(registry: Registry[Any], spec: DataSpec | ModelSpec | ExtraSpec) -> None:
    """Refuse a name whose code from outside this package is not what the run's key says."""
    with of_input():
        found = registry.source(spec.name)
    if found != spec.source:
        raise InputError(
            f"the code of the {registry.kind} '{spec.name}' is not what it was when the run was planned; give "
            "the sweep again, so that the run is planned anew"
        )


@dataclass(frozen=True)
class BoundData:
    """A dataset bound to subset, normalisation and device: what training and evaluation read.

    A dataset whose revision is not that of ``spec`` is refused.
    """

    dataset: Dataset
    spec: DataSpec
    device: str

    def __post_init__(self) -> None:
        check_source(DATASETS, self.spec)
        found, made = self.dataset.revision, self.spec.source is not None
        _check_revision(f"the dataset '{self.spec.name}'", found, self.spec.revision, made=made)

    @property
    def train_source(self) -> ImageSource:
        """The training images of this run."""
        return _subset(self.dataset.train, self.spec.train_images)

    def train(
        self, batch_size: int, *, generator: torch.Generator, augment: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled training batches of one epoch."""
        return self._batches(self.train_source, batch_size, generator, augment=augment)

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Validation batches in fixed order."""
        return self._batches(_subset(self.dataset.validation, self.spec.validation_images), EVALUATION_BATCH)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Test batches in fixed order."""
        return self._batches(_subset(self.dataset.test, self.spec.test_images), EVALUATION_BATCH)

    def extra(self, images: ExtraImages) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of a further evaluation split, normalised as the run's own images."""
        return self._batches(images.images, EVALUATION_BATCH)

    def _batches(
        self,
        source: ImageSource,
        batch_size: int,
        generator: torch.Generator | None = None,
        *,
        augment: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return source.batches(
            batch_size,
            normalisation=self.spec.normalisation,
            generator=generator,
            augment=augment,
            device=self.device,
            memory_format=torch.channels_last,
        )


def example_of(card: ModelCard, dataset: Dataset) -> Inputs:
    """What the network ``card`` takes of ``dataset``: an example of its own, or floats of its images' shape."""
    shape = dataset.card.image_shape
    if dataset.example is not None:
        return Inputs.of(dataset.example)
    return example_for(card, shape_for(card, shape))


def _subset(source: ImageSource, count: int | None) -> ImageSource:
    return source if count is None else source.subset(count)


def normalisation_for(dataset: Dataset, of_weights: Normalisation | None) -> Normalisation:
    """The weights' own normalisation where one is known, else the dataset's."""
    return of_weights or dataset.card.normalisation
