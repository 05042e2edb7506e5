"""Whether what several runs share is as it was written: checked by its own digest, without torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

from shrinkbench.files import read_file, require_regular
from shrinkbench.results.layout import LARGEST_CARD
from shrinkbench.spec.value import digest_of_fields

_KEY, _SEAL = "key", "sha256"
_LARGEST_HEADER = 16 << 20  # bytes, of names, kinds, shapes and places of tensors
_PART = 1 << 20
_TYPES = {  # of safetensors, as torch prints them
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
}


def check_card(path: Path, *, key: str) -> str:
    """What is wrong with a card (JSON) that was written for ``key``; nothing where it is whole."""
    try:
        fields = json.loads(read_file(path, most=LARGEST_CARD))
        seal = fields.pop(_SEAL)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "is no whole card"
    return _judge(seal == digest_of_fields(fields), fields.get(_KEY), key)


def check_tensors(path: Path, *, key: str, seal: str | None = None) -> str:
    """What is wrong with tensors (safetensors) that were sealed for ``key``; nothing where they are whole.

    ``seal`` is the digest that they have to have, where it is noted elsewhere. Large ones take long to hash, so
    what they say of themselves is asked first.
    """
    try:
        require_regular(path)
        with path.open("rb") as file:
            header, start = _header_of(file)
            metadata = dict(header.pop("__metadata__"))
            if seal not in (None, metadata[_SEAL]):
                return "holds other tensors than its result names"
            whole = metadata[_KEY] != key or metadata[_SEAL] == _digest_of(
                file, header, start, path.stat().st_size
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
        return "holds no whole sealed tensors"
    return _judge(whole, metadata[_KEY], key)


def _header_of(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """What is said of the tensors in a file, and where the first of them begins."""
    length = int.from_bytes(file.read(8), "little")
    if length > _LARGEST_HEADER:
        raise ValueError(f"a header of {length:,} bytes")
    return json.loads(file.read(length)), 8 + length


def _digest_of(file: BinaryIO, header: dict[str, Any], start: int, size: int) -> str:
    """The digest of what tensors hold; ``ValueError`` where bytes of the file are not of one.

    None is hashed twice, and no more than a part of the file is in memory.
    """
    total = hashlib.sha256()
    places = {name: tuple(tensor["data_offsets"]) for name, tensor in header.items()}
    end = 0
    for first, last in sorted(places.values()):
        if first != end or last < first:
            raise ValueError("tensors that overlap, or leave bytes between them")
        end = last
    if start + end != size:
        raise ValueError("another size than that of its tensors")
    for name, tensor in sorted(header.items()):
        first, last = places[name]
        total.update(f"{name}\0torch.{_TYPES[tensor['dtype']]}{tuple(tensor['shape'])}\n".encode())
        file.seek(start + first)
        for part in range(first, last, _PART):
            total.update(file.read(min(_PART, last - part)))
    return total.hexdigest()


def _judge(whole: bool, found: object, key: str) -> str:  # noqa: FBT001 - private, and named where it is called
    if not whole:
        return "does not agree with its checksum"
    return "" if found == key else f"was made for another key ({str(found)[:12]})"
