"""Targets by multiply-adds and bounds on layers in sweeps: planned, carried out on every path, or refused."""

import pandas as pd
import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.network.weights import weight_parameters
from shrinkbench.results.frame import to_frame
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.runner.planning import plan
from shrinkbench.runner.workspace import Workspace
from shrinkbench.spec import UNCONSTRAINED, Constraints, ExperimentSpec, parse_value, read_experiments

SIZES = {name: weight.numel() for name, weight in weight_parameters(build("digits-cnn")).items()}
WHOLE = "features.7"  # of its network, the third of four convolutions


def experiment(method, **fields):
    base = {
        "name": "test",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": method,
        "pretrain": {"epochs": 2},
        "finetune": {"epochs": 1},
        "train_images": 64,
        "validation_images": 40,
        "test_images": 40,
    }
    return parse_value(ExperimentSpec, {**base, **fields}, where="test")


def planned(tmp_path, method, **fields):
    return plan(experiment(method, **fields), Workspace(root=tmp_path)).runs


def swept(root, method, **fields):
    sweep(experiment(method, **fields), root, device="cpu")
    results, problems = ResultStore(root).results()
    assert not problems
    return results


def done(root, method, **fields):
    results = swept(root, method, **fields)
    assert [r.error for r in results if r.error] == []
    return {r.spec.method.name: r for r in results if not r.spec.is_control}


def test_bounds_are_written_as_they_are_meant(tmp_path):
    file = tmp_path / "e.toml"
    file.write_text(
        'name = "e"\ndataset = "digits"\nmodel = "m"\nmethod = "channel_l1"\nspeedup = [1, 2, 4]\n'
        'round_to = 8\nignore = ["fc", "layer1.*"]\nmax_ratio = 0.8\n'
    )
    (read,) = read_experiments(file)
    assert (read.speedup, read.has_controls) == ((1.0, 2.0, 4.0), True)
    assert read.constraints == Constraints(round_to=8, ignore=("fc", "layer1.*"), max_ratio=0.8)
    (read,) = read_experiments(file, {"ignore": "fc", "round_to": 4})
    assert read.constraints == Constraints(round_to=4, ignore=("fc",), max_ratio=0.8)


def test_runs_of_one_grid_share_the_control_of_the_unbounded_grid(tmp_path):
    bound = planned(tmp_path, "channel_l1", speedup=[1, 2], round_to=8)
    free = planned(tmp_path, "channel_l1", compression=[1, 2])
    assert [r.amount.label for r in bound] == ["1x", "2x fewer multiply-adds"]
    assert bound[0].key == free[0].key
    assert {r.control.key for r in (*bound, *free)} == {free[0].control.key}
    assert [r.constraints for r in bound] == [UNCONSTRAINED, Constraints(round_to=8)]


@pytest.mark.parametrize(
    ("method", "fields", "sentence"),
    [
        ("iterative_magnitude", {"speedup": 2}, r"'iterative_magnitude' prunes in several steps.*one-shot"),
        ("gradual_magnitude", {"speedup": 2}, "in several steps towards a compression"),
        ("synflow", {"speedup": 2}, "in several steps towards a compression"),
        ("thinet", {"speedup": 2}, "decides itself how much goes where"),
        ("li2017:vgg16-a", {"speedup": 2}, "has no say"),
        ("li2017:vgg16-a", {"compression": 1, "ignore": WHOLE}, "widths that were published"),
        ("global_magnitude", {"compression": 2, "round_to": 8}, "counts channels"),
        ("thinet", {"compression": 2, "max_ratio": 0.5}, "decides itself how much of every layer stays"),
        ("rigl[structure=filters]", {"compression": 2}, "exchanges single weights"),
        ("magnitude_2_4[schedule=rigged-lottery]", {"compression": 2}, "not keep to the structure '2:4'"),
        ("channel_l1", {"fraction_per_layer": 0.5, "max_ratio": 0.3}, "more than max_ratio=0.3 lets go"),
        ("channel_l1:50", {"compression": 1, "max_ratio": 0.3}, "more than max_ratio=0.3 lets go"),
        (
            "channel_l1",
            {"compression": 2, "ignore": "nowhere"},
            "model 'digits-cnn': ignore='nowhere' matches no",
        ),
        ("channel_l1", {"compression": 2, "ignore": "*"}, "leaves nothing to prune"),
    ],
)
def test_what_no_run_could_keep_to_is_refused_when_it_is_planned(tmp_path, method, fields, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence) as error:
        planned(tmp_path, method, **fields)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "fields",
    [
        {"speedup": 0.5},
        {"speedup": [2, 2]},
        {"speedup": True},
        {"compression": 2, "round_to": 0},
        {"compression": 2, "round_to": True},
        {"compression": 2, "max_ratio": 1},
        {"compression": 2, "ignore": [""]},
        {"compression": 2, "ignore": [3]},
        {},
    ],
)
def test_values_that_are_none_are_told(fields):
    with pytest.raises(ShrinkbenchError, match=r"speedup|round_to|max_ratio|ignore"):
        experiment("channel_l1", **fields)


