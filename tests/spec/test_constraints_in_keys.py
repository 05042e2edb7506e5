"""Bounds on layers are part of what a run is; a run without any is what it was before there were bounds."""

import pytest
from made_results import FINETUNE, make_spec

from shrinkbench.spec import UNCONSTRAINED, UNPRUNED, Constraints, RunSpec, digest
from shrinkbench.spec.value import digest_of_fields

EIGHTS = Constraints(round_to=8, ignore=("fc", "conv1"), max_ratio=0.5)


def test_without_bounds_a_run_has_the_key_that_it_had_before_there_were_any():
    then = FINETUNE.model_copy(update={"epochs": 30})
    spec = make_spec(recipe=then)
    assert "constraints" not in spec.model_dump()
    assert spec.key == digest_of_fields(spec.model_dump(mode="json"))
    # Both were computed by the version that knew no constraints.
    assert spec.key == "6c70d0b95918b19ed7195e82228eda970654a2f784c1cf462ef971025382552b"
    assert (
        make_spec(seed=1, recipe=then).control.key
        == "9c55972329abbac553b62090fec29fe840d20f75d6f1ed66afa916b3b60bfe0b"
    )


def test_bounds_make_another_run_whatever_their_order():
    bound = make_spec(constraints=EIGHTS)
    keys = {make_spec(constraints=c).key for c in (Constraints(round_to=8), Constraints(round_to=16), EIGHTS)}
    assert len(keys | {make_spec().key}) == 4
    again = Constraints(round_to=8, ignore=("conv1", "fc", "conv1"), max_ratio=0.5)
    assert make_spec(constraints=again).key == bound.key
    assert make_spec(constraints=Constraints(round_to=1)).key == make_spec().key


def test_what_is_stored_is_read_back():
    for spec in (make_spec(), make_spec(constraints=EIGHTS)):
        read = RunSpec.model_validate_json(spec.model_dump_json())
        assert (read, read.key) == (spec, spec.key)


def test_controls_are_shared_and_have_no_bounds():
    assert make_spec(constraints=EIGHTS).control == make_spec().control
    assert make_spec(constraints=EIGHTS).control.constraints == UNCONSTRAINED
    with pytest.raises(ValueError, match="constraints have no say"):
        make_spec(amount=UNPRUNED, constraints=EIGHTS)


def test_what_runs_share_keeps_the_bounds():
    spec = make_spec(constraints=EIGHTS)
    spec = spec.model_copy(update={"search": spec.recipe})
    assert spec.searching.constraints == EIGHTS
    assert digest(spec.searching) != digest(spec.model_copy(update={"constraints": UNCONSTRAINED}).searching)
