"""Networks of Hugging Face's transformers from a folder: ``hf:FOLDER``, built by the ``config.json`` in it.

The folder is what ``save_pretrained`` writes. Nothing is downloaded, and no code of the folder is run. Its
weights are the entry ``folder`` (or ``default``); without them initial weights are drawn from the seed.
"""

from __future__ import annotations

import copy
import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import in_home, is_file, is_folder, parse_json, read_file
from shrinkbench.libraries import optional
from shrinkbench.models.card import MODELS, NO_PUBLIC_WEIGHTS, ModelCard, WeightsEntry
from shrinkbench.models.state_dicts import StateDict
from shrinkbench.sources import split_reference
from shrinkbench.spec import Normalisation

_PREFIX = "hf:"
_LARGEST_CONFIG = 16 << 20
_KINDS = {  # how an architecture's name ends -> transformers' class that builds it
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForImageClassification": "AutoModelForImageClassification",
}


def is_folder_name(name: str) -> bool:
    """Whether ``name`` is ``hf:FOLDER``."""
    return name.lower().startswith(_PREFIX)


def names_a_path(name: str) -> bool:
    """Whether the network ``name`` is named by a place on disk, where a stranger's word must not lead."""
    return split_reference(name) is not None or is_folder_name(name)


_PLACES: dict[str, Path] = {}  # name of a folder -> where it lies


def remember_folder(folder: Path) -> None:
    """Let ``hf:`` with the folder's bare name mean this folder: results say no more of its place."""
    place = folder.resolve()
    known = _PLACES.get(place.name, place)
    there = known != place and is_file(known / "config.json")
    if there and _config(known)[0] != _config(place)[0]:
        raise ShrinkbenchError(
            f"two different networks lie in folders called {place.name} ({known}, {place}), and results name "
            "no more of a folder; rename one of them"
        )
    _PLACES[place.name] = place


@MODELS.add_resolver
def _from_name(name: str) -> ModelCard | None:
    """``hf:FOLDER``; the library is imported only when the network is built."""
    return make_card(name[len(_PREFIX) :]) if is_folder_name(name) else None


def make_card(place: str) -> ModelCard:
    """Card of the network in the folder ``place``, a path or the bare name of one that was named before."""
    folder = _PLACES.get(place) or in_home(place)
    if not is_folder(folder):
        raise ShrinkbenchError(
            f"there is no folder {one_line(place, 100)}, and nothing is downloaded here; fetch the repository "
            "where there is a network (hf download NAME --local-dir DIR), and give hf:DIR"
        )
    folder = folder.resolve()
    content, config = _config(folder)
    remember_folder(folder)
    architecture = _architecture(folder, config)
    images = architecture.endswith("ForImageClassification")
    size, channels = config.get("image_size"), config.get("num_channels", 3)
    shape: tuple[int, ...] = ()
    if images and isinstance(size, int) and isinstance(channels, int):
        shape = (channels, size, size)
    vocabulary = config.get("vocab_size")
    files = (folder / name for name in ("model.safetensors", "model.safetensors.index.json"))
    weights = next(filter(is_file, files), None)
    return ModelCard(
        name=f"{_PREFIX}{folder.name}",
        family="hugging face",
        definition=f"{architecture} as {folder.name}/config.json describes it",
        reference="wolf2020transformers",
        input_shape=shape,
        num_classes=None if images or not isinstance(vocabulary, int) else vocabulary,
        takes="floats" if images else "tokens",
        build=_builder(folder, architecture),
        weights=() if weights is None else (_entry(weights, folder),),
        weights_note=NO_PUBLIC_WEIGHTS if weights is None else "",
        configuration=folder / "config.json",
        digest=hashlib.sha256(content).hexdigest(),
    )


def _config(folder: Path) -> tuple[bytes, dict[str, Any]]:
    try:
        content = read_file(folder / "config.json", most=_LARGEST_CONFIG)
        found = parse_json(content)
        if not isinstance(found, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise ShrinkbenchError(
            f"cannot read {folder / 'config.json'} ({one_line(said, 80)}); give a folder that save_pretrained "
            "has written"
        ) from None
    return content, found


def _architecture(folder: Path, config: dict[str, Any]) -> str:
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    if not first.endswith(tuple(_KINDS)):
        raise ShrinkbenchError(
            f"{folder / 'config.json'} names the architecture '{one_line(first, 40)}', which is none with a "
            f"task known here; save one that ends in {', '.join(_KINDS)}"
        )
    if "auto_map" in config:
        raise ShrinkbenchError(
            f"{folder / 'config.json'} builds its network by code of its own (auto_map), which is not run; "
            "write a file of Python that builds it, and give FILE.py:NAME"
        )
    return first


def _builder(folder: Path, architecture: str) -> Callable[[int], nn.Module]:
    kind = next(kind for ending, kind in _KINDS.items() if architecture.endswith(ending))

    def build(num_classes: int) -> nn.Module:
        library = optional("transformers", extra="hf", purpose="networks named hf:...")
        try:
            config = library.AutoConfig.from_pretrained(str(folder), local_files_only=True)
            if kind.endswith("Classification") and num_classes:
                config.num_labels = num_classes
            config.use_cache = False  # of generation: blocks of tokens go in whole
            module: nn.Module = getattr(library, kind).from_config(config)
        except Exception as error:  # a configuration may hold anything
            raise ShrinkbenchError(
                f"transformers {library.__version__} cannot build the network in {folder} "
                f"({one_line(str(error), 120)}); update it, or save the folder again"
            ) from None
        if not kind.endswith("Classification") and num_classes > config.vocab_size:
            raise ShrinkbenchError(
                f"the network in {folder} tells {config.vocab_size:,} tokens apart, and the data have "
                f"{num_classes:,}; give data with its vocabulary"
            )
        module.train()
        return module

    return build


def with_names_of_today(module: nn.Module, state: StateDict) -> StateDict:
    """``state`` as transformers itself would load it: files have names and splits of earlier versions.

    What is not the network's, or of another shape, stays as it is in the file.
    """
    library = sys.modules.get("transformers")
    if library is None or not isinstance(module, library.PreTrainedModel):
        return state
    precision = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), _silent(library):
        warnings.simplefilter("ignore")
        try:
            loaded, told = type(module).from_pretrained(
                None,
                config=copy.deepcopy(module.config),
                state_dict=dict(state),
                dtype=precision,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except Exception:  # what does not fit is told by the names as they are
            return state
    left_out = {*told["missing_keys"], *(found[0] for found in told["mismatched_keys"])}
    found = {name: tensor for name, tensor in loaded.state_dict().items() if name not in left_out}
    found |= {name: torch.empty(shape, device="meta") for name, shape, _ in sorted(told["mismatched_keys"])}
    return found | {name: tensor for name, tensor in state.items() if name in told["unexpected_keys"]}


@contextmanager
def _silent(library: Any) -> Iterator[None]:
    """Without the library's report of what it loads, and its bar of progress."""
    said, shown = library.logging.get_verbosity(), library.logging.is_progress_bar_enabled()
    library.logging.set_verbosity(library.logging.CRITICAL)
    library.logging.disable_progress_bar()
    try:
        yield
    finally:
        library.logging.set_verbosity(said)
        if shown:
            library.logging.enable_progress_bar()


def _entry(weights: Path, folder: Path) -> WeightsEntry:
    return WeightsEntry(
        name="folder",
        dataset="not stated",
        source=folder.name,
        licence="that of the folder",
        normalisation=Normalisation(mean=(), std=()),
        file=str(weights.resolve()),
    )