def test_a_speedup_is_reached_and_recorded_and_controls_keep_the_same_of_every_layer(tmp_path):
    names = ["global_channel_l1", "random@global_channel_l1", "magnitude@global_channel_l1", "global_magnitude"]
    found = done(tmp_path, names, speedup=[1, 2])
    assert found.keys() == set(names)
    assert all(2 <= r.size.theoretical_speedup < 2.1 for r in found.values())
    kept = [{n: d.kept for n, d in found[name].layers.items()} for name in names[:3]]
    assert kept[0] == kept[1] == kept[2]


@pytest.mark.slow
def test_channels_keep_multiples_on_every_path(tmp_path):
    names = [
        "channel_l1",
        "channel_l1[finetuning=scratch-b]",
        "channel_l1[finetuning=rewind-weights-1]",
        "random@channel_l1",
        "iterative_magnitude[structure=channels]",
        "gradual_magnitude[structure=channels]",
        "soft_filter_pruning",
    ]
    found = done(tmp_path, names, compression=2, round_to=8, max_ratio=0.75)
    assert found.keys() == set(names)
    for result in found.values():
        filters = {n: (d.outputs, d.total) for n, d in result.layers.items() if n in SIZES and "features" in n}
        assert all(outputs % 8 == 0 and outputs >= 8 for outputs, _ in filters.values())
        assert result.size.compression >= 2
    layers = [found[name].layers for name in names[:2]]
    assert layers[0] == layers[1]


def test_single_weights_have_a_largest_ratio_on_every_path_and_an_ignored_layer_stays(tmp_path):
    names = [
        "global_magnitude",
        "iterative_magnitude",
        "random@iterative_magnitude",
        "lottery_ticket",
        "gradual_magnitude",
        "movement",
        "rigl",
        "sparse_evolutionary_training",
    ]
    found = done(tmp_path, names, compression=2, max_ratio=0.8, ignore=[WHOLE, "features.0"])
    assert found.keys() == set(names)
    for result in found.values():
        assert not {f"{WHOLE}.weight", "features.0.weight"} & result.layers.keys()
        assert all(d.kept >= 0.2 * d.total for d in result.layers.values())
        assert result.size.compression == pytest.approx(2, rel=1e-3)
    kept = [{n: d.kept for n, d in found[name].layers.items()} for name in names[1:3]]
    assert kept[0] == kept[1]


def test_a_target_that_bounds_put_out_of_reach_fails_and_names_the_largest(tmp_path):
    (result,) = swept(tmp_path, "channel_l1", speedup=40, max_ratio=0.5)
    assert result.status == "failed"
    assert result.error.startswith("speedup 40 cannot be met")
    assert f"the largest possible target is {result.reachable:g}" in result.error
    assert result.reachable < 4.1  # a bit more than half of what every layer computes stays


@pytest.mark.parametrize("method", ["soft_filter_pruning", "rigl", "iterative_magnitude"])
def test_nothing_is_trained_for_bounds_that_cannot_be_kept(tmp_path, method):
    how = {"compression": 50} if method == "iterative_magnitude" else {"speedup": 50_000}
    (result,) = swept(tmp_path, method, **how, max_ratio=0.5)
    assert result.status == "failed"
    assert "the largest possible target is" in result.error
    assert not (tmp_path / "shared").exists()


@pytest.mark.slow
def test_the_table_has_the_bounds_and_labels_tell_them_apart(tmp_path):
    swept(tmp_path, "global_channel_l1", compression=[1, 2])
    both = experiment("global_channel_l1", speedup=[1, 2], round_to=8, ignore=[WHOLE], name="bound")
    sweep(both, tmp_path, device="cpu")
    frame = to_frame(ResultStore(tmp_path).results()[0])
    assert len(frame) == 3  # the control is one run of both grids
    row = frame[frame["round_to"] == 8].iloc[0]
    assert (row["ignore"], row["amount"]) == (WHOLE, "2x fewer multiply-adds")
    assert pd.isna(row["max_ratio"])
    assert pd.isna(row["compression_target"])
    assert row["theoretical_speedup"] >= 2
    assert set(frame["method"]) == {"global_channel_l1", f"global_channel_l1 (multiples of 8, {WHOLE} whole)"}
    assert frame["control_key"].nunique() == 1
