"""Every conversion by hand, its derivation, and conflicts beyond the printed digits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_corpus import corpus, fact, paper

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.literature import Corpus
from shrinkbench.literature.normalise import Normalised, compression_ratio, normalise, readings
from shrinkbench.literature.reference import operations_convention, variants


def _normalised(*quantities: tuple[str, str, str], **more: object) -> Normalised:
    facts = [fact("a", name, value, unit, **more) for name, value, unit in quantities]
    (result,) = corpus([paper("a", 2018)], facts).results
    return normalise(result)


@pytest.mark.parametrize(
    ("quantities", "measure", "value", "derivation"),
    [
        ([("top1_error", "31.17", "percent")], "top1", 0.6883, "1 - top1_error"),
        (
            [("top1", "70", "percent"), ("initial_top1", "71", "percent")],
            "top1_change",
            -0.01,
            "top1 - initial_top1",
        ),
        # Before pruning the accuracy was higher by the drop, not lower.
        (
            [("top1", "70", "percent"), ("top1_change", "-2", "percent")],
            "initial_top1",
            0.72,
            "top1 - top1_change",
        ),
        (
            [("initial_top5", "90", "percent"), ("top5_change", "-1", "percent")],
            "top5",
            0.89,
            "initial_top5 + top5_change",
        ),
        ([("parameters_pruned", "75", "percent")], "compression", 4.0, "1 / (1 - parameters_pruned)"),
        ([("parameters_kept", "25", "percent")], "compression", 4.0, "1 / parameters_kept"),
        (
            [("parameters", "5.9", "million"), ("initial_parameters", "61", "million")],
            "compression",
            61 / 5.9,
            "initial_parameters / parameters",
        ),
        ([("compression", "10.3", "ratio")], "compression", 10.3, "as printed"),
        ([("operations_pruned", "0.8", "fraction")], "speedup", 5.0, "1 / (1 - operations_pruned)"),
        ([("operations", "3.8", "billion"), ("initial_operations", "7.6", "billion")], "speedup", 2.0, None),
        ([("initial_parameters", "138", "million"), ("compression", "4", "ratio")], "parameters", 34.5e6, None),
        ([("parameters", "34.5", "million"), ("compression", "4", "ratio")], "initial_parameters", 138e6, None),
    ],
)
def test_conversions(
    quantities: list[tuple[str, str, str]], measure: str, value: float, derivation: str | None
) -> None:
    found = _normalised(*quantities).measures[measure]
    assert found.value == pytest.approx(value)
    assert derivation in (None, found.derivation)
    assert found.low <= found.value <= found.high


def test_size_and_speed_are_never_converted_into_each_other() -> None:
    assert "speedup" not in _normalised(("parameters_pruned", "75", "percent")).measures
    assert "compression" not in _normalised(("operations_pruned", "75", "percent")).measures


def test_multiply_adds_are_told_from_flops() -> None:
    doubled = _normalised(("initial_operations", "30.9", "billion"), ("operations", "9.58", "billion"))
    assert doubled.convention == "FLOPs, two per multiply-add"
    assert doubled.value("initial_multiply_adds") == pytest.approx(15.45e9)
    assert doubled.value("multiply_adds") == pytest.approx(4.79e9)
    single = _normalised(("initial_operations", "15.5", "billion"))
    assert single.value("initial_multiply_adds") == pytest.approx(15.5e9)
    unknown = _normalised(("initial_operations", "22", "billion"), ("operations", "11", "billion"))
    assert unknown.convention == "unknown"
    assert "initial_multiply_adds" not in unknown.measures
    assert unknown.value("speedup") == pytest.approx(2)


def test_the_three_counts_of_alexnet_in_the_paper() -> None:
    # Section 5.2: 371, 724 and 1500 MFLOPs for one network.
    conventions = [operations_convention("ImageNet", "AlexNet", count) for count in (371e6, 724e6, 1500e6)]
    assert conventions == ["unknown", "multiply-adds", "FLOPs, two per multiply-add"]


def test_shares_of_convolution_weights_need_the_network() -> None:
    (vgg, *_) = [v for v in variants("ImageNet", "VGG-16") if v.convolution_weights]
    share = 14_710_464 / 138_357_544  # thirteen 3 x 3 layers over all parameters
    assert vgg.convolution_weights == 14_710_464
    found = _normalised(("convolution_weights_pruned", "60", "percent")).measures["compression"]
    assert found.value == pytest.approx(1 / (1 - 0.6 * share))
    other = _normalised(("convolution_weights_pruned", "60", "percent"), architecture="Unheard-of")
    assert "compression" not in other.measures


def test_known_networks_are_counted_right() -> None:
    def vgg(*stages: tuple[int, int]) -> tuple[int, int]:
        """Parameters and multiply-adds of a VGG on 224 x 224 images, layer by layer."""
        size, channels, parameters, operations = 224, 3, 0, 0
        for layers, width in stages:
            for _ in range(layers):
                parameters += 9 * channels * width + width
                operations += 9 * channels * width * size * size
                channels = width
            size //= 2
        for inputs, outputs in ((25088, 4096), (4096, 4096), (4096, 1000)):
            parameters += inputs * outputs + outputs
            operations += inputs * outputs
        return parameters, operations

    depths = {
        "VGG-11": (1, 1, 2, 2, 2),
        "VGG-13": (2, 2, 2, 2, 2),
        "VGG-16": (2, 2, 3, 3, 3),
        "VGG-19": (2, 2, 4, 4, 4),
    }
    for name, layers in depths.items():
        network = variants("ImageNet", name)[0]
        wanted = vgg(*zip(layers, (64, 128, 256, 512, 512), strict=True))
        assert (network.parameters, network.multiply_adds) == wanted


def test_agreement_within_the_printed_digits_is_no_conflict() -> None:
    rounded = _normalised(
        ("top1", "57.23", "percent"), ("initial_top1", "57.22", "percent"), ("top1_change", "0.0", "percent")
    )
    assert not rounded.conflicts
    sizes = _normalised(
        ("compression", "10.3", "ratio"),
        ("parameters", "5.9", "million"),
        ("initial_parameters", "61", "million"),
    )
    assert not sizes.conflicts


def test_disagreement_is_reported_and_both_values_kept() -> None:
    found = _normalised(
        ("top1", "76.40", "percent"), ("initial_top1", "76.01", "percent"), ("top1_change", "-1.06", "percent")
    )
    (conflict,) = found.conflicts
    assert conflict.used.value == pytest.approx(0.0039)
    assert conflict.other.value == pytest.approx(-0.0106)
    assert found.value("top1_change") == conflict.used.value


def test_the_more_precise_of_two_ways_is_taken() -> None:
    # 22 % pruned leaves 1.266 to 1.299; 47.8 of 60.9 million leaves 1.269 to 1.279.
    sizes = [("initial_parameters", "60.9", "million"), ("parameters", "47.8", "million")]
    found = _normalised(("parameters_pruned", "22", "percent"), *sizes).measures["compression"]
    assert (found.value, found.derivation) == (pytest.approx(60.9 / 47.8), "initial_parameters / parameters")
    assert (found.low, found.high) == (pytest.approx(60.8 / 47.9), pytest.approx(61.0 / 47.7))
    speed = _normalised(
        ("operations_pruned", "50", "percent"),
        ("initial_operations", "15.47", "billion"),
        ("operations", "7.66", "billion"),
    )
    assert speed.value("speedup") == pytest.approx(15.47 / 7.66)
    exact = _normalised(("compression", "1.2741", "ratio"), *sizes).measures["compression"]
    assert (exact.value, exact.is_printed) == (1.2741, True)
    equal = _normalised(("top1", "70.1", "percent"), ("top1_error", "29.9", "percent")).measures["top1"]
    assert equal.is_printed  # two ways of one precision: the printed one


def test_bounds_are_those_that_all_printed_numbers_leave() -> None:
    # 1.3 leaves 1.2 to 1.4, 1 / 0.75 leaves 1.316 to 1.351: the second; 4 of 3 million leaves 0.75 to 2.5.
    ways = [("compression", "1.3", "ratio"), ("parameters_kept", "75", "percent")]
    both = _normalised(*ways, ("initial_parameters", "4", "million"), ("parameters", "3", "million"))
    found = both.measures["compression"]
    assert (found.low, found.high) == (pytest.approx(1 / 0.76), pytest.approx(1 / 0.74))
    kept, whole = both.measures["parameters"], both.measures["initial_parameters"]
    assert (kept.low, kept.high) == (pytest.approx(3e6 * 0.74), pytest.approx(5e6 * 0.76))
    assert (whole.low, whole.high) == (3e6, 5e6)
    assert not both.conflicts


def test_ways_that_do_not_meet_are_told_and_the_first_is_kept() -> None:
    contradicting = [("compression", "2.0", "ratio"), ("parameters_pruned", "22", "percent")]
    sizes = [("initial_parameters", "60.9", "million"), ("parameters", "47.8", "million")]
    found = _normalised(*contradicting, *sizes)
    assert found.value("compression") == 2.0
    assert [c.other.derivation for c in found.conflicts] == [
        "1 / (1 - parameters_pruned)",
        "initial_parameters / parameters",
    ]
    assert found.value("parameters") == 47.8e6  # said once, of the ratio
    # The first way meets both others, which do not meet each other.
    rough = _normalised(
        ("compression", "2", "ratio"),
        ("parameters_kept", "40.0", "percent"),
        ("parameters_pruned", "30.0", "percent"),
    )
    (conflict,) = rough.conflicts
    assert (conflict.used.derivation, conflict.other.derivation) == (
        "1 / parameters_kept",
        "1 / (1 - parameters_pruned)",
    )
    assert rough.value("compression") == pytest.approx(2.5)


@given(st.integers(10, 99), st.integers(100, 999), st.integers(0, 2))
def test_every_way_to_one_network_narrows_and_none_loses_it(kept: int, whole: int, digits: int) -> None:
    printed = [
        ("parameters_pruned", f"{100 * (1 - kept / whole):.{digits}f}", "percent"),
        ("parameters", str(kept), "million"),
        ("initial_parameters", str(whole), "million"),
    ]
    found = _normalised(*printed)
    together = found.measures["compression"]
    assert not found.conflicts
    assert together.low <= whole / kept <= together.high
    for alone in (printed[:1], printed[1:]):
        one = _normalised(*alone).measures["compression"]
        assert one.low <= together.low <= together.value <= together.high <= one.high


def test_a_size_of_the_export_is_as_precise_as_its_record(export: Corpus) -> None:
    (result,) = [r for r in export.results if r.network == "record 430"]
    assert normalise(result).value("compression") == pytest.approx(60.9 / 47.8)


def test_the_conflicts_of_the_export_are_the_two_misprinted_records(export: Corpus) -> None:
    where = {n.result.network for n in map(normalise, export.results) if n.conflicts}
    assert where == {"record 365", "record 525"}  # one paper's change, typed beside two other rates


def test_ambiguous_values_have_several_readings() -> None:
    assert readings(0.6) == {"fraction pruned": pytest.approx(2.5), "fraction kept": pytest.approx(1 / 0.6)}
    assert readings(4.0) == {"original / kept": 4.0}
    with pytest.raises(ShrinkbenchError, match="cannot be a 'fraction pruned'"):
        compression_ratio(1.0, reading="fraction pruned")


@given(st.floats(min_value=0.001, max_value=0.999))
def test_pruned_and_kept_are_complements(kept: float) -> None:
    a = compression_ratio(kept, reading="fraction kept")
    b = compression_ratio(1 - kept, reading="fraction pruned")
    assert math.isclose(a, b, rel_tol=1e-9)


@given(st.integers(min_value=1, max_value=9999), st.integers(min_value=1, max_value=9999))
def test_bounds_hold_every_value_that_rounds_to_the_printed_one(kept: int, whole: int) -> None:
    found = _normalised(
        ("parameters", str(kept), "million"), ("initial_parameters", str(whole), "million")
    ).measures["compression"]
    for a in (-0.5, 0.0, 0.5):
        for b in (-0.5, 0.0, 0.5):
            assert found.low <= (whole + a) / (kept + b) <= found.high
