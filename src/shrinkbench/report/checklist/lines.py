"""The lines of Appendix B and Section 6, and of Liu et al. (lines.toml), and what judging one of them gives."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from shrinkbench.report.checklist.evidence import Evidence

LineStatus = Literal["satisfied", "violated", "undecidable", "inapplicable"]


@dataclass(frozen=True)
class Judgement:
    """How a line stands.

    ``evidence`` says what in the results it rests on, ``runs`` are keys of the runs at fault (or, for a
    satisfied line, of examples), ``figure`` a file of the report that shows it (``{metric}`` in it
    stands for the metric that tasks lead with). ``needed`` is what would
    satisfy the line: runs to add where it is violated, the author's sentence where it is not decidable.
    """

    status: LineStatus
    evidence: tuple[str, ...]
    runs: tuple[str, ...] = ()
    figure: str = ""
    needed: str = ""


@dataclass(frozen=True)
class Line:
    """One line of the checklist, judged."""

    id: str
    source: str
    group: str
    text: str
    status: LineStatus
    evidence: tuple[str, ...]
    runs: tuple[str, ...]
    figure: str
    needed: str


Rule = Callable[[Evidence], Judgement]
RULES: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Rule], Rule]:
    """Register the decorated function as what judges the line ``name`` of lines.toml."""

    def register(judge: Rule) -> Rule:
        RULES[name] = judge
        return judge

    return register


def judge_from(evidence: Evidence) -> list[Line]:
    """Every line of lines.toml, in its order, judged."""
    stored = Path(__file__).with_name("lines.toml").read_text(encoding="utf-8")
    lines = []
    for text in tomllib.loads(stored)["line"]:
        d = RULES[text["id"]](evidence)
        told = {f.name: getattr(d, f.name) for f in fields(d)}
        lines.append(Line(**text, **{**told, "figure": d.figure.replace("{metric}", evidence.stem)}))
    return lines


def satisfied(*evidence: str, figure: str = "", runs: tuple[str, ...] = ()) -> Judgement:
    """The results meet the line."""
    return Judgement("satisfied", evidence, runs, figure)


def violated(*evidence: str, needed: str, runs: tuple[str, ...] = (), figure: str = "") -> Judgement:
    """The results contradict the line; ``needed`` would mend it."""
    return Judgement("violated", evidence, runs, figure, needed)


def undecidable(*evidence: str, needed: str) -> Judgement:
    """Results alone cannot tell; ``needed`` is the sentence that the author must supply."""
    return Judgement("undecidable", evidence, needed=needed)


def inapplicable(*evidence: str) -> Judgement:
    """The line is about nothing that was run."""
    return Judgement("inapplicable", evidence)


def listing(items: list[str], *, limit: int = 6) -> str:
    """Items in a sentence, cut after ``limit``.

    >>> listing(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
