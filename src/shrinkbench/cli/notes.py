"""What was left whole, or left unread, as sentences of a command's output."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer

from shrinkbench.errors import (
    DamagedWarning,
    LeftWholeWarning,
    OtherCodeWarning,
    SettingsWarning,
    TakenWarning,
    escaped,
)


def notes_of(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """Each of this library's own sentences once; other warnings are shown as they would have been."""
    from shrinkbench.pruning.collapse import LayerCollapseWarning
    from shrinkbench.pruning.prunable import UnreadWarning

    of_files = (TakenWarning, DamagedWarning, SettingsWarning, OtherCodeWarning)
    own = (*of_files, LeftWholeWarning, UnreadWarning, LayerCollapseWarning)
    notes: list[str] = []
    for warning in caught:
        if issubclass(warning.category, own):
            notes.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return list(dict.fromkeys(notes))


@contextmanager
def tell_notes() -> Iterator[None]:
    """Print what is warned of inside as notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for sentence in notes_of(caught):
        typer.echo(escaped(f"note: {sentence}"), err=True)
