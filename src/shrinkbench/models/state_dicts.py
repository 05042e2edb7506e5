"""State dicts as training scripts, PyTorch Lightning, timm and torch's own tools leave them in files."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import safe_globals

from shrinkbench.errors import InputError, ShrinkbenchError, TakenWarning, one_line
from shrinkbench.files import is_file
from shrinkbench.models.shards import read_weights

StateDict = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict")
EXTRA_STATE = "_extra_state"  # how torch calls what a layer stores beside its tensors
_CODE = 1 << 20  # bytes of what is no tensor, and may be compressed
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel


def read_state_dict(path: Path, *, sha256: str | None = None, entry: str | None = None) -> StateDict:
    """Read parameters and buffers by name from a PyTorch checkpoint, a safetensors file, or an index.

    Wrappings under ``state_dict``, ``model_state_dict``, ``model`` or ``net``, prefixes ``module.`` and
    ``_orig_mod.``, and the counter of an ``AveragedModel`` are taken off; masks of ``torch.nn.utils.prune`` are
    multiplied in; what is beside the tensors and no tensor (an epoch, a best accuracy) is left aside. ``entry``
    names which of several entries is meant (``model_ema``), or the prefix of its names (``teacher``); a
    ``TakenWarning`` tells what was taken and left aside. Nothing in the file is executed. Raises
    ``ShrinkbenchError`` where the file is missing, damaged, holds no tensors or others than dense ones, or its
    bytes are not those of ``sha256``.
    """
    return with_masks_applied(read_entries(path, sha256=sha256, entry=entry))


def read_entries(
    path: Path, *, sha256: str | None = None, entry: str | None = None, own: Collection[str] = ()
) -> StateDict:
    """:func:`read_state_dict`, with the masks of ``torch.nn.utils.prune`` as they are in the file.

    Where the file has all names of a network's ``own``, none is taken for a wrapper's.
    """
    if not is_file(path):
        raise ShrinkbenchError(f"there is no weights file {path}; check the path")
    content = _unwrapped(path, _read(path, sha256), entry)
    if not isinstance(content, Mapping) or not content:
        raise ShrinkbenchError(
            f"{path} holds no weights by name (found {type(content).__name__}); pass a state dict"
        )
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    state = _tensors_of(content, path, whole=bool(needed) and needed <= content.keys())
    fitting = (f for f in _with_fewer_wrappers(state) if needed and needed <= {*f, *masked_names(f)})
    return next(fitting, None) or _plain_names(state)


def with_masks_applied(state: StateDict) -> StateDict:
    """Weights in place of ``X_orig`` and ``X_mask``: their product."""
    found = dict(state)
    for name in masked_names(state):
        original, mask = found.pop(f"{name}_orig"), found.pop(f"{name}_mask")
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ShrinkbenchError(
                f"'{name}_mask' holds other values than 0 and 1, so that it says of some weights neither that "
                "they stay nor that they go; save masks of zeros and ones"
            )
        found[name] = original * mask.to(original.dtype)
    return found


def masked_names(state: Mapping[str, Tensor]) -> list[str]:
    """The tensors X that ``torch.nn.utils.prune`` keeps as ``X_orig`` and ``X_mask``."""
    names = (key.removesuffix("_mask") for key in state if key.endswith("_mask"))
    return [n for n in names if f"{n}_orig" in state and state[f"{n}_orig"].shape == state[f"{n}_mask"].shape]


def with_names_of(own: Iterable[str], state: StateDict, path: Path) -> StateDict:
    """``state`` without the prefix (``model.``) under which it holds every name of ``own``, where there is one.

    What lies beside is left out, and told: losses and metrics of a Lightning module, or a second copy.
    """
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    if not needed or any(name in state for name in needed):
        return state
    ends = (key.removesuffix(f".{needed[0]}") + "." for key in state if key.endswith(f".{needed[0]}"))
    prefixes = [p for p in ends if all(p + name in state for name in needed)]
    if not prefixes:
        return state
    prefix = min(prefixes, key=lambda name: "ema" in name.lower())  # an average where it alone is there
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if len(inside) < len(state):
        others = next(key for key in state if not key.startswith(prefix))
        warnings.warn(
            f"{path} holds more than the network: what is under '{prefix}' was taken, and '{others}' and the "
            "like were not (entry=, --weights-entry name another prefix)",
            TakenWarning,
            stacklevel=3,
        )
    return inside


def _wraps(value: object) -> bool:
    """Whether ``value`` holds tensors by name, or an entry that does under one of the usual names."""
    if not isinstance(value, Mapping):
        return False
    usual = any(_wraps(value.get(name)) for name in (*_WRAPPERS, *_AVERAGES))
    return usual or any(isinstance(inner, Tensor) for inner in value.values())


def _unwrapped(path: Path, content: object, entry: str | None) -> object:
    """The weights inside ``content``: what ``entry`` names, else the first of the usual entries, and told."""
    if entry is not None and isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
        content, entry = content[entry], None
    while isinstance(content, Mapping):
        usual = [name for name in (*_WRAPPERS, *_AVERAGES) if isinstance(content.get(name), Mapping)]
        if not usual:
            break
        averaged = [name for name in usual if name in _AVERAGES]
        if entry is None and (averaged or len(usual) > 1):
            rest = f" and not {' or '.join(map(repr, usual[1:]))}" if len(usual) > 1 else ""
            warnings.warn(
                f"of {path}, '{usual[0]}' was taken{rest} (entry=, --weights-entry choose)",
                TakenWarning,
                stacklevel=4,
            )
        if entry is not None and isinstance(content.get(entry), Mapping):
            content, entry = content[entry], None
        else:
            content = content[usual[0]]
    if entry is None:
        return content
    inside = content if isinstance(content, Mapping) else {}
    under = {k.removeprefix(f"{entry}."): v for k, v in inside.items() if str(k).startswith(f"{entry}.")}
    if not under:
        raise ShrinkbenchError(f"{path} has no weights under '{entry}'; name an entry or prefix that it has")
    return under


def _tensors_of(content: Mapping[Any, object], path: Path, *, whole: bool) -> StateDict:
    """The tensors among ``content``; what holds none, such as a best accuracy, is left aside and told.

    What a layer stores beside its tensors (``get_extra_state``) is its own, and may be anything. So may what
    lies beside a ``whole`` network; else an entry with tensors may be the one that is meant.
    """
    state: dict[Any, Any] = {
        key: value
        for key, value in content.items()
        if isinstance(value, Tensor) or str(key).endswith(EXTRA_STATE)
    }
    aside = {str(key): value for key, value in content.items() if key not in state}
    wrapping = [key for key, value in aside.items() if _wraps(value) and not whole]
    first = next(iter(wrapping or aside), None)
    if first is not None and (wrapping or not state):
        hint = "; name the entry of the weights (entry=, --weights-entry)" if wrapping else ""
        raise ShrinkbenchError(
            f"{path} is not a state dict: its entry '{first}' is a {type(aside[first]).__name__}, not a "
            f"tensor{hint or '; pass a file with the tensors of a network by name'}"
        )
    for key, value in state.items():
        if not isinstance(key, str):
            raise ShrinkbenchError(f"{path} is not a state dict: it names a tensor {key!r}; name it by a text")
        if isinstance(value, Tensor):
            _require_dense(path, key, value)
    if aside:
        shown = ", ".join(f"'{one_line(key, 40)}'" for key in [*aside][:3])
        more = f" and {len(aside) - 3} more" if len(aside) > 3 else ""
        warnings.warn(
            f"of {path}, the tensors were taken; what lies beside them was left aside: {shown}{more}",
            TakenWarning,
            stacklevel=4,
        )
    return state


def _require_dense(path: Path, key: str, value: Tensor) -> None:
    if value.is_quantized:
        raise ShrinkbenchError(
            f"'{key}' in {path} is quantised ({value.dtype}), and pruning needs numbers; save its .dequantize()"
        )
    if value.is_meta:
        raise ShrinkbenchError(f"'{key}' in {path} holds no values (device meta); save it from a real device")
    if value.layout != torch.strided or value.is_nested:
        kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        raise ShrinkbenchError(f"'{key}' in {path} is a {kind} tensor, not a dense one; save its .to_dense()")


def _read(path: Path, sha256: str | None) -> object:
    """What the file holds, or all that an index names; each is read once: what was hashed is what is used."""
    try:
        contents, found = read_weights(path)
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror or error}") from None
    if sha256 not in (None, found):
        raise InputError(
            f"the weights file {path} has changed since the run was planned: its SHA-256 begins with "
            f"{found[:12]}, not {str(sha256)[:12]}; put the old file back, or start again with the new"
        )
    if path in contents:
        return _read_one(path, contents[path])
    joined: dict[Any, object] = {}
    for file, content in contents.items():
        part = _read_one(file, content)
        if not isinstance(part, Mapping) or joined.keys() & part.keys():
            raise ShrinkbenchError(
                f"{file} holds no tensors by name, or some that another file of {path.name} holds; fetch them "
                "again"
            )
        joined.update(part)
    return joined


def _read_one(path: Path, content: bytes) -> object:
    read = _read_safetensors if path.suffix == ".safetensors" else _read_checkpoint
    return read(path, content)


def _plain_kinds() -> list[object]:
    """What training scripts save beside weights: numpy's numbers under their old and new names, and options.

    None of them runs code of the file's: numpy refuses numbers of type object.
    """
    scalar = np.float64(0).__reduce__()[0]
    kinds: set[Any] = {*np.sctypeDict.values()} - {np.object_}
    numbers = {type(np.dtype(kind)) for kind in kinds}
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *numbers, Namespace]


def _read_checkpoint(path: Path, content: bytes) -> object:
    _require_checksums(path, content)
    try:
        with warnings.catch_warnings(), safe_globals(_plain_kinds()):  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # of layouts that are refused by name below
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle or zip raises anything at all
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            raise ShrinkbenchError(
                f"{path} holds Python objects other than tensors ({foreign.group(1)}), which are never "
                "executed; save its state dict alone and pass that"
            ) from None
        first = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise ShrinkbenchError(f"{path} is damaged or not a PyTorch checkpoint ({first})") from None


def _require_checksums(path: Path, content: bytes) -> None:
    """Raise where a member of the archive is not what was written: torch does not look at its checksums.

    Nor does it look how large one is before it has unpacked it: 2 MB may be 2 GB.
    """
    file = io.BytesIO(content)
    if not zipfile.is_zipfile(file):
        return  # of before torch 1.6, or none; reading it says so
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
            bad = archive.testzip() if unpacked <= len(content) + _CODE else None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OSError):
        return  # reading it says what is wrong
    if unpacked > len(content) + _CODE:
        raise ShrinkbenchError(
            f"{path} has {len(content):,} bytes and unpacks to {unpacked:,}; torch.save compresses nothing: "
            "load it where it is trusted, and save it again"
        )
    if bad is not None:
        raise ShrinkbenchError(
            f"{path} is damaged: '{bad}' in it is not what its checksum says; fetch the file again, or save it "
            "again if it was written without checksums"
        )


def _read_safetensors(path: Path, content: bytes) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except (SafetensorError, OSError) as error:
        raise ShrinkbenchError(f"{path} is damaged or not a safetensors file ({error})") from None


def _with_fewer_wrappers(state: StateDict) -> Iterator[StateDict]:
    """``state`` as it is, then with one ``module.`` after another taken off where all names have it."""
    yield state
    while all(key.startswith("module.") for key in state if key != _COUNTER) and state.keys() != {_COUNTER}:
        state = {key.removeprefix("module."): value for key, value in state.items() if key != _COUNTER}
        yield state


def _plain_names(state: StateDict) -> StateDict:
    """Names without what wrappers around a network, in any order and number, put before them."""
    *_, state = _with_fewer_wrappers({key.replace("_orig_mod.", ""): value for key, value in state.items()})
    # torchvision's DenseNet files carry names from before PyTorch forbade dots in module names.
    legacy = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
    return {legacy.sub(r"\1\2.", key): value for key, value in state.items()}
