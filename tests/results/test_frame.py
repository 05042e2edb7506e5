"""The result table: its columns, its order, and what a failed run leaves in it."""

import pandas as pd
from made_results import make_result, make_results, make_spec, quality

from shrinkbench.results.frame import COLUMNS, to_frame

PUBLISHED = [
    "key",
    "dataset",
    "model",
    "method",
    "compression_target",
    "seed",
    "status",
    "compression",
    "theoretical_speedup",
    "parameters_kept",
    "multiply_adds_kept",
    "top1",
    "top5",
    "loss",
    "top1_before_finetuning",
    "top5_before_finetuning",
    "epochs_run",
    "seconds",
]


def test_published_columns_are_there_in_their_order():
    columns = list(to_frame(make_results(seeds=(0,))).columns)
    assert columns == list(COLUMNS)
    assert [c for c in columns if c in PUBLISHED] == PUBLISHED


def test_every_run_is_one_row_with_its_numbers():
    results = make_results(pairs=[("cifar10", "resnet20")], methods=["random"], seeds=(1, 0))
    frame = to_frame(reversed(results)).set_index("key")
    assert len(frame) == len(results)
    for result in results:
        row = frame.loc[result.key]
        assert row["top1"] == result.after["top1"]
        assert row["top5_before_finetuning"] == result.before["top5"]
        assert row["compression"] == result.size.compression
        assert row["multiply_adds_kept"] == result.size.multiply_adds_kept
        assert (row["compression_target"], row["seed"]) == (result.spec.target, result.spec.seed)
    assert list(frame["compression_target"]) == sorted(frame["compression_target"])


def test_a_failed_run_is_a_row_with_gaps():
    frame = to_frame([make_result(make_spec(), failed="it broke"), make_result(make_spec(seed=1))])
    failed = frame[frame["status"] == "failed"].iloc[0]
    assert failed["error"] == "it broke"
    assert failed[["top1", "compression", "parameters_kept", "epochs_run"]].isna().all()
    assert frame["parameters_kept"].dtype == "Int64"


def test_no_results_give_an_empty_table_with_the_columns():
    frame = to_frame([])
    assert frame.empty
    assert list(frame.columns) == list(COLUMNS)


def test_further_splits_become_columns():
    plain = make_result(make_spec(seed=1))
    extra = make_result(make_spec()).model_copy(update={"further": {"cifar10.1": quality(0.8)}})
    frame = to_frame([plain, extra]).set_index("seed")
    assert frame.loc[0, "cifar10.1_top1"] == 0.8
    assert pd.isna(frame.loc[1, "cifar10.1_top1"])


def test_the_table_survives_csv_and_parquet(tmp_path):
    frame = to_frame(make_results(seeds=(0,)))
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), frame)
    frame.to_csv(tmp_path / "t.csv", index=False)
    back = pd.read_csv(tmp_path / "t.csv", dtype=COLUMNS)
    pd.testing.assert_frame_equal(back, frame)
