"""What several runs share lies on disk under a seal: its own digest, and the key of what it was made for.

A run's key says from which training its weights and masks come. A file that was edited or exchanged since would
put other numbers under that key, so it is refused where it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import write_atomically
from shrinkbench.pruning import save_tensors
from shrinkbench.spec.value import digest_of_fields

_KEY, _SEAL = "key", "sha256"


def save_sealed(tensors: Mapping[str, Tensor], path: Path, *, key: str) -> None:
    """Write ``tensors``, made for ``key``, as safetensors that carry the digest of what they hold."""
    save_tensors(tensors, path, metadata={_KEY: key, _SEAL: _digest_of(tensors)})


def load_sealed(path: Path, *, key: str) -> dict[str, Tensor]:
    """Read what :func:`save_sealed` wrote for ``key``; anything else is refused."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (OSError, ValueError, SafetensorError):
        raise _broken(path) from None
    if header.get("__metadata__") != {_KEY: key, _SEAL: _digest_of(tensors)}:
        raise _broken(path)
    return tensors


def write_card(path: Path, fields: Mapping[str, Any], *, key: str) -> None:
    """Write ``fields``, which JSON can hold, with ``key`` and their digest."""
    plain = {**json.loads(json.dumps(fields)), _KEY: key}
    sealed = {**plain, _SEAL: digest_of_fields(plain)}
    write_atomically(path, json.dumps(sealed, indent=1).encode())


def read_card(path: Path, *, key: str) -> dict[str, Any]:
    """The fields that :func:`write_card` wrote for ``key``; anything else is refused."""
    try:
        fields = json.loads(path.read_bytes())
        seal = fields.pop(_SEAL)
        if seal == digest_of_fields(fields) and fields.pop(_KEY) == key:
            return dict(fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise _broken(path)


def _digest_of(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name}\0{tensor.dtype}{tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _broken(path: Path) -> ShrinkbenchError:
    return ShrinkbenchError(
        f"{path} is missing, or not what was written there; remove its folder, and run again (--retry-failed)"
    )
