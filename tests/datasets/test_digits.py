"""The embedded digits."""

import torch
from sklearn.datasets import load_digits

from shrinkbench.datasets import DATASETS, load_dataset


def test_splits_are_the_whole_set_cut_by_the_rule():
    digits = load_dataset("digits")
    parts = [digits.train, digits.validation, digits.test]
    assert [len(part) for part in parts] == [1085, 357, 355]
    values, labels = load_digits(return_X_y=True)
    rows = {part: [] for part in range(3)}
    seen = dict.fromkeys(range(10), 0)
    for row, label in enumerate(labels):
        rows[(0, 0, 0, 1, 2)[seen[label] % 5]].append(row)
        seen[label] += 1
    for number, part in enumerate(parts):
        assert torch.equal(part.labels, torch.tensor(labels[rows[number]]))
        # Brightness 255 x / 16, rounded: never further than half a step from the exact value.
        exact = torch.tensor(values[rows[number]]).view(-1, 1, 8, 8) * 255 / 16
        assert (part.images - exact).abs().max() <= 0.5


def test_normalisation_is_that_of_the_training_images():
    digits = load_dataset("digits")
    pixels = digits.train.images.double() / 255
    normalisation = DATASETS.get("digits").normalisation
    assert abs(pixels.mean() - normalisation.mean[0]) < 1e-4
    assert abs(pixels.std(correction=0) - normalisation.std[0]) < 1e-4


def test_the_revision_is_stable():
    assert load_dataset("digits").revision == load_dataset("digits").revision
