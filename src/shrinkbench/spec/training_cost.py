"""The arithmetic of equal cost: what training costs, and how long a smaller network may train for the same.

Scratch-E trains the pruned architecture from random weights for as many epochs as the large network,
Scratch-B for as much computation (Liu et al. 2019). A multiply-add count stands for computation; a training
step costs three forward passes, two of them for the backward pass.
"""

from __future__ import annotations

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.spec import Recipe
from shrinkbench.spec.measures import Cost, Spent

PASSES_PER_STEP = 3  # forward once, backward twice: gradients of inputs and of weights
NOTHING = Spent(epochs=0, images=0, multiply_adds=0)


def stretched(recipe: Recipe, epochs: int, *, suffix: str) -> Recipe:
    """``recipe`` over ``epochs`` epochs, its milestones and warm-up moved in proportion, rounded down.

    >>> from shrinkbench.training.recipe import RECIPES
    >>> longer = stretched(RECIPES.get("cifar-train"), 243, suffix="scratch-b")
    >>> longer.name, longer.epochs, longer.milestones
    ('cifar-train-scratch-b', 243, (121, 182))
    """
    if epochs < 1:
        raise ShrinkbenchError(f"a training of {epochs} epochs cannot be; give at least one")
    factor = epochs / max(recipe.epochs, 1)
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-{suffix}",
            "epochs": epochs,
            "milestones": tuple(int(m * factor) for m in recipe.milestones),
            "warmup_epochs": int(recipe.warmup_epochs * factor),
        }
    )


def scratch_b_epochs(epochs: int, *, large: int, small: int, cap: float | None = None) -> int:
    """Epochs of the small network that cost what ``epochs`` of the large one do: epochs x large / small.

    ``large`` and ``small`` are multiply-adds of one input. On ImageNet the factor is capped at 2: where it
    would be more, training is doubled. Rounded down.

    >>> scratch_b_epochs(160, large=313_463_808, small=206_279_680)  # VGG-16-A
    243
    >>> scratch_b_epochs(90, large=15_470_264_320, small=4_791_205_888, cap=2)  # ThiNet VGG-Conv
    180
    """
    if large < 1 or small < 1:
        raise ShrinkbenchError(f"multiply-adds {large:,} and {small:,} have to be positive")
    if small > large:
        raise ShrinkbenchError(
            f"the small network takes {small:,} multiply-adds, the large one {large:,}; exchange them"
        )
    factor = large / small
    return int(epochs * (factor if cap is None else min(factor, cap)))


def scratch_b(recipe: Recipe, *, large: int, small: int) -> Recipe:
    """The recipe by which the small network trains from random weights for the large one's computation.

    Longer by at most ``recipe.largest_stretch``.
    """
    epochs = scratch_b_epochs(recipe.epochs, large=large, small=small, cap=recipe.largest_stretch)
    return stretched(recipe, epochs, suffix="scratch-b")


def training_cost(*, epochs: float, images: int, multiply_adds: int) -> Spent:
    """What ``epochs`` over ``images`` images cost a network of so many multiply-adds per input.

    >>> training_cost(epochs=2, images=10, multiply_adds=5)
    Spent(epochs=2.0, images=20, multiply_adds=300.0)
    """
    seen = round(epochs * images)
    return Spent(epochs=epochs, images=seen, multiply_adds=float(PASSES_PER_STEP * seen * multiply_adds))


def scoring_cost(*, images: int, multiply_adds: int, backward: bool) -> Spent:
    """What scoring on ``images`` images costs: a forward pass each and, for gradients, a backward pass.

    >>> scoring_cost(images=10, multiply_adds=5, backward=False)
    Spent(epochs=0.0, images=10, multiply_adds=50.0)
    """
    passes = PASSES_PER_STEP if backward else 1
    return Spent(epochs=0, images=images, multiply_adds=float(passes * images * multiply_adds))


def together(*phases: Spent) -> Spent:
    """Several phases as one."""
    return Spent(
        epochs=sum(s.epochs for s in phases),
        images=sum(s.images for s in phases),
        multiply_adds=sum(s.multiply_adds for s in phases),
    )


def total(cost: Cost) -> Spent:
    """All phases together; an unknown pretraining counts as nothing."""
    return together(cost.pretraining or NOTHING, cost.pruning, cost.retraining)


def epochs_within(spent: Spent, *, images: int, multiply_adds: int) -> float:
    """How many epochs over ``images`` images a network of so many multiply-adds can train for ``spent``.

    >>> epochs_within(training_cost(epochs=40, images=10, multiply_adds=8), images=10, multiply_adds=4)
    80.0
    """
    if images < 1 or multiply_adds < 1:
        raise ShrinkbenchError(f"{images} images and {multiply_adds:,} multiply-adds have to be positive")
    return spent.multiply_adds / (PASSES_PER_STEP * images * multiply_adds)


# --- what two runs have in common --------------------------------------------------------------------------
