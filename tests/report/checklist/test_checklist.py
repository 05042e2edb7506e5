"""The checklist: planted faults turn exactly their lines, a clean set violates none."""

import tomllib
from pathlib import Path

import pytest
from made_results import (
    METHODS,
    PAIRS,
    SNIP,
    make_result,
    make_results,
    make_spec,
    method,
    plain_accuracy,
)
from places import SHARED

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report import checklist
from shrinkbench.report.checklist import gather, judge
from shrinkbench.report.checklist.lines import RULES
from shrinkbench.spec import AllocationSpec, FinetuningSpec, ScoreSpec

AUTHOR = {"context", "claims", "code", "architecture-citation", "state-of-the-art"}
"""Lines that no result can decide."""


def by_status(results, status="violated", **options):
    return {line.id for line in judge(results, **options) if line.status == status}


def without(results, drop):
    return [r for r in results if not drop(r.spec)]


@pytest.fixture(scope="module")
def clean():
    return make_results()


def test_a_clean_set_violates_nothing(clean):
    assert by_status(clean) == set()
    assert by_status(clean, "undecidable") == AUTHOR


def test_every_line_has_a_rule_and_every_rule_a_line():
    path = Path(checklist.__file__).with_name("lines.toml")
    lines = tomllib.loads(path.read_text())["line"]
    assert [line["id"] for line in lines] == list(dict.fromkeys(line["id"] for line in lines))
    assert {line["id"] for line in lines} == set(RULES)


def test_lines_are_the_papers_words():
    shared = SHARED / "papers"
    if not shared.is_dir():
        pytest.skip("the papers are not beside the repository")

    def letters(text):
        for ligature, both in (("ﬁ", "fi"), ("ﬀ", "ff"), ("ﬂ", "fl")):
            text = text.replace(ligature, both)
        return "".join(c for c in text.lower() if c.isalnum())

    paper = letters((shared / "state-of-neural-network-pruning-appendices.txt").read_text())
    paper += letters((shared / "state-of-neural-network-pruning.txt").read_text())
    paper += letters((shared / "rethinking-the-value-of-network-pruning.txt").read_text())
    path = Path(checklist.__file__).with_name("lines.toml")
    lines = tomllib.loads(path.read_text())["line"]
    reworded = {line["id"] for line in lines if letters(line["text"]) not in paper}
    assert reworded == set()


def test_a_missing_seed(clean):
    def drop(s):
        return (s.model.name, s.method.name, s.target, s.seed) == ("resnet56", "layerwise_gradient", 8, 1)

    assert by_status(without(clean, drop)) == {"seeds"}


def test_one_seed_only():
    assert by_status(make_results(seeds=(0,))) == {"seeds", "error-bars", "means-and-deviations"}


def test_one_operating_point():
    found = by_status(make_results(compressions=(1, 4)))
    assert found == {"range", "operating-points"}


def test_four_operating_points():
    assert by_status(make_results(compressions=(1, 2, 8, 16, 32))) == {"operating-points"}


def test_accuracy_that_never_collapses():
    def accuracy(spec):
        return plain_accuracy(spec) + (0.12 if spec.target > 16 else 0.0)

    lines = {line.id: line for line in judge(make_results(accuracy=accuracy))}
    assert {name for name, line in lines.items() if line.status == "violated"} == {"range"}
    assert "larger compression" in lines["range"].needed


def test_no_random_baseline(clean):
    results = without(clean, lambda s: s.method.score.kind == "random")
    assert by_status(results) == {"random", "random-global", "random-same-proportions"}


def test_no_magnitude_baseline(clean):
    results = without(clean, lambda s: s.method.score.kind == "magnitude")
    assert by_status(results) == {
        "context",
        "magnitude",
        "magnitude-global-or-uniform",
        "magnitude-same-proportions",
    }


@pytest.mark.parametrize("kind", ["random", "magnitude"])
def test_no_control_of_the_same_proportions(clean, kind):
    results = without(clean, lambda s: s.method.name == f"{kind}@global_gradient")
    assert by_status(results) == {f"{kind}-same-proportions"}


def test_same_proportions_are_seen_in_what_was_kept_not_in_names(clean):
    renamed = method("a", "random")
    results = []
    for r in clean:
        if r.spec.method.name == "random@global_gradient":
            spec = r.spec.model_copy(update={"method": renamed})
            r = r.model_copy(update={"spec": spec, "key": spec.key})
        results.append(r)
    assert by_status(results) == set()


