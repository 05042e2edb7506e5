"""Table 1 of "Rethinking the Value of Network Pruning", scaled down: does pruning beat training from scratch?

One network is trained, pruned by the L1 norm of its filters to predefined widths, and fine-tuned; the small
network is also trained from random weights, for the same epochs (Scratch-E) and for the same computation
(Scratch-B). Small networks are physically small everywhere. Prints the paper's table, mean and standard
deviation over seeds.

    python benchmarks/rethinking_table_1.py                            # digits, a few minutes on two cores
    python benchmarks/rethinking_table_1.py --dataset cifar10 --data DIR --model resnet20 --train-images 2000
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from shrinkbench.budget import scratch_b, scratch_e, total, training_cost
from shrinkbench.datasets import load_dataset
from shrinkbench.measures import Budget
from shrinkbench.metrics import count_multiply_adds
from shrinkbench.models import build, get_model
from shrinkbench.pruning.coupling import couple
from shrinkbench.pruning.structured.predefined import keep_counts, uniform_counts
from shrinkbench.pruning.structured.scratch import initialised_anew
from shrinkbench.pruning.surgery import plan_and_shrink
from shrinkbench.runner.workspace import BoundData
from shrinkbench.seeds import stream
from shrinkbench.spec import DataSpec, Recipe
from shrinkbench.training import RECIPES, evaluate, train, with_overrides


@dataclass(frozen=True)
class Outcome:
    """Test accuracy in percent by training, and what each training cost in multiply-adds."""

    accuracy: dict[str, float]
    cost: dict[str, float]


def run(
    seed: int, shares: Sequence[float], model: str, data: BoundData, recipe: Recipe, finetune: Recipe
) -> dict[float, Outcome]:
    """All trainings of one seed: the large network once, then every small one three times."""
    card = get_model(model)
    classes = len(data.dataset.class_names)
    shape = data.dataset.card.image_shape or card.input_shape
    large = build(model, num_classes=classes, seed=stream(seed, "initialisation"))
    train(large, recipe, data, seed=stream(seed, "pretrain"))
    unpruned = evaluate(large, data.test()).top1
    counts_large = count_multiply_adds(large, shape)
    images = len(data.train_source)
    coupling = couple(large, shape)
    outcomes = {}
    for share in shares:
        weights = {name: p.detach().abs() for name, p in large.named_parameters()}
        masks = keep_counts(large, coupling, uniform_counts(coupling, share), weights)
        pruned, _ = plan_and_shrink(large, masks, shape)
        counts_small = count_multiply_adds(pruned, shape)
        recipes = {
            "Fine-tuned": finetune,
            "Scratch-E": scratch_e(recipe),
            "Scratch-B": scratch_b(recipe, large=counts_large, small=counts_small),
        }
        accuracy = {"Unpruned": 100 * unpruned}
        pretraining = training_cost(epochs=recipe.epochs, images=images, multiply_adds=counts_large)
        cost = {"Unpruned": pretraining.multiply_adds}
        for name, chosen in recipes.items():
            fresh = name.startswith("Scratch")
            draw = stream(seed, "scratch", name)
            network = initialised_anew(pruned, seed=draw) if fresh else pruned
            train(network, chosen, data, seed=stream(seed, "finetune", name))
            accuracy[name] = 100 * evaluate(network, data.test()).top1
            nothing = training_cost(epochs=0, images=images, multiply_adds=counts_small)
            budget = Budget(
                pretraining=nothing if fresh else pretraining,
                pruning=nothing,
                retraining=training_cost(epochs=chosen.epochs, images=images, multiply_adds=counts_small),
            )
            cost[name] = total(budget).multiply_adds
        outcomes[share] = Outcome(accuracy, cost)
    return outcomes


COLUMNS = ("Unpruned", "Fine-tuned", "Scratch-E", "Scratch-B")


def table(outcomes: Sequence[dict[float, Outcome]], dataset: str, model: str) -> str:
    """The paper's layout, one row per pruned network."""
    head = f"{'Dataset':<9}{'Model':<12}{'Pruned model':<14}" + "".join(f"{c:>18}" for c in COLUMNS)
    lines = [head, "-" * len(head)]
    for share in outcomes[0]:
        cells = []
        for column in COLUMNS:
            values = [o[share].accuracy[column] for o in outcomes]
            deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(f"{statistics.mean(values):.2f} (±{deviation:.2f})")
        name = f"{100 * share:.0f} % kept"
        lines.append(f"{dataset:<9}{model:<12}{name:<14}" + "".join(f"{c:>18}" for c in cells))
    lines.append("")
    lines.append(
        "Multiply-adds of all training, relative to training the unpruned network (pretraining included):"
    )
    for share, outcome in outcomes[0].items():
        ratios = {c: outcome.cost[c] / outcome.cost["Unpruned"] for c in COLUMNS[1:]}
        lines.append(f"  {100 * share:.0f} % kept: " + ", ".join(f"{c} {r:.2f}" for c, r in ratios.items()))
    return "\n".join(lines)


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="digits-cnn")
    parser.add_argument("--share", type=float, nargs="+", default=[0.75, 0.5], help="channels kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="of training; milestones at 50 and 75 %%")
    parser.add_argument("--finetune-epochs", type=int, help="a quarter of the epochs, as 40 of 160")
    parser.add_argument("--train-images", type=int)
    parser.add_argument("--test-images", type=int)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = load_dataset(arguments.dataset, arguments.data)
    spec = DataSpec(
        name=arguments.dataset,
        revision=dataset.revision,
        normalisation=dataset.card.normalisation,
        train_images=arguments.train_images,
        test_images=arguments.test_images,
    )
    data = BoundData(dataset, spec, "cpu")
    epochs = arguments.epochs
    recipe = with_overrides(
        RECIPES.get("cifar-train"),
        {
            "name": "small",
            "epochs": epochs,
            "milestones": (epochs // 2, epochs * 3 // 4),
            "learning_rate": 0.05,
        },
    )
    finetune = with_overrides(
        RECIPES.get("cifar-finetune-liu-40"), {"epochs": arguments.finetune_epochs or max(1, epochs // 4)}
    )
    started = time.perf_counter()
    outcomes = []
    for seed in range(arguments.seeds):
        outcomes.append(run(seed, arguments.share, arguments.model, data, recipe, finetune))
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    print()
    print(table(outcomes, arguments.dataset, arguments.model))


if __name__ == "__main__":
    main()
