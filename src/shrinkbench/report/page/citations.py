"""What to cite: BibTeX for every method, network, dataset and recipe of the results."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shrinkbench.results.record import RunResult

THE_PAPER = "blalock2020state"


@dataclass(frozen=True)
class Citation:
    """One entry of the bibliography and what in the results rests on it; ``entry`` is empty if unknown."""

    key: str
    cited_for: tuple[str, ...]
    entry: str

    @property
    def year(self) -> int | None:
        """Year of publication, where the entry states it."""
        found = re.search(r"\byear\s*=\s*[{\"]?(\d{4})", self.entry)
        return int(found[1]) if found else None

    @property
    def title(self) -> str:
        """Title in plain text, or the key."""
        found = re.search(r"\btitle\s*=\s*\{(.*)\},?\s*$", self.entry, flags=re.MULTILINE)
        return re.sub(r"[{}\\]", "", found[1]) if found else self.key


def cite(results: Iterable[RunResult]) -> list[Citation]:
    """Citations in order of what they are for; keys that the bibliography lacks come without an entry."""
    uses: dict[str, dict[str, None]] = defaultdict(dict)
    uses[THE_PAPER]["definitions and baselines"] = None
    for result in results:
        spec = result.spec
        named = {"method": spec.method.name, "model": spec.model.name, "dataset": spec.data.name}
        for kind, key in result.references.items():
            uses[key][f"{_KINDS.get(kind, kind)} {named.get(kind, '')}".strip()] = None
        for recipe in (spec.recipe, spec.weights.recipe):
            if recipe is not None and recipe.reference:
                uses[recipe.reference][f"recipe {recipe.name}"] = None
    entries = bibliography()
    return [Citation(key, tuple(sorted(what)), entries.get(key, "")) for key, what in sorted(uses.items())]


_KINDS = {"model": "network"}


def bibtex(citations: Iterable[Citation]) -> str:
    """The entries as one BibTeX file; what each is cited for stands above it."""
    return "\n".join(f"% {', '.join(c.cited_for)}\n{c.entry.strip()}\n" for c in citations if c.entry)


@functools.cache
def bibliography() -> Mapping[str, str]:
    """Entries of references.bib by key; nothing where the file was not installed."""
    inside = Path(__file__).with_name("references.bib")
    path = inside if inside.is_file() else Path(__file__).resolve().parents[4] / "docs" / "references.bib"
    return parse_bibtex(path.read_text(encoding="utf-8")) if path.is_file() else {}


def parse_bibtex(text: str) -> dict[str, str]:
    """Entries by key; an entry reaches to the brace that closes it.

    >>> list(parse_bibtex("@misc{a, title = {An {A}}}\\n@misc{b, year = 1990}"))
    ['a', 'b']
    """
    entries = {}
    for start in re.finditer(r"@\w+\s*\{\s*([^,\s]+)\s*,", text):
        depth = 0
        for end in range(text.index("{", start.start()), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                entries[start[1]] = text[start.start() : end + 1]
                break
    return entries
