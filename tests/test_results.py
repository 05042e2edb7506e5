"""The published results: the page says what the bundles beside it hold, which agree with themselves."""

import importlib
from pathlib import Path

import pytest

from shrinkbench.results.bundle import read_source

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = sorted((ROOT / "docs" / "results").glob("*.zip"))


def test_the_page_is_what_the_bundles_say(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "reproduce")
    findings = importlib.import_module("findings")
    findings.write_page(tmp_path)
    assert (tmp_path / "README.md").read_text() == (ROOT / "docs" / "results" / "README.md").read_text()


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.stem)
def test_a_bundle_is_whole_and_consistent(path):
    bundle = read_source(path)
    assert bundle.results
    assert not bundle.problems
    assert not bundle.missing