def test_a_random_baseline_missing_at_one_point(clean):
    results = without(clean, lambda s: (s.method.name, s.target) == ("random", 8))
    assert (
        {"random-global"}
        <= by_status(results)
        <= {"random-global", "random-same-proportions", "operating-points"}
    )


def test_no_control(clean):
    lines = by_status(without(clean, lambda s: s.is_control))
    assert lines == {"control", "range"}


def test_a_control_that_was_not_fine_tuned(clean):
    idle = [r.model_copy(update={"epochs_run": 0}) if r.spec.is_control else r for r in clean]
    assert by_status(idle) == {"control"}
    (line,) = (line for line in judge(idle) if line.id == "control")
    assert set(line.runs) <= {r.key for r in idle if r.spec.is_control}
    assert line.runs


def test_two_pairs_and_toys_do_not_count():
    assert by_status(make_results(pairs=PAIRS[1:])) == {"pairs"}
    assert by_status(make_results(pairs=[*PAIRS[1:], ("mnist", "lenet-300-100")])) == {"pairs"}
    assert by_status(make_results(pairs=[*PAIRS[:2], ("cifar10", "vgg")])) == {"pairs"}  # none is large


def test_one_method_has_no_competitor():
    found = by_status(make_results(methods=["global_gradient"]))
    assert {"competing-curves", "random", "magnitude", "context"} <= found


def test_different_versions_within_a_task(clean):
    first = clean[3].provenance
    other = first.model_copy(update={"versions": first.versions | {"torch": "2.12.0"}})
    results = [*clean[:3], clean[3].model_copy(update={"provenance": other}), *clean[4:]]
    lines = {line.id: line for line in judge(results)}
    assert {n for n, line in lines.items() if line.status == "violated"} == {"same-code"}
    assert lines["same-code"].runs == (clean[3].key,)
    assert "torch: 2.12.0 in 1 run (" in " ".join(lines["same-code"].evidence)


def test_unknown_hardware(clean):
    results = [
        r.model_copy(update={"provenance": r.provenance.model_copy(update={"processor": ""})}) for r in clean
    ]
    assert by_status(results) == {"hardware"}


def test_published_weights_leave_the_initialisation_to_the_author(clean):
    results = []
    for r in clean:
        weights = r.spec.weights.model_copy(update={"kind": "file", "digest": "0" * 64, "recipe": None})
        task = r.spec.task.model_copy(update={"weights": weights})
        spec = r.spec.model_copy(update={"task": task})
        results.append(r.model_copy(update={"spec": spec, "key": spec.key}))
    assert by_status(results, "undecidable") == AUTHOR | {"seeds"}
    assert by_status(results) == set()


def test_recorded_references_decide_the_citation(clean):
    results = [r.model_copy(update={"references": {"model": "he2016deep"}}) for r in clean]
    assert "architecture-citation" not in by_status(results, "undecidable")


def test_a_plug_in_needs_its_code_published(clean):
    foreign = METHODS["global_gradient"]
    score = foreign.score.model_copy(update={"source": "0" * 64})
    foreign = foreign.model_copy(update={"score": score})
    results = []
    for r in clean:
        if r.spec.method.name == "global_gradient":
            spec = r.spec.model_copy(update={"method": foreign})
            r = r.model_copy(update={"spec": spec, "key": spec.key})
        results.append(r)
    assert by_status(results, "undecidable") == AUTHOR | {"algorithm"}


def test_a_failed_run_counts_as_missing(clean):
    victim = next(i for i, r in enumerate(clean) if r.spec.target == 4)
    results = [*clean]
    results[victim] = make_result(results[victim].spec, failed="out of memory")
    assert "seeds" in by_status(results)


def test_only_the_proposed_method_is_judged(clean):
    results = without(clean, lambda s: s.method.allocation.like is not None)
    assert by_status(results, proposed=["layerwise_magnitude"]) == set()  # uniform chance is its control
    both = {"random-same-proportions", "magnitude-same-proportions"}
    assert by_status(results, proposed=["global_gradient"]) == both
    assert gather(results, proposed=["global_gradient"]).proposed == ("global_gradient",)
    with pytest.raises(ShrinkbenchError, match="no method 'magic'"):
        judge(results, proposed=["magic"])


def test_every_judgement_carries_its_reason(clean):
    for results in (clean, make_results(seeds=(0,), compressions=(1, 4), methods=["global_gradient"])):
        for line in judge(results):
            assert line.evidence
            assert bool(line.needed) == (line.status in ("violated", "undecidable")), line.id


