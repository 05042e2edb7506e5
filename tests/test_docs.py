"""What the documentation says is true: its code runs, its references exist, its links lead somewhere."""

import pkgutil
import re

import pytest
from places import ROOT

from shrinkbench.datasets import DATASETS
from shrinkbench.models import MODELS
from shrinkbench.pruning import METHODS
from shrinkbench.spec import read_experiments
from shrinkbench.training import RECIPES

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
BIBLIOGRAPHY = ROOT / "docs" / "references.bib"


def keys():
    return set(re.findall(r"^@\w+\{([^,]+),", BIBLIOGRAPHY.read_text(), flags=re.MULTILINE))


def cited():
    yield from ((f"model {name}", card.reference) for name, card in MODELS.items())
    yield from ((f"dataset {name}", card.reference) for name, card in DATASETS.items())
    yield from (
        (f"method {name}", m.reference)
        for name, m in METHODS.items()
        if m.score.__module__.startswith("shrinkbench.") and not name.startswith("doctest_")
    )
    yield from ((f"recipe {name}", recipe.reference) for name, recipe in RECIPES.items())
    yield from ((e.name, e.reference) for p in ROOT.glob("experiments/*.toml") for e in read_experiments(p))


def test_every_reference_is_in_the_bibliography():
    missing = sorted(
        {(what, key) for what, keys_ in cited() for key in keys_.split(", ") if key and key not in keys()}
    )
    assert not missing


def test_the_bibliography_names_nothing_twice():
    found = re.findall(r"^@\w+\{([^,]+),", BIBLIOGRAPHY.read_text(), flags=re.MULTILINE)
    assert len(found) == len(set(found)) > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_package_exist(page):
    text = page.read_text()
    lines = {line for line in text.splitlines() if line.startswith(("from shrinkbench", "import shrinkbench"))}
    for line in sorted(lines):
        exec(line, {})
    for path in set(re.findall(r"`(shrinkbench\.[a-z_.]+)", text)) - {"shrinkbench.methods"}:  # an entry point
        assert pkgutil.resolve_name(path), path


def test_the_tutorials_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "tutorial.md", "exec"), {"__name__": "tutorial"})


def test_the_tutorials_method_is_at_most_ten_lines():
    text = (ROOT / "docs" / "tutorial.md").read_text()
    block = next(b for b in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "@pruning_method" in b)
    assert len(block.strip().splitlines()) <= 10
