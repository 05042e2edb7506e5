"""Exact selection: what a full stable sort would keep."""

import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning.top_k import keep_highest

numbers = st.floats(allow_nan=False, width=32) | st.sampled_from([0.0, -0.0, 1.0, float("inf"), float("-inf")])


def by_sorting(scores: dict[str, torch.Tensor], k: int) -> dict[str, torch.Tensor]:
    flat = torch.cat([t.reshape(-1) for t in scores.values()])
    order = torch.sort(flat, descending=True, stable=True).indices
    keep = torch.zeros(len(flat), dtype=torch.bool)
    keep[order[:k]] = True
    parts = keep.split([t.numel() for t in scores.values()])
    return {name: part.reshape(t.shape) for (name, t), part in zip(scores.items(), parts, strict=True)}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(numbers, min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(0, 130),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_selection_equals_a_full_stable_sort(rows, k, dtype):
    scores = {str(i): torch.tensor(row, dtype=dtype) for i, row in enumerate(rows)}
    kept = keep_highest(scores, k)
    expected = by_sorting(scores, k)
    assert all(torch.equal(kept[name], expected[name]) for name in scores)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_selection_over_many_ties_and_several_chunks(dtype):
    generator = torch.Generator().manual_seed(0)
    scores = {
        "a": torch.randint(0, 50, (700, 700), generator=generator).to(dtype),
        "b": torch.randint(0, 50, (1000,), generator=generator).to(dtype),
    }
    for k in (1, 12_345, 400_000, 490_999):
        kept = keep_highest(scores, k)
        expected = by_sorting(scores, k)
        assert sum(int(m.sum()) for m in kept.values()) == k
        assert all(torch.equal(kept[name], expected[name]) for name in scores)


def test_memory_layout_does_not_change_the_choice():
    scores = torch.randint(0, 3, (8, 4, 3, 3)).float()
    plain = keep_highest({"w": scores}, 100)["w"]
    other = keep_highest({"w": scores.to(memory_format=torch.channels_last)}, 100)["w"]
    assert torch.equal(plain, other)


def test_nan_scores_are_refused_and_infinite_ones_are_not():
    with pytest.raises(ShrinkbenchError, match="'b' contain NaN"):
        keep_highest({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}, 1)
    inf = float("inf")
    assert keep_highest({"a": torch.tensor([inf, -inf, 0.0])}, 2)["a"].tolist() == [True, False, True]


def test_a_sample_that_misleads_does_not_change_the_outcome():
    """Every sampled position holds a score that no other one has: the bracket misses, the result is exact."""
    scores = torch.arange(6100.0)
    scores[::61] = -1.0
    for k in (1, 100, 3000, 6000, 6050, 6099):
        expected = torch.zeros(6100, dtype=torch.bool)
        expected[scores.sort(descending=True, stable=True).indices[:k]] = True
        assert torch.equal(keep_highest({"w": scores}, k)["w"], expected)


def test_equal_scores_take_no_memory_of_their_own():
    """Dead layers give millions of zeros; positions of all of them would be twice the scores."""
    scores = {str(i): torch.zeros(250_000) for i in range(8)}
    scores["0"][:100] = 1.0
    tracemalloc.start()
    kept = keep_highest(scores, 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [int(mask.sum()) for mask in kept.values()] == [250_000] * 4 + [0] * 4
    assert peak < 2 * 8 * 250_000 + 8 * 250_000 + 500_000  # two booleans a score, the positions of one layer
