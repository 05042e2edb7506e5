"""Zip files of strangers: only members that a bundle has, of bounded size, and nothing is ever unpacked."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Set
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, Field, ValidationError

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import repeated_name, require_regular, write_atomically
from shrinkbench.results.layout import (
    LARGEST_PLAN,
    LARGEST_RESULT,
    LARGEST_SOURCE,
    PLAN_NAME,
    PLUGIN_FILE,
    RESULT_FILE,
)
from shrinkbench.spec.value import SafeName, Value

FORMAT = "shrinkbench-bundle"
MANIFEST = "manifest.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip needs a date; a fixed one keeps equal results equal files
_MIB = 1 << 20
_MEMBERS = (  # what a bundle may hold, and how large the largest of a kind may be
    (re.compile(re.escape(MANIFEST)), 64 * _MIB),
    (re.compile(re.escape(PLAN_NAME)), LARGEST_PLAN),
    (RESULT_FILE, LARGEST_RESULT),
    (PLUGIN_FILE, LARGEST_SOURCE),
)
_TOLD = 1000  # complaints that are looked at one by one
_LARGEST = 128 * _MIB  # 9,000 runs; what is read takes up to eight times as much
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # strangers do not choose among all decoders
_UNREADABLE = (
    *(OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError),
    *(zlib.error, EOFError, ValueError, struct.error),
)


class _Header(BaseModel):
    """What tells a bundle from other files, of whatever version."""

    format: str
    version: int


class Manifest(Value):
    """What a bundle holds: SHA-256 of every file in it."""

    format: str
    version: int
    name: SafeName
    files: dict[str, str] = Field(default_factory=dict)


def write_archive(path: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Write ``files`` with their manifest; equal contents give equal bytes."""
    sums = {member: _sha(content) for member, content in sorted(files.items())}
    manifest = Manifest(format=FORMAT, version=1, name=name, files=sums).as_json()
    total = sum(map(len, (manifest, *files.values())))
    if total > _LARGEST:
        raise ShrinkbenchError(
            f"{path} is not written: its files are {total / _MIB:,.0f} MiB, and bundles up to "
            f"{_LARGEST // _MIB} MiB are read; sweep into several folders, and bundle each"
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in {MANIFEST: manifest, **files}.items():
            archive.writestr(zipfile.ZipInfo(member, _EPOCH), content, zipfile.ZIP_DEFLATED, 9)
    write_atomically(path, buffer.getvalue())


def read_archive(path: Path) -> tuple[str, Iterator[tuple[str, bytes]]]:
    """The bundle's name, and its files one after the other, each as the manifest says.

    Raises ``ShrinkbenchError`` for what is no bundle, for a member of another name, size or content than a
    bundle has (before anything of it is read), and for one that stands there twice.
    """
    try:
        require_regular(path)
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_members(path, infos)
            told = [info for info in infos if info.filename == MANIFEST]
            manifest = _parse_manifest(path, _read(archive, told[0]) if told else b"")
    except FileNotFoundError:
        raise ShrinkbenchError(f"there is no bundle or results folder {path}; check the path") from None
    except _UNREADABLE as error:
        raise _not_whole(path, error) from None
    names = {info.filename for info in infos} - {MANIFEST}
    _require_equal(path, names, manifest.files.keys())
    return manifest.name, _contents(path, manifest)


def _check_members(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse by name and announced size; no byte beyond that is unpacked."""
    seen: set[str] = set()
    for info in infos:
        whole = info.orig_filename  # the other ends at a NUL
        limit = next((size for pattern, size in _MEMBERS if pattern.fullmatch(whole)), None)
        if limit is None:
            raise ShrinkbenchError(
                f"{path} holds {whole[:100]!r}, which is no file of a bundle; it was not made by "
                "`shrinkbench bundle`, and nothing of it is read"
            )
        if info.compress_type not in _METHODS:
            raise ShrinkbenchError(
                f"{path}: {info.filename} is compressed in another way than deflate; it was not made by "
                "`shrinkbench bundle`, and nothing of it is read"
            )
        if info.filename in seen:
            raise ShrinkbenchError(
                f"{path} holds {info.filename} twice; it was not made by `shrinkbench bundle`, and "
                "nothing of it is read"
            )
        if info.file_size > limit:
            raise ShrinkbenchError(
                f"{path}: {info.filename} is {info.file_size / _MIB:,.0f} MiB large, and a bundle's may be "
                f"{limit // _MIB} MiB; nothing is read"
            )
        if info.filename == MANIFEST and info.file_size > _manifest_at_most(infos):
            raise ShrinkbenchError(
                f"{path}: its manifest is {info.file_size:,} bytes large, and {len(infos) - 1:,} files need "
                f"{_manifest_at_most(infos):,} at most; nothing is read"
            )
        seen.add(info.filename)
    folders = {str(parent) for name in seen for parent in PurePosixPath(name).parents}
    both = min(seen & folders, default="")
    if both:
        raise ShrinkbenchError(
            f"{path} holds {one_line(both, 120)} as a file and as a folder; it was not made by `shrinkbench "
            "bundle`, and nothing of it is read"
        )
    total = sum(info.file_size for info in infos)
    if total > _LARGEST:
        raise ShrinkbenchError(
            f"{path} unpacks to {total / _MIB:,.0f} MiB, and bundles up to {_LARGEST // _MIB:,} MiB are read; "
            "ask its author for several smaller ones"
        )


def _manifest_at_most(infos: list[zipfile.ZipInfo]) -> int:
    """Bytes of a manifest with a name and a checksum for each file, generously."""
    return 4096 + sum(len(info.orig_filename) + 200 for info in infos)


def _require_equal(path: Path, names: Set[str], listed: Set[str]) -> None:
    """Refuse members that the manifest does not list, and the other way round."""
    absent, stowed = sorted(listed - names), sorted(names - listed)
    if absent:
        told = f"its manifest lists {absent[0][:100]!r}{_more(absent)}, which it does not hold"
    elif stowed:
        told = f"it holds {stowed[0][:100]}{_more(stowed)}, which its manifest does not list"
    else:
        return
    raise ShrinkbenchError(
        f"{path}: {told}; the bundle was altered or damaged, ask its author for the original"
    )


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _parse_manifest(path: Path, content: bytes) -> Manifest:
    try:
        header = _Header.model_validate_json(content)
        if header.format != FORMAT or header.version != 1:
            raise ShrinkbenchError(
                f"{path} is a {header.format[:60]} of version {header.version}; this shrinkbench reads "
                f"{FORMAT} of version 1"
            )
        twice = repeated_name(content)
        if twice:  # readers disagree on which of the two counts
            raise ShrinkbenchError(
                f"{path}: its manifest has two entries of one name, '{one_line(twice, 60)}'; it was not made "
                "by `shrinkbench bundle`, and nothing of it is read"
            )
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        few = error.errors() if error.error_count() <= _TOLD else []
        wrong = {complaint["loc"]: complaint for complaint in few}
        if ("name",) in wrong and wrong["name",]["type"] != "missing":
            raise ShrinkbenchError(
                f"{path} says that its name is {str(wrong['name',]['input'])[:60]!r}; a name is at most "
                "100 letters, digits, '.', '_' and '-', and begins with a letter or digit"
            ) from None
        raise ShrinkbenchError(
            f"{path} has no manifest of a shrinkbench bundle; make it with `shrinkbench bundle`"
        ) from None


def _contents(path: Path, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    altered = []
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename == MANIFEST:
                    continue
                content = _read(archive, info)
                if _sha(content) == manifest.files[info.filename]:
                    yield info.filename, content
                else:
                    altered.append(info.filename)
    except _UNREADABLE as error:
        raise _not_whole(path, error) from None
    _refuse_altered(path, sorted(altered))


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member as announced; one that is larger has a wrong checksum.

    Asked for all of it, :mod:`zipfile` would unpack a gigabyte from a few bytes, and cut it off then.
    """
    with archive.open(info) as member:
        return member.read(info.file_size + 1)


def _refuse_altered(path: Path, altered: list[str]) -> None:
    if altered:
        raise ShrinkbenchError(
            f"{path}: {len(altered)} file{'s differ' if len(altered) > 1 else ' differs'} from the manifest, "
            f"first {altered[0][:100]}; the bundle was altered or damaged, ask its author for the original"
        )


def _not_whole(path: Path, error: BaseException) -> ShrinkbenchError:
    return ShrinkbenchError(
        f"{path} is not a whole bundle ({str(error)[:100]}); make it again with `shrinkbench bundle`"
    )


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
