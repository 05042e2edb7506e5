"""A corpus of four papers, small enough to count by hand."""

from __future__ import annotations

from decimal import Decimal

from shrinkbench.literature.corpus import Corpus
from shrinkbench.literature.rules import Rules
from shrinkbench.literature.schema import Fact, Paper


def paper(
    key: str, year: int, *compares_to: str, peer_reviewed: bool = True, month: int | None = None
) -> Paper:
    return Paper(
        key=key,
        author=key.capitalize(),
        year=year,
        month=month,
        peer_reviewed=peer_reviewed,
        compares_to=compares_to,
    )


def fact(key: str, quantity: str, value: str | None = None, unit: str = "", **more: object) -> Fact:
    fields = {
        "paper": key,
        "dataset": "ImageNet",
        "architecture": "VGG-16",
        "network": "a",
        "quantity": quantity,
        "value": None if value is None else Decimal(value),
        "unit": unit,
        "source": "Table 1",
        **more,
    }
    return Fact.model_validate(fields)


def corpus(papers: list[Paper], facts: list[Fact], rules: Rules | None = None) -> Corpus:
    return Corpus(name="made", reference="", papers=tuple(papers), facts=tuple(facts), rules=rules or Rules())
