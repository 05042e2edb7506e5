"""The course of a method is what its hook really does, and what is drawn of it."""

import inspect
from itertools import pairwise

import pytest
import torch
from sample_networks import ConvNet, batches, seeded
from sampling import sampled
from torch.nn import functional as F

from shrinkbench.cli.courses import ROWS, course_in_text
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, SCHEDULES, training_hook
from shrinkbench.pruning.course import PARTS, course_of, draw_course, save_course
from shrinkbench.pruning.schedules.hook import PruningHook

NAMES = [name for name in METHODS if not name.startswith(("doctest", "check_"))]
WHILE_TRAINING = [name for name in NAMES if METHODS.get(name).schedule.during is not None]
# Of methods over single weights, compressions are those asked for up to a weight.
EXACT = [n for n in WHILE_TRAINING if METHODS.get(n).structure.name == "weights"]
EPOCHS, STEPS = 10, 40


def trained_by(name, target):
    """Parameters of the network / those kept by its masks, after each step of a training."""
    module = seeded(ConvNet)
    data = batches(STEPS, 4)
    hook = training_hook(
        module,
        name,
        compression=target,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        seed=0,
        input_shape=(3, 8, 8),
        batches=lambda _: data,
        batch_size=4,
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    hook.start(optimizer)
    total = sum(p.numel() for p in module.parameters())

    def ratio():
        return total / (total - sum(int((~mask).sum()) for mask in hook.masks.values()))

    found = [ratio()]
    for step in range(1, EPOCHS * STEPS + 1):
        inputs, targets = data[(step - 1) % STEPS]
        hook.before_step(step)
        F.cross_entropy(module(inputs), targets).backward()
        hook.after_backward(step)
        optimizer.step()
        optimizer.zero_grad()
        hook.after_step(step)
        if step % STEPS == 0:
            hook.after_epoch(step // STEPS)
        found.append(ratio())
    return found


@pytest.mark.parametrize("name", sampled(EXACT, every=2))
def test_masks_go_the_way_that_the_course_tells(name):
    target = 2.0
    really = trained_by(name, target)
    told = course_of(name, target=target).ratios
    assert really[-1] == pytest.approx(told[-1], rel=0.01)
    if name == "spartan":  # its forward pass is sparse before its masks are
        assert really[0] == told[0] == 1
        return
    steps = EPOCHS * STEPS
    for part, ratio in enumerate(told):
        at = part * steps // PARTS
        near = really[max(at - steps // 20, 0) : at + steps // 20 + 1]  # it decides every few steps
        assert min(near) * 0.93 <= ratio <= max(near) * 1.07, (part, ratio, near)


@pytest.mark.parametrize(
    "name", [*sampled(NAMES, every=3), "random@lottery_ticket", "network_slimming:70", "thinet:vgg-conv"]
)
@pytest.mark.parametrize("target", [1.5, 4.0, 64.0])
def test_every_course_ends_at_the_target_and_says_when(name, target):
    course = course_of(name, target=target)
    assert course.when
    assert course.ratios[-1] == pytest.approx(target)
    assert all(1 <= ratio <= target * (1 + 1e-9) for ratio in course.ratios)
    assert len(course.places) == len(course.ratios)
    assert (course.along == "training") == (METHODS.get(name).schedule.during is not None)
    if course.along == "rounds":
        assert course.ratios[0] == 1
        assert list(course.ratios) == sorted(course.ratios)


@pytest.mark.parametrize("name", [*sampled(NAMES, every=3), "network_slimming:70", "thinet:vgg-conv"])
@pytest.mark.parametrize("width", [20, 48])
def test_the_figure_in_text_is_full_where_the_target_is_reached(name, width):
    lines = course_in_text(course_of(name), width=width)
    assert len(lines) == ROWS + 2
    assert all(line.endswith("#") for line in lines[:ROWS])
    assert max(map(len, lines[:-1])) <= width + 20
    # Each row is within the one beneath: what has a ratio has all lower ones.
    bars = [line.partition("|")[2] for line in lines[:ROWS]]
    for upper, lower in pairwise(bars):
        assert all(lower[at] == "#" for at, mark in enumerate(upper) if mark == "#")


@pytest.mark.parametrize("name", [n for n in SCHEDULES if SCHEDULES.get(n).during is not None])
def test_every_hook_says_by_its_own_docstring_and_numbers_what_it_does(name):
    schedule = SCHEDULES.get(name)
    hook = schedule.hook
    assert issubclass(hook, PruningHook)
    assert len(inspect.cleandoc(vars(hook)["__doc__"])) > 40
    assert hook.when()
    assert hook.course.__func__ is not PruningHook.course.__func__
    for constant in ("until", "every", "at_least"):  # what it says has them
        if constant in hook.CONSTANTS and name not in ("channel-attention",):
            value = hook.CONSTANTS[constant]
            said = hook.when()
            assert any(text in said for text in (f"{value:g}", f"{value:.0%}"))


def test_words_follow_the_numbers(monkeypatch):
    hook = METHODS.get("gradual_magnitude").schedule.hook
    before = course_of("gradual_magnitude")
    monkeypatch.setattr(hook, "CONSTANTS", {**hook.CONSTANTS, "until": 0.8, "every": 7})
    after = course_of("gradual_magnitude")
    assert "to 80% of it, every 7 steps" in after.when
    assert "to 50% of it, every 100 steps" in before.when
    assert after.ratios[20] < before.ratios[20] == pytest.approx(4)


def test_rounds_are_told_as_they_are():
    assert course_of("lottery_ticket").when == "in 7 rounds at 4x, from trained weights, a training after each"
    assert "in 100 rounds at 4x, before any training, no training between them" in course_of("synflow").when
    assert "60 rounds of its own, without training" in course_of("force").when
    assert course_of("global_magnitude").when == "once, from trained weights"


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
@pytest.mark.parametrize("name", ["gradual_magnitude", "lottery_ticket", "ac_dc", "thinet:vgg-conv"])
def test_a_course_is_drawn(name, kind, tmp_path):
    path = save_course(course_of(name), tmp_path / f"a.b.{kind}")
    assert path == tmp_path / f"a.b.{kind}"
    assert path.stat().st_size > 1000
    again = save_course(course_of(name), tmp_path / f"again.{kind}")
    assert again.read_bytes() == path.read_bytes()


def test_what_is_drawn_is_the_course():
    course = course_of("granet")
    (line,) = draw_course(course).axes[0].lines
    assert [*line.get_ydata()][:-1] == [*course.ratios]
    assert [*line.get_xdata()][:-1] == [*course.places]


@pytest.mark.parametrize("target", [1.0, 0.5, float("nan"), float("inf")])
def test_a_target_without_steps_is_refused(target):
    with pytest.raises(ShrinkbenchError, match="name a target above 1"):
        course_of("gradual_magnitude", target=target)


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ShrinkbenchError, match=r"end it in \.svg, \.pdf, \.png"):
        save_course(course_of("rigl"), tmp_path / "a.jpg")
