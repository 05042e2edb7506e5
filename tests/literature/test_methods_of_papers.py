"""The papers one has to compare to, and the methods that are said to be theirs."""

import json

import pytest
from typer.testing import CliRunner

from shrinkbench.cli.literature import app
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.literature.methods import methods_by_paper, often_compared_to, on_this_network


def test_every_name_is_that_of_a_method_and_every_paper_has_either_names_or_a_reason():
    from shrinkbench.pruning import METHODS

    for paper, (names, reason) in methods_by_paper().items():
        assert bool(names) != bool(reason), paper
        for name in names:
            assert METHODS.get(name).name, (paper, name)


def test_most_papers_that_others_compare_to_have_their_method(export):
    found = often_compared_to(export)
    assert len(found) == 27
    assert sum(bool(s.methods) for s in found) >= 22
    assert all(s.why_not != "not looked at" for s in found)
    counts = [s.compared_to_by for s in found]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 2


def test_papers_on_the_same_network_are_all_accounted_for(export):
    found = on_this_network(export, "ImageNet", "ResNet-50")
    assert len(found) == 15
    assert all(s.why_not != "not looked at" for s in found)
    assert sum(bool(s.methods) for s in found) >= 13


def test_papers_of_the_table_are_in_the_corpus(export):
    assert set(methods_by_paper()) <= set(export.by_key)


def test_a_corpus_without_comparisons_says_so(bundled):
    with pytest.raises(ShrinkbenchError, match="is compared to by 2 others or more; give the published export"):
        often_compared_to(bundled)


def test_the_command_shows_both(export_folder):
    run = CliRunner().invoke(app, ["methods", "--corpus", str(export_folder), "--json"])
    rows = json.loads(run.stdout)
    assert len(rows) == 27
    assert rows[0]["methods"][0] == "channel_l1"
    shown = CliRunner().invoke(
        app, ["methods", "--corpus", str(export_folder), "--dataset", "ImageNet", "--architecture", "ResNet-50"]
    )
    assert shown.stdout.startswith("15 papers, ")
    assert "none:" in shown.stdout
