"""Pruning literature as data: a corpus, its analysis, its figures, and own results laid over it.

The modules ``overlay`` and ``figures`` are imported by themselves, as they need pandas and matplotlib.

>>> corpus = load_corpus()
>>> summarise_corpus(corpus).pairs
23
"""

from shrinkbench.literature.corpus import Corpus, Finding
from shrinkbench.literature.linting import lint
from shrinkbench.literature.store import load_corpus, write_corpus
from shrinkbench.literature.summary import CorpusSummary, summarise_corpus

__all__ = [
    "Corpus",
    "CorpusSummary",
    "Finding",
    "lint",
    "load_corpus",
    "summarise_corpus",
    "write_corpus",
]
