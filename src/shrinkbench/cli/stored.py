"""Networks as options name them: by a registered name, a Python file, or a folder that holds one."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shrinkbench.cli.notes import tell_notes
from shrinkbench.cli.options import parse_shape
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import exists, is_file, is_folder

if TYPE_CHECKING:
    from torch import nn

    from shrinkbench.datasets import Dataset
    from shrinkbench.pruning import Masks
    from shrinkbench.results.record import RunResult
    from shrinkbench.surgery.folders import NetworkDescription, StoredNetwork


@dataclass(frozen=True)
class Loaded:
    """A network with its masks (none where it is whole), and the folder and run that it comes from, if any."""

    module: nn.Module
    masks: Masks
    description: NetworkDescription
    folder: Path | None = None
    result: RunResult | None = None


def find_folder(model: str, weights: str | None) -> tuple[Path, str | None] | None:
    """The folder of a network that ``--model`` or ``--weights`` names, and the name that it has to have.

    A folder without a separator in its name gives way to a registered network of that name.
    """
    from shrinkbench.models import MODELS

    if weights is not None and is_folder(Path(weights)):
        return Path(weights), model
    if not is_folder(Path(model)) or (os.sep not in model and model in MODELS):
        return None
    if weights is not None:
        raise ShrinkbenchError(f"--model {model} is a folder, which brings its weights; leave --weights out")
    return Path(model), None


def load_folder(folder: Path, *, network: str | None = None) -> tuple[StoredNetwork, RunResult | None]:
    """The network in ``folder``; in that of a run, only what the run has written, with its result."""
    from shrinkbench.results.layout import RESULT_NAME
    from shrinkbench.surgery.folders import holds_network, is_of_run, read_network

    name = None if network is None else _registered(network)
    if is_file(folder / RESULT_NAME):
        from shrinkbench.runner.keeping import read_kept

        return read_kept(folder, network=name)
    if not holds_network(folder):
        raise ShrinkbenchError(
            f"the folder {folder} holds no network; name one that `shrink`, `weights` or `export` has written"
        )
    if is_of_run(folder):
        raise ShrinkbenchError(
            f"{folder} is that of a run, whose files are known by the {RESULT_NAME} beside them; put it back, "
            "or take 'key' out of network.json if you mean the files as they are"
        )
    return read_network(folder, network=name), None


def _registered(name: str) -> str:
    from shrinkbench.models import get_model

    return get_model(name).name


def load_network(
    model: str,
    *,
    weights: str | None = None,
    entry: str | None = None,
    masks: Path | None = None,
    input_shape: str | None = None,
    dataset: Dataset | None = None,
    complete: bool = False,
) -> Loaded:
    """The network, in evaluation mode, and the masks for it: those of a file, or of its folder."""
    from shrinkbench.pruning import Masks
    from shrinkbench.pruning.structures.channel_masks import complete_masks

    place = find_folder(model, weights)
    if place is not None:
        stored, result = load_folder(place[0], network=place[1])
        description, module, found = stored.description, stored.module, stored.masks
        if input_shape is not None and parse_shape(input_shape) != description.input_shape:
            raise ShrinkbenchError(f"{place[0]} states its input shape; leave --input-shape out")
        loaded = Loaded(module, found, description, place[0], result)
    else:
        loaded = _named(model, weights, entry, input_shape, dataset)
    if masks is not None:
        if not exists(masks):
            raise ShrinkbenchError(
                f"there is no file {masks}; write masks with `shrinkbench prune --masks-out`"
            )
        with tell_notes():
            given = Masks.load(masks, network=loaded.description.network)
        loaded = replace(loaded, masks=given, result=None)  # which was measured with others
    if complete:
        extended = complete_masks(loaded.module, loaded.masks, loaded.description.example)
        loaded = replace(loaded, masks=extended, result=None)
    return loaded


def _named(
    model: str, weights: str | None, entry: str | None, input_shape: str | None, dataset: Dataset | None
) -> Loaded:
    """A network by name, whole."""
    from shrinkbench.models import build, example_for, get_model, load_weights, shape_for
    from shrinkbench.pruning import Masks
    from shrinkbench.runner.workspace import example_of
    from shrinkbench.surgery.folders import NetworkDescription
    from shrinkbench.surgery.stored_inputs import StoredInputs

    card = get_model(model)
    if input_shape or dataset is None:
        inputs = example_for(card, parse_shape(input_shape) if input_shape else shape_for(card, None))
    else:
        inputs = example_of(card, dataset)
    classes = len(dataset.class_names) if dataset is not None else None
    module, normalisation = build(model, num_classes=classes), None
    if weights is not None:
        with tell_notes():
            normalisation = load_weights(module, weights, card=card, entry=entry).normalisation
    description = NetworkDescription(
        card.name,
        classes or card.num_classes or 0,
        tuple(inputs.tensors[0].shape[1:]),
        normalisation=normalisation,
        takes=StoredInputs.of(inputs),
    )
    module.eval()
    return Loaded(module, Masks({}), description)
