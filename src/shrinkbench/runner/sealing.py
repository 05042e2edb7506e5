"""What several runs share lies on disk under a seal: its own digest, and the key of what it was made for.

A run's key says from which training its weights and masks come. A file that was edited or exchanged since would
put other numbers under that key, so it is never read: it is set aside, and made again.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from shrinkbench.datasets.revision import bytes_of
from shrinkbench.errors import DamagedWarning, ShrinkbenchError
from shrinkbench.files import read_file, require_regular, write_atomically
from shrinkbench.pruning import save_tensors
from shrinkbench.results.layout import LARGEST_CARD, set_aside
from shrinkbench.results.seals import check_card, check_tensors
from shrinkbench.spec.value import digest_of_fields

_KEY, _SEAL = "key", "sha256"


class NotAsWrittenError(ShrinkbenchError):
    """A sealed file that is missing, was edited, or was made for another key."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is missing, or not what was written there; remove its folder, and run again "
            "(--retry-failed)"
        )
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path,)


def save_sealed(tensors: Mapping[str, Tensor], path: Path, *, key: str) -> str:
    """Write ``tensors``, made for ``key``, as safetensors with the digest of what they hold; return it."""
    seal = _digest_of(tensors)
    save_tensors(tensors, path, metadata={_KEY: key, _SEAL: seal})
    return seal


def load_sealed(path: Path, *, key: str, seal: str | None = None) -> dict[str, Tensor]:
    """Read what :func:`save_sealed` wrote for ``key``, where ``seal`` is given with that digest.

    Anything else is refused.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        require_regular(path)
        content = path.read_bytes()
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (OSError, ValueError, SafetensorError):
        raise NotAsWrittenError(path) from None
    found = _digest_of(tensors)
    if header.get("__metadata__") != {_KEY: key, _SEAL: found} or seal not in (None, found):
        raise NotAsWrittenError(path)
    return tensors


def write_card(path: Path, fields: Mapping[str, Any], *, key: str) -> None:
    """Write ``fields``, which JSON can hold, with ``key`` and their digest."""
    plain = {**json.loads(json.dumps(fields)), _KEY: key}
    sealed = {**plain, _SEAL: digest_of_fields(plain)}
    write_atomically(path, json.dumps(sealed, indent=1).encode())


def read_card(path: Path, *, key: str) -> dict[str, Any]:
    """The fields that :func:`write_card` wrote for ``key``; anything else is refused."""
    try:
        fields = json.loads(read_file(path, most=LARGEST_CARD))
        seal = fields.pop(_SEAL)
        if seal == digest_of_fields(fields) and fields.pop(_KEY) == key:
            return dict(fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise NotAsWrittenError(path)


def is_whole(path: Path, *, key: str, check: Callable[..., str] | None = None) -> bool:
    """Whether ``path`` is there as it was made for ``key``; else it has to be made (again).

    What is damaged is renamed to ``NAME.damaged-...``, with a ``DamagedWarning``. ``check`` says what is wrong
    with a file, by default with tensors or a card. Raises ``OSError`` where the disk does not let it be read.
    """
    if check is None:
        check = check_tensors if path.suffix == ".safetensors" else check_card
    try:
        require_regular(path)
        with path.open("rb"):  # a disk that fails says nothing about the file
            pass
    except FileNotFoundError:
        return False
    found = check(path, key=key)
    if found and check(path, key=key):  # not one that another process has just put there
        set_aside(path)
        warnings.warn(f"{path} {found}; it is set aside, and made again", DamagedWarning, stacklevel=2)
    return not found


def _digest_of(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name}\0{tensor.dtype}{tuple(tensor.shape)}\n".encode())
        total.update(bytes_of(tensor))
    return total.hexdigest()
