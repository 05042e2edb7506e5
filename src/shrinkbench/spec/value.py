"""Frozen values, and the digest that identifies them."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shrinkbench.errors import ShrinkbenchError, is_unicode, one_line, some_of

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256, hexadecimal
SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]  # of a file or folder
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # of tables and of torch's generators, which have no larger ones
TimedBatch = Annotated[int, Field(ge=1, le=1_000_000)]  # examples; larger ones fit no machine
ValueT = TypeVar("ValueT", bound="Value")


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class Value(BaseModel):
    """Base of every stored value: immutable; unknown fields are refused, and numbers that are not finite.

    JSON has none for those: what was stored with one could not be read back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def as_json(self) -> bytes:
        """The text that is stored, without the copy that pydantic makes of it."""
        return self.__pydantic_serializer__.to_json(self, indent=1)


class KeyedValue(Value):
    """A value that is known by its key: the SHA-256 (hex) of the canonical JSON of all its fields.

    The key is computed once: values do not change, and a copy computes its own.
    """

    @property
    def key(self) -> str:
        """SHA-256 over the canonical JSON of every resolved value."""
        known: str | None = self.__dict__.get("_key")
        if known is None:
            text = ",".join(f'"{name}":{_text_of(part)}' for name, part in sorted(self._parts().items()))
            known = self.__dict__["_key"] = hashlib.sha256(f"{{{text}}}".encode()).hexdigest()
        return known

    def _parts(self) -> Mapping[str, Any]:
        """The fields that make the key, as they are serialised."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    def __copy__(self) -> Self:
        """A copy, which ``model_copy`` may change."""
        copied = super().__copy__()
        copied.__dict__.pop("_key", None)
        return copied


def digest(value: Value) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``.

    >>> digest(Value()) == digest(Value())
    True
    """
    return digest_of_fields(value.model_dump(mode="json"))


def digest_of_fields(fields: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of JSON with sorted keys and no blanks."""
    return hashlib.sha256(_canonical(fields).encode()).hexdigest()


_MOST_TEXTS = 512
_CONSTANTS = {None: "null", True: "true", False: "false"}
_texts: dict[int, tuple[Value, str]] = {}  # by identity: equal values may be written differently (1 and 1.0)
_texts_as_stored: dict[bytes, str] = {}  # of one that was read anew, by its JSON: equal JSON has equal text


def _text_of(part: object) -> str:
    """The canonical JSON of one field; that of a value which the runs of a grid share is made once."""
    if isinstance(part, tuple):
        return f"[{','.join(map(_text_of, part))}]"
    if not isinstance(part, Value):
        return _CONSTANTS[part] if part is None or isinstance(part, bool) else _canonical(part)
    known = _texts.get(id(part))
    if known is None:
        if len(_texts) >= _MOST_TEXTS:
            _texts.clear()
        known = _texts[id(part)] = (part, _text_as_stored(part))  # held, so that ids stay
    return known[1]


def _text_as_stored(part: Value) -> str:
    stored = part.__pydantic_serializer__.to_json(part)
    text = _texts_as_stored.get(stored)
    if text is None:
        if len(_texts_as_stored) >= _MOST_TEXTS:
            _texts_as_stored.clear()
        text = _texts_as_stored[stored] = _canonical(part.model_dump(mode="json"))
    return text


_DEEPEST = 16  # levels of tables and lists in what people write
_MOST_DOTS = 100  # in a row without a sign of TOML; reading a key takes the square of its parts


def parse_toml(text: str) -> dict[str, Any]:
    """The tables in TOML text; ``ValueError`` for whatever is wrong with it."""
    if any(part.count(".") > _MOST_DOTS for part in re.split(r"[=\[\]{},#\n]", text)):
        raise ValueError(f"a key has more than {_MOST_DOTS} parts")
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level: list[Any] = [data]
    for _ in range(_DEEPEST):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise ValueError(f"tables and lists are nested more than {_DEEPEST} deep")
    return data


def parse_value(kind: type[ValueT], data: Mapping[str, Any], *, where: str) -> ValueT:
    """Validate ``data`` as ``kind``; a violation becomes one sentence that names field, value and place."""
    stray = next((text for text in _texts_in(data) if not is_unicode(text)), None)
    if stray is not None:
        raise ShrinkbenchError(f"{where}: {stray!r:.200} is not UTF-8, in which all is stored; spell it so")
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "value"
        if first["type"] == "extra_forbidden":
            known = some_of(kind.model_fields, field, more="its documentation")
            raise ShrinkbenchError(
                f"{where}: unknown key '{one_line(field, 60)}'; known keys: {known}"
            ) from None
        if first["type"] == "missing":
            raise ShrinkbenchError(f"{where}: the key '{field}' is missing; add it") from None
        raise ShrinkbenchError(f"{where}: {tell_violation(error)}") from None


def _texts_in(value: object) -> Iterator[str]:
    """Every text in lists and tables."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from (str(key), *_texts_in(each))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts_in(each)


def tell_violation(error: ValidationError) -> str:
    """The first field that cannot be what it was to be, its value, and why."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    is_table = isinstance(first["input"], Mapping | BaseModel)
    if is_table and first["type"] == "value_error":  # of fields together, which it names
        return f"{one_line(field, 60)}: {one_line(message, 200)}" if field else one_line(message, 200)
    value = "a table" if is_table else one_line(spell_out(first["input"]), 80)
    return f"{one_line(field or 'value', 60)} = {value}: {one_line(message, 120)}"


@contextmanager
def of_own_parts(where: str) -> Iterator[None]:
    """Tell a value that cannot be one, made inside by somebody's code, as a ``ShrinkbenchError``."""
    try:
        yield
    except ValidationError as error:
        raise ShrinkbenchError(f"{where}: {error.title}: {tell_violation(error)}") from error


def spell_out(value: object) -> str:
    """``repr`` of what a stranger wrote, as far as it has one.

    >>> spell_out("a"), spell_out(10**5000)
    ("'a'", 'a whole number of 5,000 digits and more')
    """
    try:
        return repr(value)
    except ValueError:
        return "a whole number of 5,000 digits and more"
    except RecursionError:
        return "something nested deeply"
