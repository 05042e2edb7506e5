"""Whether what several runs share is as it was written: checked by its own digest, without torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from shrinkbench.files import read_file, require_regular
from shrinkbench.spec.value import digest_of_fields

_KEY, _SEAL = "key", "sha256"
_LARGEST_CARD = 64 << 20  # bytes
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
        fields = json.loads(read_file(path, most=_LARGEST_CARD))
        seal = fields.pop(_SEAL)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "is no whole card"
    return _judge(seal == digest_of_fields(fields), fields.get(_KEY), key)


def check_tensors(path: Path, *, key: str, seal: str | None = None) -> str:
    """What is wrong with tensors (safetensors) that were sealed for ``key``; nothing where they are whole.

    ``seal`` is the digest that they have to have, where it is noted elsewhere.
    """
    try:
        require_regular(path)
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        metadata = header.pop("__metadata__")
        total, end = hashlib.sha256(), start
        for name, tensor in sorted(header.items()):
            first, last = (start + offset for offset in tensor["data_offsets"])
            total.update(f"{name}\0torch.{_TYPES[tensor['dtype']]}{tuple(tensor['shape'])}\n".encode())
            total.update(content[first:last])
            end = max(end, last)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
        return "holds no whole sealed tensors"
    whole = end == len(content) and metadata.get(_SEAL) == total.hexdigest()
    if whole and seal not in (None, total.hexdigest()):
        return "holds other tensors than its result names"
    return _judge(whole, metadata.get(_KEY), key)


def _judge(whole: bool, found: object, key: str) -> str:  # noqa: FBT001 - private, and named where it is called
    if not whole:
        return "does not agree with its checksum"
    return "" if found == key else f"was made for another key ({str(found)[:12]})"
