"""Own results beside published ones: drawn into files by one process, read into the page by another."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from shrinkbench.files import write_atomically
from shrinkbench.plotting import FORMATS
from shrinkbench.spec import Value


class LaidBeside(Value):
    """One task that has published counterparts: which, the stem of its files, and what differs."""

    task: str
    pairs: tuple[tuple[str, str], ...]
    stem: str
    notes: tuple[str, ...]


class PublishedIndex(Value):
    """All tasks beside the corpus: where they have a counterpart, and why the others have none."""

    corpus: str
    found: tuple[LaidBeside, ...] = ()
    unmatched: tuple[str, ...] = ()


_INDEX = "published.json"
_PARTS = (*FORMATS, "csv", "md")


def check_corpus(directory: Path) -> None:
    """Raise ``ShrinkbenchError`` where ``directory`` is no corpus."""
    from shrinkbench.literature.store import load_corpus

    load_corpus(directory)


def write_published(frame: pd.DataFrame, directory: Path | None, folder: Path) -> None:
    """Draw every task of the result table ``frame`` that a corpus has results for, and note the rest.

    The corpus is the one in ``directory``, or the bundled one.
    """
    from shrinkbench.literature.overlay import overlay
    from shrinkbench.literature.overlay_figure import write_overlay
    from shrinkbench.literature.store import load_corpus

    corpus = load_corpus(directory)
    found: list[LaidBeside] = []
    unmatched: Sequence[str] = ()
    if (frame["status"] == "done").any():
        laid = overlay(frame, corpus)
        unmatched = laid.unmatched
        for one in laid.found:
            stem = write_overlay(one, folder)[0].stem
            found.append(LaidBeside(task=one.task, pairs=one.pairs, stem=stem, notes=one.notes))
    published = PublishedIndex(
        corpus="the tables of Liu et al. 2019, which come with shrinkbench"
        if corpus.origin == "bundled"
        else f"the corpus in {corpus.origin}",
        found=tuple(found),
        unmatched=tuple(unmatched),
    )
    write_atomically(folder / _INDEX, published.as_json(), durable=False)


def read_published(folder: Path) -> PublishedIndex:
    """What :func:`write_published` noted in ``folder``."""
    return PublishedIndex.model_validate_json((folder / _INDEX).read_bytes())


def files_of(published: PublishedIndex, folder: Path) -> list[Path]:
    """Every file that belongs to it."""
    return [folder / _INDEX, *(folder / f"{b.stem}.{part}" for b in published.found for part in _PARTS)]


def as_data_uri(svg: Path) -> str:
    """A drawing that stands inside a page, so that the page needs no other file."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode()}"
