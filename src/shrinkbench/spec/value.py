"""Frozen values, and the digest that identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shrinkbench.errors import ShrinkbenchError

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256, hexadecimal
SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]  # of a file or folder
ValueT = TypeVar("ValueT", bound="Value")


class Value(BaseModel):
    """Base of every stored value: immutable, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def digest(value: Value) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``.

    >>> digest(Value()) == digest(Value())
    True
    """
    return digest_of_fields(value.model_dump(mode="json"))


def digest_of_fields(fields: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of JSON with sorted keys and no blanks."""
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
