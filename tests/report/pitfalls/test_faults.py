"""Every planted fault is named by a pitfall or a line of the checklist; clean results by none."""

import pytest
from faults import FAULTS, PAIR, clean
from made_results import make_results, write_store

from shrinkbench.report.checklist import judge
from shrinkbench.report.checklist.lines import RULES
from shrinkbench.report.pitfalls import find_pitfalls
from shrinkbench.report.statistics.observations import observe

FEW_PAIRS = {"pairs"}
"""What one dataset and network violate by themselves."""


def pitfalls(results):
    """What the report warns of, by the kind of pitfall."""
    return [(p.kind, f"{p.where}: {p.finding}") for p in find_pitfalls(results, observe(results))]


def violations(results):
    """What the checklist says against results, by its line."""
    lines = [line for line in judge(results) if line.status == "violated"]
    return [(line.id, sentence) for line in lines for sentence in line.evidence]


@pytest.fixture(scope="module")
def unspoiled():
    return clean()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_named(fault, unspoiled):
    look = violations if fault.kind in RULES else pitfalls
    said = [text for kind, text in look(fault.plant(list(unspoiled))) if kind == fault.kind]
    assert any(all(word in text for word in fault.words) for text in said), said


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("pairs", [1, 3])
def test_clean_results_raise_no_alarm(pairs, seeds):
    options = {"pairs": PAIR} if pairs == 1 else {}
    results = make_results(seeds=range(seeds), **options)
    said = pitfalls(results) + violations(results)
    assert {kind for kind, _ in said} <= (FEW_PAIRS if pairs == 1 else set()), said


@pytest.mark.parametrize(("value", "complaint"), [("1.2", "is above 1"), ("91.2", "is above 1"), ("NaN", "")])
def test_an_accuracy_that_cannot_be_is_refused_where_it_is_read(tmp_path, value, complaint):
    """Percent in place of a fraction is such a value too."""
    results = clean()[:4]
    store = write_store(tmp_path, results)
    path = store.result_path(results[0].key)
    stated = f'"top1": {results[0].after["top1"]!r}'
    text = path.read_text()
    assert stated in text
    path.write_text(text.replace(stated, f'"top1": {value}'))
    read, problems = store.results()
    assert len(read) == 3
    assert [problem.path for problem in problems] == [path]
    assert complaint in problems[0].sentence
