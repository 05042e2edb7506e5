"""Images in memory: batches hold the right images, and augmentation is torchvision's, image by image."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from shrinkbench.datasets.memory import (
    Draws,
    InMemoryImages,
    draw_augmentation,
    mirror_by_choice,
    mirror_by_copy,
)
from shrinkbench.datasets.splits import balanced_order, every_nth, occurrence
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Normalisation

F = torchvision.transforms.functional
GREY = Normalisation(mean=(0.3,), std=(0.2,))
COLOUR = Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


def made(count=37, *, channels=3, height=9, width=7, classes=5, augmentation="none", pad=4):
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    return images, labels, InMemoryImages(images, labels, augmentation=augmentation, pad=pad)


def whole(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def plain(image, normalisation):
    """torchvision's evaluation of one uint8 image."""
    return F.normalize(F.convert_image_dtype(image), normalisation.mean, normalisation.std)


def test_evaluation_is_torchvisions_bit_for_bit():
    images, labels, source = made()
    got, got_labels = whole(source.batches(8, normalisation=COLOUR))
    assert torch.equal(got_labels, labels)
    for image, expected in zip(got, images, strict=True):
        assert torch.equal(image, plain(expected, COLOUR))


@pytest.mark.parametrize(
    ("augmentation", "channels", "pad", "height", "width"),
    [("crop-flip", 3, 4, 32, 32), ("crop-flip", 1, 2, 9, 7), ("crop", 1, 1, 8, 8), ("crop-flip", 3, 0, 5, 6)],
)
def test_augmentation_is_torchvisions_on_the_same_draws(augmentation, channels, pad, height, width):
    images, labels, source = made(
        50, channels=channels, height=height, width=width, augmentation=augmentation, pad=pad
    )
    normalisation = COLOUR if channels == 3 else GREY
    got, got_labels = whole(source.batches(16, normalisation=normalisation, generator=seeded(3), augment=True))
    # The same draws, in the documented order: the permutation, then one draw per image and step.
    generator = seeded(3)
    order = torch.randperm(50, generator=generator)
    draws = draw_augmentation(50, augmentation=augmentation, pad=pad, generator=generator)
    assert torch.equal(got_labels, labels[order])
    assert not torch.equal(got, whole(source.batches(16, normalisation=normalisation))[0][order]) or not pad
    for place, row in enumerate(order.tolist()):
        expected = F.crop(
            F.pad(images[row], [pad] * 4, fill=0), int(draws.top[place]), int(draws.left[place]), height, width
        )
        if draws.flip is not None and draws.flip[place]:
            expected = F.hflip(expected)
        assert torch.equal(got[place], plain(expected, normalisation))


@pytest.mark.parametrize("marked", [0.0, 0.5, 1.0])
def test_both_ways_to_mirror_are_one(marked):
    pixels = made()[0].permute(0, 2, 3, 1).contiguous()
    flip = torch.rand(37, generator=seeded()) < marked
    expected = torch.stack([p.flip(1) if f else p for p, f in zip(pixels, flip, strict=True)])
    assert torch.equal(mirror_by_choice(pixels, flip), expected)
    assert torch.equal(mirror_by_copy(pixels, flip), expected)


def test_draws_are_uniform():
    draws = draw_augmentation(90_000, augmentation="crop-flip", pad=1, generator=seeded())
    counts = (draws.top * 3 + draws.left).bincount(minlength=9)
    assert counts.min() > 9_600
    assert counts.max() < 10_400  # four standard deviations of a binomial count
    assert abs(draws.flip.float().mean() - 0.5) < 0.01
    assert draw_augmentation(5, augmentation="crop", pad=1, generator=seeded()).flip is None
    assert draw_augmentation(5, augmentation="none", pad=1, generator=seeded()) == Draws()


@given(batch_size=st.integers(1, 50), seed=st.integers(0, 100))
@settings(max_examples=12, deadline=None)
def test_a_pass_yields_every_image_once_whatever_the_batch_size(batch_size, seed):
    images, _, source = made(augmentation="crop-flip")
    shuffled, _ = whole(source.batches(batch_size, normalisation=COLOUR, generator=seeded(seed)))
    augmented, _ = whole(source.batches(batch_size, normalisation=COLOUR, generator=seeded(seed), augment=True))
    at_once, _ = next(source.batches(37, normalisation=COLOUR, generator=seeded(seed), augment=True))
    assert torch.equal(augmented, at_once)
    expected = torch.stack([plain(image, COLOUR) for image in images])
    assert torch.equal(shuffled.unique(dim=0), expected.unique(dim=0))
    assert len(shuffled) == len(expected)


