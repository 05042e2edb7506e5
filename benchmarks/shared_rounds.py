"""Seconds of an iterative method's sweep over several compressions, against a sweep for each of them.

    python benchmarks/shared_rounds.py [--compression 2 4 8 16 32] [--epochs 5] [--method NAME]

An iterative method on the digits with one process: rounds that runs have in common are done once in the one
sweep. Both ways end in the same numbers, which is checked. They take turns; pretraining is shared in both.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.spec import ExperimentSpec, parse_value


def run(method: str, ratios: list[float], epochs: int, out: Path) -> tuple[float, dict[str, float | None]]:
    """Seconds of a sweep, and the accuracy of each run by key."""
    fields = {
        "name": "rounds",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": method,
        "compression": ratios,
        "seed": 0,
        "pretrain": {"epochs": 10},
        "finetune": {"epochs": epochs},
    }
    start = time.perf_counter()
    sweep(parse_value(ExperimentSpec, fields, where="benchmark"), out, device="cpu")
    seconds = time.perf_counter() - start
    return seconds, {result.key: result.headline for result in ResultStore(out).results()[0]}


def main() -> None:
    """Read the arguments, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compression", type=float, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--method", default="weight_rewinding")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run(options.method, [1.0], options.epochs, folder / "first")  # pretrains
        ratios = []
        for number in range(options.rounds):

            def fresh(name: str, number: int = number) -> Path:
                return Path(shutil.copytree(folder / "first", folder / f"{number}-{name}"))

            together, found = run(options.method, options.compression, options.epochs, fresh("together"))
            apart, others = 0.0, {}
            for ratio in options.compression:
                seconds, result = run(options.method, [ratio], options.epochs, fresh(f"{ratio:g}"))
                apart += seconds
                others |= result
            if found != others:
                raise SystemExit("the numbers differ")
            ratios.append(apart / together)
            print(f"together {together:.1f} s, apart {apart:.1f} s: {ratios[-1]:.2f}x", flush=True)
        print(f"median of {len(ratios)} rounds: {statistics.median(ratios):.2f}x, the numbers are the same")


if __name__ == "__main__":
    main()
