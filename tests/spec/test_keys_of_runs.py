"""A key is the digest of all that is serialised, however it was come by."""

import copy
import pickle

from made_results import METHODS, make_spec

from shrinkbench.spec import Compression, Constraints
from shrinkbench.spec.value import digest_of_fields


def key_of(spec):
    """As the keys of stored results are defined."""
    return digest_of_fields(spec.model_dump(mode="json"))


def made():
    bounds = Constraints(round_to=8, ignore=("fc",))
    for method in METHODS:
        for spec in (make_spec(method=method), make_spec(method=method, constraints=bounds, seed=3)):
            yield from (spec, spec.control, spec.pretraining)
            searching = spec.model_copy(update={"search": spec.recipe})
            yield from (searching, searching.searching)


def test_the_key_is_the_digest_of_the_whole_value():
    for spec in made():
        assert spec.key == key_of(spec)
        assert spec.key == type(spec).model_validate_json(spec.model_dump_json()).key


def test_a_changed_copy_has_a_key_of_its_own():
    spec = make_spec()
    before = spec.key
    for deep in (False, True):
        changed = spec.model_copy(update={"seed": 7}, deep=deep)
        assert changed.key == key_of(changed) != before
    for same in (copy.copy(spec), copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert same.key == before


def test_a_key_that_is_known_changes_nothing_else():
    known, fresh = make_spec(), make_spec()
    assert known.key
    assert (known, hash(known), repr(known)) == (fresh, hash(fresh), repr(fresh))
    assert dict(known) == dict(fresh)
    assert known.model_dump_json() == fresh.model_dump_json()


def test_equal_values_that_are_written_differently_have_different_keys():
    """``1`` and ``1.0``: a text is kept for the very object, never for one that equals it."""
    whole, broken = Compression.model_construct(ratio=4), Compression.model_construct(ratio=4.0)
    assert whole == broken
    specs = [make_spec().model_copy(update={"amount": amount}) for amount in (whole, broken, whole)]
    assert [spec.key for spec in specs] == [key_of(spec) for spec in specs]
    assert specs[0].key == specs[2].key


def test_many_values_do_not_stay_in_memory():
    from shrinkbench.spec import value

    assert len({make_spec(seed=seed, compression=2 + seed / 7).key for seed in range(400)}) == 400
    assert len(value._texts) <= value._MOST_TEXTS
    assert len(value._texts_as_stored) <= value._MOST_TEXTS


def test_the_key_of_what_was_read_is_that_of_what_was_stored():
    """A text is kept by the JSON of a part too, which tells ``1`` from ``1.0`` as the key does."""
    for ratio in (4, 4.0, 8):
        spec = make_spec().model_copy(update={"amount": Compression.model_construct(ratio=ratio)})
        read = [type(spec).model_validate_json(spec.model_dump_json()) for _ in range(2)]
        assert {each.key for each in read} == {key_of(each) for each in read}
