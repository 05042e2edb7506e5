"""Datasets of one's own: several inputs, named ones, and what is refused."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from shrinkbench.datasets.card import AS_THEY_ARE, DATASETS
from shrinkbench.errors import ShrinkbenchError

ROWS = torch.arange(20)
X, Y = torch.rand(20, 3), ROWS % 2


def load(tmp_path, made):
    """The dataset of a file whose function returns ``made``."""
    number = len(list(tmp_path.iterdir()))
    saved, file = tmp_path / f"{number}.pt", tmp_path / f"data_{tmp_path.name}_{number}.py"
    torch.save(tuple(made), saved)
    file.write_text(
        f"import torch\n\n\ndef make():\n    return torch.load({str(saved)!r}, weights_only=False)\n"
    )
    return DATASETS.get(f"{file}:make").load(None)


def batch_of(dataset, count=4):
    return next(iter(dataset.test.batches(count, normalisation=AS_THEY_ARE)))


def test_several_inputs_go_in_by_place_in_the_order_of_the_rows(tmp_path):
    part = ((X, X.double().numpy() + 1), Y)
    dataset = load(tmp_path, (part, part))
    (first, second), labels = batch_of(dataset)
    assert torch.equal(first, X[:4])
    assert torch.equal(second, X[:4] + 1)
    assert torch.equal(labels, Y[:4])
    assert second.dtype == torch.float32
    assert [len(t) for t in dataset.example] == [1, 1]
    shuffled = dataset.train.batches(20, normalisation=AS_THEY_ARE, generator=torch.Generator())
    (first, second), labels = next(iter(shuffled))
    rows = torch.tensor([int((row == X).all(1).nonzero()) for row in first])
    assert torch.equal(second, X[rows] + 1)
    assert torch.equal(labels, Y[rows])
    assert not torch.equal(rows, ROWS)
    assert len(dataset.train) == 18
    assert len(dataset.validation) == 2


def test_dictionaries_are_batches_as_those_of_hugging_face_are(tmp_path):
    part = {"input_ids": ROWS.repeat(5, 1).t(), "attention_mask": torch.ones(20, 5).long(), "labels": Y}
    dataset = load(tmp_path, (part, part, part))
    batch = batch_of(dataset)
    assert list(batch) == ["input_ids", "attention_mask", "labels"]
    assert torch.equal(batch["labels"], Y[:4])
    assert torch.equal(batch["input_ids"][:, 0], ROWS[:4])
    assert list(dataset.example) == ["input_ids", "attention_mask"]
    assert dataset.class_names == ("0", "1")
    del part["labels"]
    without = load(tmp_path, (part, part))
    assert list(batch_of(without)) == ["input_ids", "attention_mask"]
    assert without.revision != dataset.revision
    pair = ({"a": X, "b": X}, Y)
    inputs, labels = batch_of(load(tmp_path, (pair, pair)))
    assert list(inputs) == ["a", "b"]
    assert torch.equal(labels, Y[:4])


@pytest.mark.parametrize("change", ["order", "name", "value"])
def test_another_order_name_or_value_of_inputs_is_another_revision(tmp_path, change):
    first = load(tmp_path, [({"a": X, "b": X + 1}, Y)] * 2)
    changed = {
        "order": {"b": X + 1, "a": X},
        "name": {"a": X, "c": X + 1},
        "value": {"a": X, "b": X + 2},
    }[change]
    again = load(tmp_path, [(changed, Y)] * 2)
    assert again.revision != first.revision


def test_rows_of_a_dataset_of_torch_may_hold_several_inputs_and_three_things_are_no_pair(tmp_path):
    rows = [((X[n], {"mask": X[n] > 0.5}), int(Y[n])) for n in range(20)]
    (x, named), labels = batch_of(load(tmp_path, [Rows(rows)] * 2))
    assert torch.equal(x, X[:4])
    assert torch.equal(named["mask"], X[:4] > 0.5)
    assert torch.equal(labels, Y[:4])
    with pytest.raises(ShrinkbenchError, match=r"holds 3 things; give a pair \(inputs, targets\), several"):
        load(tmp_path, [TensorDataset(X, X, Y)] * 2)


class Rows:
    """A dataset of torch without torch."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        return self.rows[number]


def test_bytes_of_images_are_scaled_beside_other_inputs_and_targets_that_are_no_classes(tmp_path):
    images = torch.full((20, 1, 4, 4), 255, dtype=torch.uint8)
    (found, _), _ = batch_of(load(tmp_path, [((images, X), Y)] * 2))
    assert torch.equal(found, torch.ones(4, 1, 4, 4))
    found, _ = batch_of(load(tmp_path, [(images.numpy(), np.linspace(0, 1, 20))] * 2))
    assert torch.equal(found, torch.ones(4, 1, 4, 4))


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ([((X, X[:7]), Y)] * 2, r"has \(\(float32 20x3, float32 7x3\), int64 20\); give one row of each"),
        ([((X, X), Y), (X, Y)], r"splits of .* differ: \(\(float32 18x3, float32 18x3\), int64 18\) and"),
        ([(X, Y), (X, Y / 2)], "splits of .* differ"),
        ([{"a": X, "labels": Y}, {"b": X, "labels": Y}], "splits of .* differ"),
        ([(X, X, Y)] * 2, "holds 3 things; give a pair"),
        ([({}, Y)] * 2, "give one row of each input"),
        ([{"text": ["a", "b"], "labels": [0, 1]}] * 2, "taken as tensors"),
    ],
)
def test_what_is_no_data_is_one_sentence(tmp_path, made, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence) as told:
        load(tmp_path, made)
    assert len(str(told.value)) < 300


def test_a_function_keeps_the_defaults_of_its_parameters_where_no_folder_is_given(tmp_path):
    file = tmp_path / "with_default.py"
    file.write_text(
        "import torch\n\n\ndef make(count=30, *others):\n"
        "    return [(torch.zeros(count, 2), torch.arange(count) % 2)] * 2\n"
    )
    assert len(DATASETS.get(f"{file}:make").load(None).test) == 30


@pytest.mark.parametrize("kind", ["int16", "int32", "uint8", "uint64"])
def test_whole_numbers_of_any_kind_are_classes(tmp_path, kind):
    dataset = load(tmp_path, [(X, (np.arange(20) % 3).astype(kind))] * 2)
    assert dataset.card.num_classes == 3
    assert batch_of(dataset)[1].dtype == torch.int64


def test_numbers_such_as_times_are_no_classes(tmp_path):
    dataset = load(tmp_path, [(X, 1_700_000_000 + ROWS)] * 2)
    assert dataset.card.num_classes is None
    assert dataset.class_names == ()


def test_inputs_carry_no_gradients_and_tensors_without_values_are_refused(tmp_path):
    assert not batch_of(load(tmp_path, [(X.clone().requires_grad_(), Y)] * 2))[0].requires_grad
    with pytest.raises(ShrinkbenchError, match="without values"):
        load(tmp_path, [(X.to("meta"), Y)] * 2)
