"""JSON has no infinity: a value that held one, or no number, would be stored and never read back."""

import json
import math
import typing

import pytest
from pydantic import ValidationError

import shrinkbench.results.plan
import shrinkbench.results.record
import shrinkbench.spec.experiment
import shrinkbench.spec.run
import shrinkbench.spec.sequential  # noqa: F401
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import MetricSpec, Recipe
from shrinkbench.spec.value import Value, parse_value

INFINITE = (math.inf, -math.inf, math.nan)
FINITE = (0.25, 2.0, 2, 0)
SETTING = {
    "name": "own",
    "reference": "",
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "batch_size": 8,
    "epochs": 1,
}


def kinds_below(kind):
    for each in kind.__subclasses__():
        yield each
        yield from kinds_below(each)


def holds_float(annotation):
    inner = getattr(annotation, "__value__", annotation)
    return inner is float or any(holds_float(each) for each in typing.get_args(inner))


FIELDS = sorted(
    {
        (kind, name)
        for kind in kinds_below(Value)
        if kind.__module__.startswith(("shrinkbench.spec", "shrinkbench.results"))
        for name, field in kind.model_fields.items()
        if holds_float(field.annotation)
    },
    key=lambda found: (found[0].__name__, found[1]),
)


def is_taken(kind, name, value):
    """Whether any form of the value passes as that field; others are missing, which is told beside it."""
    for form in (value, [value], {"a": value}):
        try:
            kind.model_validate({name: form})
        except ValidationError as error:
            if any(each["loc"][:1] == (name,) for each in error.errors()):
                continue
        return True
    return False


def test_every_number_of_what_is_stored_is_walked():
    found = {(kind.__name__, name) for kind, name in FIELDS}
    assert found >= {
        ("MetricSpec", "lower"),
        ("Recipe", "learning_rate"),
        ("Recipe", "weight_decay"),
        ("Normalisation", "mean"),
        ("ScoreSpec", "parameters"),
        ("Compression", "ratio"),
        ("ExperimentSpec", "compression"),
        ("Quality", "metrics"),
    }


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_no_number_of_a_value_is_infinite_or_none(kind, name):
    assert any(is_taken(kind, name, value) for value in FINITE), "the walk finds no form that is taken"
    bounds = {("MetricSpec", "lower"): -math.inf, ("MetricSpec", "upper"): math.inf}
    for value in INFINITE:
        if value != bounds.get((kind.__name__, name)):
            assert not is_taken(kind, name, value), value


def test_an_infinite_bound_is_none_and_bounds_have_room():
    common = {"name": "m", "direction": "lower", "unit": ""}
    free = MetricSpec(**common, lower=-math.inf, upper=math.inf)
    assert free == MetricSpec(**common)
    assert MetricSpec.model_validate_json(json.dumps(free.model_dump(mode="json"))) == free
    for bounds in ({"lower": 5, "upper": 1}, {"lower": math.nan}, {"upper": -math.inf}, {"lower": math.inf}):
        with pytest.raises(ShrinkbenchError, match="'m'"):
            parse_value(MetricSpec, common | bounds, where="the metric 'm'")


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "decay", "clip_gradient_norm"])
def test_a_recipe_of_infinite_numbers_is_refused_in_a_sentence(name):
    with pytest.raises(ShrinkbenchError, match=f"{name} = inf: input should be a finite number"):
        parse_value(Recipe, SETTING | {"learning_rate": 0.1, name: math.inf}, where="recipe 'own'")


def test_fields_that_do_not_agree_are_told_without_a_table():
    fields = SETTING | {"learning_rate": 0.1, "averaging": {"epochs": 9}}
    with pytest.raises(ShrinkbenchError) as refused:
        parse_value(Recipe, fields, where="recipe 'own'")
    assert str(refused.value) == "recipe 'own': averaging is of 9 epochs, and there are 1"
    with pytest.raises(ShrinkbenchError, match="own': name = a table: input should be a valid string"):
        parse_value(Recipe, fields | {"name": {"a": 1}}, where="recipe 'own'")


@pytest.mark.parametrize("name", ["", "m\x1b[31m", "a\n", "m" * 201, "\u202e"])
def test_a_metric_whose_name_acts_on_a_terminal_is_refused_wherever_it_comes_from(name):
    with pytest.raises(ShrinkbenchError, match="name"):
        parse_value(MetricSpec, {"name": name, "direction": "lower", "unit": ""}, where="a result")
    assert MetricSpec(name="ap50_traffic light", direction="higher", unit="").name == "ap50_traffic light"