def test_a_pass_that_is_left_early_draws_as_much_as_a_complete_one():
    _, _, source = made(augmentation="crop-flip")
    left, complete = seeded(), seeded()
    next(source.batches(4, normalisation=COLOUR, generator=left, augment=True))
    whole(source.batches(4, normalisation=COLOUR, generator=complete, augment=True))
    assert torch.equal(left.get_state(), complete.get_state())


def test_global_random_state_and_pixels_are_untouched():
    images, _, source = made(augmentation="crop-flip")
    before, state = images.clone(), torch.get_rng_state()
    whole(source.batches(4, normalisation=COLOUR, generator=seeded(), augment=True))
    assert torch.equal(source.images, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_changes_the_layout_only(memory_format):
    images, _, source = made(augmentation="crop-flip")
    layouts = {}
    for layout in (memory_format, torch.contiguous_format):
        batches = source.batches(
            10, normalisation=COLOUR, generator=seeded(), augment=True, memory_format=layout
        )
        layouts[layout] = list(batches)
    for batch, _ in layouts[memory_format]:
        assert batch.is_contiguous(memory_format=memory_format)
        assert batch.dtype == torch.float32
    assert torch.equal(whole(layouts[memory_format])[0], whole(layouts[torch.contiguous_format])[0])
    last = InMemoryImages(images.contiguous(memory_format=torch.channels_last), source.labels)
    assert torch.equal(
        whole(last.batches(7, normalisation=COLOUR))[0], whole(source.batches(7, normalisation=COLOUR))[0]
    )


def test_selections_of_selections_share_the_pixels():
    images, labels, source = made()
    chosen = source.select(torch.tensor([5, 9, 30, 2])).select(torch.tensor([3, 0]))
    assert torch.equal(chosen.images, images[[2, 5]])
    assert torch.equal(chosen.labels, labels[[2, 5]])
    assert chosen._copies is source._copies
    assert len(chosen) == 2


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor))
def test_balanced_order_takes_the_classes_in_turn(labels):
    order = balanced_order(labels)
    assert sorted(order.tolist()) == list(range(len(labels)))
    remaining = labels.bincount(minlength=5)
    for count in range(1, len(labels) + 1):
        taken = labels[order[:count]].bincount(minlength=5)
        unfinished = taken[taken < remaining]
        # No class has two images more than one that still has some left.
        assert not len(unfinished) or taken.max() - unfinished.min() <= 1
    for label in range(5):
        rows = order[labels[order] == label]
        assert rows.tolist() == sorted(rows.tolist())


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor), n=st.integers(1, 7))
def test_every_nth_cuts_each_class_by_the_rule(labels, n):
    kept, cut = every_nth(labels, n)
    assert sorted(kept.tolist() + cut.tolist()) == list(range(len(labels)))
    for label in range(5):
        rows = [row for row, other in enumerate(labels.tolist()) if other == label]
        assert [row for row in rows if row in set(cut.tolist())] == rows[n - 1 :: n]
        assert occurrence(labels)[rows].tolist() == list(range(len(rows)))


def test_subset_is_the_beginning_of_the_balanced_order():
    _, labels, source = made(60)
    assert torch.equal(source.subset(10).labels, labels[balanced_order(labels)[:10]])
    assert source.subset(10).labels.bincount(minlength=5).tolist() == [2] * 5


@pytest.mark.parametrize("count", [0, -1, 38])
def test_a_subset_that_cannot_be_had_is_refused(count):
    with pytest.raises(ShrinkbenchError, match=f"a subset of {count} images.*1 to 37"):
        made()[2].subset(count)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.batches(0, normalisation=COLOUR), "batch size 0"),
        (lambda s: s.batches(4, normalisation=COLOUR, augment=True), "needs a random generator"),
        (lambda s: next(s.batches(4, normalisation=GREY)), "3 channels but the normalisation has 1"),
        (lambda s: InMemoryImages(s.images.float(), s.labels), "must be uint8"),
        (lambda s: InMemoryImages(s.images, s.labels.float()), "must be int64"),
        (lambda s: InMemoryImages(s.images, s.labels[1:]), r"must be int64 of shape \(37,\)"),
        (lambda s: InMemoryImages(s.images, s.labels, augmentation="rotate"), "'rotate'"),
    ],
)
def test_misuse_is_refused_before_the_first_batch(call, message):
    with pytest.raises(ShrinkbenchError, match=message):
        call(made()[2])