def test_json_counts_lines(clean):
    found = checklist.as_json(judge(clean))
    statuses = ("satisfied", "violated", "undecidable", "inapplicable")
    assert sum(found[status] for status in statuses) == len(found["lines"]) == 32


def test_magnitude_by_another_schedule_is_judged_and_is_no_baseline(clean):
    rewound = FinetuningSpec(name="rewind-weights-0", weights="rewound", recipe="pretraining")
    ticket = method("lottery_ticket", "magnitude", finetuning=rewound, rounds=None)
    label = ticket.name
    results = without(clean, lambda s: s.method.score.kind == "magnitude")
    for r in clean:
        if r.spec.method.name == "global_magnitude":
            spec = r.spec.model_copy(update={"method": ticket})
            results.append(r.model_copy(update={"spec": spec, "key": spec.key}))
    assert label in gather(results).proposed
    assert {"magnitude", "magnitude-global-or-uniform"} <= by_status(results)
    with_both = results + [r for r in clean if r.spec.method.name == "global_magnitude"]
    assert not {"magnitude", "magnitude-global-or-uniform"} & by_status(with_both)


def replaced(results, name, new):
    """The results with another definition of the method ``name``."""
    changed = []
    for r in results:
        if r.spec.method.name == name:
            spec = r.spec.model_copy(update={"method": new})
            r = r.model_copy(update={"spec": spec, "key": spec.key})
        changed.append(r)
    return changed


def scored(name, kind):
    made = method(name, kind)
    return made.model_copy(update={"score": ScoreSpec(name=name, kind=kind)})


def test_a_score_is_what_its_kind_says_however_it_is_spelt(clean):
    randomised = replaced(clean, "random", scored("randomized_hessian", "other"))
    assert "random-global" in by_status(randomised)
    assert "randomized_hessian" in gather(randomised).proposed
    sized = replaced(clean, "global_magnitude", scored("l1_norm", "magnitude"))
    assert "magnitude-global-or-uniform" not in by_status(sized)
    assert "l1_norm" not in gather(sized).proposed
    spelt = replaced(clean, "global_magnitude", scored("magnitude_like", "other"))
    assert "magnitude_like" in gather(spelt).proposed


def test_a_control_is_never_judged_whatever_it_is_a_control_of():
    rewound = FinetuningSpec(name="rewind-weights-0", weights="rewound", recipe="pretraining")
    ticket = method("lottery_ticket", "magnitude", finetuning=rewound)
    like = AllocationSpec(name="as:lottery_ticket", scope="given", like=ticket)
    control = method("random@lottery_ticket", "random", like, rewound)
    made = [make_result(make_spec(method=m)) for m in (ticket, control)]
    assert gather(made).proposed == (ticket.name,)


def test_every_run_needs_its_own_control():
    """One that was trained from scratch is no control of what was fine-tuned."""
    runs = [make_result(make_spec(method=m, compression=4.0)) for m in (METHODS["random"], SNIP)]
    controls = [make_result(make_spec(method=m, compression=1.0)) for m in (METHODS["random"], SNIP)]
    assert "control" not in by_status(runs + controls)
    for kept, lacking in ((controls[:1], "snip"), (controls[1:], "random")):
        (line,) = (line for line in judge(runs + kept) if line.id == "control")
        assert line.status == "violated"
        assert f"{lacking} at 4x on" in line.evidence[0]
    other_seed = make_result(make_spec(method=SNIP, compression=1.0, seed=1))
    assert "control" in by_status([*runs, controls[0], other_seed])


def test_a_collapse_is_measured_from_the_own_control():
    """From scratch the whole network is 30 points worse; its pruned network loses 1 point to it, no more."""

    def accuracy(spec):
        start = 0.6 if spec.method.start == "initialisation" else 0.9
        return start - (0 if spec.is_control else 0.01)

    made = make_results(methods=["global_gradient"], pairs=PAIRS[:1], accuracy=accuracy)
    made += [
        make_result(make_spec(method=SNIP, compression=c, seed=s), accuracy=accuracy)
        for c in (1.0, 4.0)
        for s in range(3)
    ]
    evidence = gather(made)
    (task,) = evidence.tasks
    assert [evidence.collapsed(task, m) for m in ("global_gradient", "snip")] == [False, False]
    without_controls = gather([r for r in made if not r.spec.is_control])
    assert without_controls.collapsed(task, "snip") is None
