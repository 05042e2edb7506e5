"""Frozen values, and the digest that identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from shrinkbench.errors import ShrinkbenchError

ValueT = TypeVar("ValueT", bound="Value")


class Value(BaseModel):
    """Base of every stored value: immutable, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def digest(value: Value, *, as_written: bool = False) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``.

    ``as_written`` leaves out fields that the file did not have from which ``value`` was read: an earlier
    version, which did not know them, computed its keys without.

    >>> digest(EarlyStopping(patience=3)) == digest(EarlyStopping(patience=3))
    True
    """
    fields = value.model_dump(mode="json", exclude_unset=as_written)
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parse_value(kind: type[ValueT], data: Mapping[str, Any], *, where: str) -> ValueT:
    """Validate ``data`` as ``kind``; a violation becomes one sentence that names field, value and place."""
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "value"
        if first["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise ShrinkbenchError(f"{where}: unknown key '{field}'; known keys: {known}") from None
        if first["type"] == "missing":
            raise ShrinkbenchError(f"{where}: the key '{field}' is missing; add it") from None
        message = first["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        raise ShrinkbenchError(f"{where}: {field} = {first['input']!r}: {message}") from None
