"""The cache folder: what is slow to fetch or to make is made once, and found again under a digest."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from shrinkbench.datasets.content import contents_of, hash_file, state_of
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import cache_folder, fetch, unique_suffix

_SUMS = "sha256.json"


def cached_folder(key: str, fill: Callable[[Path], None]) -> Path:
    """The folder ``key`` of the cache; where it is missing, ``fill`` writes its files first.

    A folder that exists is whole: it is filled under another name and renamed. Processes that want the same
    folder wait for the one that fills it.
    """
    folder = cache_folder() / key
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if folder.is_dir():
                return folder
            _fill(folder, fill)
    except OSError as error:
        raise ShrinkbenchError(
            f"cannot write in the cache folder {cache_folder()} ({error}); "
            "set SHRINKBENCH_CACHE to a folder with room that can be written"
        ) from None
    return folder


def cached_arrays(key: str, fill: Callable[[Path], None]) -> Path:
    """:func:`cached_folder` for what is read in place of the data that it was made from.

    Its files are hashed when they are made, and refused where they are others when the folder is opened.
    """

    def fill_and_hash(folder: Path) -> None:
        fill(folder)
        sums = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
        (folder / _SUMS).write_text(json.dumps(sums), encoding="ascii")

    folder = cached_folder(key, fill_and_hash)
    try:
        sums = json.loads((folder / _SUMS).read_bytes())
        present = {path.name for path in folder.iterdir()} - {_SUMS}
        damaged = sorted(present ^ sums.keys())  # a file that is gone, or one that nobody hashed
        known = [name for name in sums if name in present]
        touched = [n for n in known if tuple(sums[n][0]) != state_of((folder / n).stat())]
        contents = contents_of(folder, touched)
        damaged += [name for row, name in enumerate(touched) if contents.digest(row) != sums[name][1]]
    except (OSError, ValueError, TypeError, AttributeError):
        damaged = [_SUMS]
    if damaged:
        raise ShrinkbenchError(
            f"{folder / damaged[0]} is not what was put into the cache; remove its folder, and it is made "
            "again from the data"
        )
    return folder


def _fill(folder: Path, fill: Callable[[Path], None]) -> None:
    unfinished = folder.with_name(f"{folder.name}.{unique_suffix()}")
    try:
        unfinished.mkdir()
        fill(unfinished)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


@dataclass(frozen=True)
class Download:
    """A public file: where it lies and the SHA-256 (hex) of its bytes."""

    url: str
    sha256: str

    def fetched(self, dataset: str) -> Path:
        """The file in the cache, checked; fetched, or resumed, where it is missing."""
        target = cache_folder() / "downloads" / dataset / self.url.rsplit("/", 1)[-1].split("?")[0]
        return fetch(
            self.url, target, sha256=self.sha256, instead=f"pass the folder that holds {dataset} with --data"
        )

    def unpacked(self, dataset: str) -> Path:
        """The folder in the cache that holds the files of this archive (tar or zip)."""

        def fill(folder: Path) -> None:
            archive = self.fetched(dataset)
            if archive.suffix == ".zip":
                with zipfile.ZipFile(archive) as zipped:
                    zipped.extractall(folder)  # noqa: S202 - the digest says that it is the published archive
            else:
                with tarfile.open(archive) as tarred:
                    tarred.extractall(folder, filter="data")

        return cached_folder(f"unpacked/{self.sha256}", fill)
