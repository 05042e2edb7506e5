"""The cache folder: what is slow to fetch or to make is made once, and found again under a digest."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import cache_folder, fetch


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


def _fill(folder: Path, fill: Callable[[Path], None]) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
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
