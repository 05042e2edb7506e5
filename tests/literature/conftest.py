"""The published export and the papers, from the shared folder; absent: the tests that need them are skipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from places import SHARED

from shrinkbench.literature import Corpus, load_corpus

EXPORT = SHARED / "data" / "corpus"


@pytest.fixture(scope="session")
def export_folder() -> Path:
    if not EXPORT.is_dir():
        pytest.skip(f"the published export is not at {EXPORT}")
    return EXPORT


@pytest.fixture(scope="session")
def export(export_folder: Path) -> Corpus:
    return load_corpus(export_folder)


@pytest.fixture(scope="session")
def bundled() -> Corpus:
    return load_corpus()


@pytest.fixture
def export_copy(export_folder: Path, tmp_path: Path) -> Path:
    """A writable copy of the five tables."""
    for path in export_folder.glob("*.csv"):
        shutil.copy(path, tmp_path / path.name)
        (tmp_path / path.name).chmod(0o644)
    return tmp_path


@pytest.fixture(scope="session")
def paper_text() -> str:
    path = SHARED / "papers" / "state-of-neural-network-pruning.txt"
    if not path.is_file():
        pytest.skip(f"the paper's text is not at {path}")
    return path.read_text(encoding="utf-8")
