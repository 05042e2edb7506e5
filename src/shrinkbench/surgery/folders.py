"""A network in a folder: what it is, its weights and, where it is masked, its masks.

``network.json`` names the network, its classes and input, and the surgery that made it smaller, if any;
``weights.safetensors`` and ``masks.safetensors`` lie beside it. A Hugging Face repository holds the same in
``config.json`` and ``model.safetensors``. What a folder says is a stranger's: it names networks that are
registered here, never code, and weights that do not fit it are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import (
    check_folder,
    check_target,
    is_file,
    parse_json,
    read_file,
    sha256_of,
    write_atomically,
)
from shrinkbench.links import check_links
from shrinkbench.models import build as build_named
from shrinkbench.models.card import code_of
from shrinkbench.models.hugging_face import names_a_path
from shrinkbench.network.inputs import Inputs
from shrinkbench.network.probe import evaluation_mode
from shrinkbench.network.weights import in_mode, load_tensors
from shrinkbench.pruning.masks import Masks, save_tensors
from shrinkbench.sources import bare_reference, is_remembered, split_reference
from shrinkbench.spec import Normalisation
from shrinkbench.surgery.checking import probe_inputs
from shrinkbench.surgery.operation import Surgery, operate
from shrinkbench.surgery.stored_inputs import StoredInputs

DESCRIPTION, WEIGHTS, MASKS = "network.json", "weights.safetensors", "masks.safetensors"
HUB_DESCRIPTION, HUB_WEIGHTS = "config.json", "model.safetensors"
_FILES = "files"  # by their digests, as the description knows them; a run's folder has seals of its own
_CODE = "code"
_KEY = "key"  # of the run that has kept the network

_LARGEST_DESCRIPTION, _HEADER = 16 << 20, 16 << 20  # bytes
_MOST_INPUTS = 1 << 24  # numbers of one input
_MISFITS = (RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)
Build = Callable[[str, int], nn.Module]
Read = Callable[[Path], Mapping[str, Tensor]]


@dataclass(frozen=True)
class NetworkDescription:
    """The network that a stored one comes from, its classes and input, and the surgery that made it smaller.

    ``num_classes`` is 0 where the network knows no number of classes; ``normalisation`` is of the images that
    the weights were trained on, where that is known. ``takes`` is what goes in where that is more than one
    floating tensor of ``input_shape``.
    """

    network: str
    num_classes: int
    input_shape: tuple[int, ...]
    surgery: Surgery = field(default_factory=Surgery)
    normalisation: Normalisation | None = None
    takes: StoredInputs | None = None

    @property
    def example(self) -> Inputs:
        """One example of what the network takes; floats are without values."""
        return Inputs.of(self.input_shape) if self.takes is None else self.takes.example

    @property
    def is_small(self) -> bool:
        """Whether something was cut out."""
        return self.surgery != Surgery()

    def as_json(self) -> dict[str, Any]:
        """Plain fields, the inverse of :func:`read_description`."""
        takes = {} if self.takes is None else {"takes": self.takes.as_json()}
        return {
            "format": 3 if takes else 2,
            "network": self.network,
            "num_classes": self.num_classes,
            "input_shape": list(self.input_shape),
            "normalisation": None if self.normalisation is None else self.normalisation.model_dump(mode="json"),
            "surgery": self.surgery.as_json(),
            **takes,
        }


@dataclass(frozen=True)
class StoredNetwork:
    """A network read from a folder: pruned weights are zero, and what was cut out is gone."""

    folder: Path
    description: NetworkDescription
    module: nn.Module
    masks: Masks
    weights_file: Path


def save_network(
    folder: Path, module: nn.Module, description: NetworkDescription, *, masks: Masks | None = None
) -> None:
    """Write description, weights and masks (where there are any) of ``module`` into ``folder``."""
    files = (DESCRIPTION, WEIGHTS, MASKS)
    check_folder(folder)
    check_links(folder)
    for name in files:
        check_target(folder / name)  # all or none
    save_tensors(module.state_dict(), folder / WEIGHTS)
    save_masks(folder, masks, description)
    stated = sealed_description(folder, description, WEIGHTS)
    write_atomically(folder / DESCRIPTION, json.dumps(stated).encode())  # last: it names the others


def save_masks(folder: Path, masks: Masks | None, description: NetworkDescription) -> None:
    """Write ``masks`` where there are any; those of an earlier network leave."""
    if masks is not None and len(masks):
        masks.save(folder / MASKS, network=description.network)
    else:
        (folder / MASKS).unlink(missing_ok=True)


def sealed_description(folder: Path, description: NetworkDescription, weights: str) -> dict[str, Any]:
    """``description`` with the files in ``folder`` that it is of, and with the code from outside."""
    code = code_of(description.network)
    own = {} if code is None else {_CODE: code}
    return {**description.as_json(), _FILES: _digests_beside(folder, weights), **own}


def _digests_beside(folder: Path, weights: str) -> dict[str, str]:
    """Which weights, and which masks if any, a description in ``folder`` is of."""
    return {name: sha256_of(folder / name) for name in (weights, MASKS) if is_file(folder / name)}


def holds_network(path: Path) -> bool:
    """Whether ``path`` is a folder that describes a network."""
    return any(is_file(path / name) for name in (DESCRIPTION, HUB_DESCRIPTION))


def is_of_run(folder: Path) -> bool:
    """Whether a run has kept the network in ``folder``, whose result alone knows the files."""
    try:
        return _KEY in _fields_of(_description_in(folder))
    except (OSError, ValueError, TypeError, AttributeError):
        return False  # reading it says what is wrong


def read_description(folder: Path) -> NetworkDescription:
    """The description in ``folder``; ``ShrinkbenchError`` where it is none."""
    path = _description_in(folder)
    try:
        data = _fields_of(path)
        if data["format"] not in (1, 2, 3):
            raise ValueError(f"format {data['format']!r} is not 1, 2 or 3")
        stated = data.get("normalisation")
        found = NetworkDescription(
            str(data["network"]),
            int(data["num_classes"]),
            tuple(int(n) for n in data["input_shape"]),
            Surgery.from_json(data["surgery"]),
            None if stated is None else Normalisation(**stated),
            None if data["format"] < 3 else StoredInputs.from_json(data["takes"]),
        )
        if found.num_classes < 0 or any(n < 1 for n in found.input_shape) or not found.input_shape:
            raise ValueError("sizes have to be positive")
        numbers = 0 if found.takes is None else found.takes.numbers
        if max(math.prod(found.input_shape), numbers) > _MOST_INPUTS:
            raise ValueError(f"one input has more than {_MOST_INPUTS:,} numbers")
    except OSError as error:
        raise ShrinkbenchError(
            f"cannot read a network's description from {path} ({error.strerror or error}); give a folder that "
            "holds a network, such as a run's that is kept with weights"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
        raise ShrinkbenchError(
            f"cannot read a network's description from {path}: {one_line(said, 120)}"
        ) from None
    return found


def _description_in(folder: Path) -> Path:
    return folder / (DESCRIPTION if is_file(folder / DESCRIPTION) else HUB_DESCRIPTION)


def _fields_of(path: Path) -> Any:
    data = parse_json(read_file(path, most=_LARGEST_DESCRIPTION))
    return data.get("shrinkbench", data) if path.name == HUB_DESCRIPTION else data


def read_network(
    folder: Path, *, network: str | None = None, build: Build | None = None, read: Read | None = None
) -> StoredNetwork:
    """The network in ``folder``, in evaluation mode; what does not fit together is refused.

    ``network`` is the name that it has to have. A Python file (``FILE.py:NAME``) that the folder alone names is
    never run: it is named there, or was loaded before, as a plug-in. ``build(network, num_classes)`` makes the
    full network, by default the registered one, and ``read`` reads a file of tensors.
    """
    description = read_description(folder)
    name = _name_of(folder, description.network, network)
    weights = folder / (WEIGHTS if is_file(folder / DESCRIPTION) else HUB_WEIGHTS)
    if not is_file(weights):
        raise ShrinkbenchError(
            f"{folder} holds no {weights.name}; give the network with --model NAME and --weights FILE"
        )
    read = read or _read_tensors
    tensors = read(weights)
    if description.num_classes > max((n for t in tensors.values() for n in t.shape), default=0):
        raise ShrinkbenchError(
            f"the weights in {weights} do not fit the description beside them: no tensor has "
            f"{description.num_classes:,} classes"
        )
    module = (build or build_full)(name, description.num_classes)
    _operate(module, description, folder)
    _check_size(weights, module)
    _load(module, tensors, weights)
    masks = Masks({})
    if is_file(folder / MASKS):
        _check_size(folder / MASKS, module)
        masks = Masks(read(folder / MASKS))
        _check_masks(module, masks, folder)
    _check_forward(module, description, folder)
    _check_digests(folder, weights.name, name)
    return StoredNetwork(folder, description, in_mode(module, training=False), masks, weights)


def build_full(name: str, num_classes: int) -> nn.Module:
    """The registered network ``name``, whole; with no number of classes (0) that of its card."""
    return build_named(name, num_classes=num_classes or None)


def _name_of(folder: Path, named: str, asked: str | None) -> str:
    """The network to build: of a file of Python only where a person has named that file, as a plug-in too."""
    if asked is None:
        known = named == bare_reference(named) and is_remembered(named)  # a path of the folder's leads nowhere
        if names_a_path(named) and not known:
            kind, why, how = ("a folder", "lies elsewhere", "--model hf:DIR")
            if split_reference(named) is not None:
                kind, why, how = ("a Python file", "is code", "--plugin FILE, or --model FILE.py:NAME")
            raise ShrinkbenchError(
                f"{folder} names a network of {kind} ({one_line(named, 60)}), which {why}; if you trust it, "
                f"give {how} and --weights {one_line(str(folder), 60)}"
            )
        return named
    if asked != named and not (names_a_path(asked) and names_a_path(named)):
        raise ShrinkbenchError(
            f"{folder} holds a network '{one_line(named, 60)}', not '{one_line(asked, 60)}'; name the one that "
            "it was made from"
        )
    return asked


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(read_file(path, most=path.stat().st_size))
    except (OSError, SafetensorError) as error:
        said = getattr(error, "strerror", None) or error
        raise ShrinkbenchError(f"cannot read {path}: {said}; give a safetensors file") from None


def _operate(module: nn.Module, description: NetworkDescription, folder: Path) -> None:
    """Carry the surgery out; one that was written for another network is told."""
    try:
        for path, (channels, _) in description.surgery.constant.items():
            width = len(module.get_parameter(f"{path}.weight"))
            if not 0 < channels <= width:
                raise ValueError(f"'{path}' has {width} outputs, not {channels}")
        operate(module, description.surgery)
    except _MISFITS as error:
        raise ShrinkbenchError(
            f"the surgery in {folder} does not fit {one_line(description.network, 60)} "
            f"({one_line(str(error), 100)}); this surgery is for another network"
        ) from None


def _check_size(path: Path, module: nn.Module) -> None:
    """Refuse a file that holds more than the network has room for."""
    most = _HEADER + 8 * sum(tensor.numel() for tensor in module.state_dict().values())
    if path.stat().st_size > most:
        raise ShrinkbenchError(
            f"{path} is larger than the network beside it ({most:,} bytes at most); it is for another network"
        )


def _load(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        load_tensors(module, tensors)
    except _MISFITS as error:
        said = " ".join(str(error).split()).removeprefix("Error(s) in loading state_dict for ")
        raise ShrinkbenchError(
            f"the weights in {path} do not fit the description beside them: {one_line(said, 150)}"
        ) from None


def _check_masks(module: nn.Module, masks: Masks, folder: Path) -> None:
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise ShrinkbenchError(f"the masks in {folder} are for another network ('{one_line(name, 60)}')")
        if bool((parameters[name].detach()[~mask] != 0).any()):
            raise ShrinkbenchError(
                f"the weights of '{one_line(name, 60)}' in {folder} are not zero where its masks prune them; "
                "masks and weights are of different networks"
            )


def _check_digests(folder: Path, weights: str, network: str) -> None:
    """Refuse weights, masks and code that are not those which the description was written with, if it says."""
    path = _description_in(folder)
    fields = _fields_of(path)
    stated, code = fields.get(_FILES), code_of(network)
    if code is not None and fields.get(_CODE, code) != code:
        raise ShrinkbenchError(
            f"{folder} was written by other code of '{one_line(network, 60)}' than there is now; give that "
            f"code, write the folder again, or take '{_CODE}' out of {path.name} if both compute the same"
        )
    found = _digests_beside(folder, weights)
    if stated in (None, found):
        return
    known = stated if isinstance(stated, dict) else {}
    which = next((name for name in (*found, *known) if found.get(name) != known.get(name)), weights)
    raise ShrinkbenchError(
        f"{folder / which} is not the file that {path.name} was written for (it was exchanged, edited, removed "
        f"or added since); write the folder again, or take '{_FILES}' out of {path.name} if you mean it so"
    )


def _check_forward(module: nn.Module, description: NetworkDescription, folder: Path) -> None:
    """Refuse a small network whose parts do not fit together, before anything is measured of it."""
    if not description.is_small:
        return
    try:
        with evaluation_mode(module), torch.no_grad():
            probe_inputs(module, description.example).part(0, 1).call(module)
    except _MISFITS as error:
        raise ShrinkbenchError(
            f"the small network in {folder} cannot be run ({one_line(str(error), 120)}); write it again"
        ) from None
