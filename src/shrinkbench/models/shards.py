"""Weights of one network in several files, and the index that names them: large ones of Hugging Face."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import parse_json, read_file, require_regular, sha256_of

_ENDING = ".index.json"
_LARGEST_INDEX = 64 << 20  # bytes


def is_index(path: Path) -> bool:
    """Whether ``path`` is the index of several files."""
    return path.name.endswith(_ENDING)


def digest_of_weights(path: Path) -> str:
    """SHA-256 (hex) of a file of weights; of an index, over its own and those of the files that it names."""
    beside = _files_in(path, _index_of(path)) if is_index(path) else []
    return _together(map(sha256_of, (path, *beside)))


def read_weights(path: Path) -> tuple[dict[Path, bytes], str]:
    """The content of the file, or of all files that an index names, and the digest of what was read."""
    require_regular(path)
    content = {path: path.read_bytes()}
    if is_index(path):
        for file in _files_in(path, content[path]):
            require_regular(file)
            content[file] = file.read_bytes()
    digest = _together(hashlib.sha256(each).hexdigest() for each in content.values())
    if is_index(path):
        del content[path]
    return content, digest


def _index_of(path: Path) -> bytes:
    try:
        return read_file(path, most=_LARGEST_INDEX)
    except OSError as error:
        raise ShrinkbenchError(f"cannot read {path}: {error.strerror or error}") from None


def _files_in(path: Path, index: bytes) -> list[Path]:
    """The files that an index names, which lie beside it: what a file says leads nowhere else."""
    try:
        named = parse_json(index)["weight_map"]
        names = sorted(set(named.values())) if isinstance(named, Mapping) else []
    except (ValueError, KeyError, TypeError, AttributeError):
        names = []
    odd = next((n for n in names if not isinstance(n, str) or Path(n).name != n or is_index(Path(n))), None)
    if not names or odd is not None:
        what = "no files" if odd is None else f"'{one_line(str(odd), 40)}', which is no file beside it"
        raise ShrinkbenchError(
            f"{path} is no index of weights: its weight_map names {what}; save the network again"
        )
    return [path.with_name(name) for name in names]


def _together(digests: Iterable[str]) -> str:
    """One digest of several; of a single one, that."""
    first, *others = digests
    return hashlib.sha256("".join((first, *others)).encode()).hexdigest() if others else first
