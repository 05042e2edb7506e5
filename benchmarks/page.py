"""Run the benchmarks of a list, keep what they print, and write docs/performance.md from it.

    python benchmarks/page.py                    # the page from what is recorded
    python benchmarks/page.py --run all          # each one, then the page; the machine should be quiet
    python benchmarks/page.py --run whole_sweep --data ~/data/cifar10

What a benchmark printed, with its command, date, machine and commit, is benchmarks/recorded/NAME.txt.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shrinkbench.runner.provenance import processor

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
INTRODUCTION = """# Performance

What is said here was measured by a script in `benchmarks/`, and every factor is a ratio of times that were
taken in one run, in turn. `make bench` measures again on your machine and writes this page; what needs a GPU or
other data stays as it was recorded last. Nothing that makes a run faster changes its numbers beyond the
tolerance that is told, and a test holds it to that.
"""


@dataclass(frozen=True)
class Benchmark:
    """One script, what its numbers answer, and the arguments it is run with here."""

    title: str
    text: str
    script: str
    arguments: str = ""
    needs: str = "cpu"  # cpu, data (CIFAR-10), gpu, or amx (a processor that has it, and CIFAR-10)
    variant: str = ""  # of a script that is run more than once

    @property
    def name(self) -> str:
        """What it is called on the command line and among the records."""
        return f"{self.script}_{self.variant}" if self.variant else self.script


BENCHMARKS = (
    Benchmark(
        "One step of training",
        "A step does all that a run does, and is compared with a loop that does nothing but train. The "
        "first pass through torch.compile is what has to be paid back first. `sweep --compile on` sends the "
        "steps of pretraining and of training under masks through it; `--compile auto` times a few steps of "
        "either kind and takes what makes the sweep shorter; in Python it is `sweep(..., compiled=True)`. Keys "
        "stay what they are, and a run's provenance says whether its steps were compiled: before each training "
        "a step is compared with the network's own, and has to be as near to one in double precision up to a "
        "factor of three. Later steps drift apart as they do with another number of threads. Networks whose "
        "passes are hooked into, and methods that prune while they train, run as they are.",
        "finetuning",
        "--images 640 --rounds 3 --compile default",
    ),
    Benchmark(
        "One step of training on a processor with AMX",
        "Two cores of 16, and a GPU that is not used; other work ran on other cores. torch.compile takes 94 to "
        "105 s once there, and pays back after that.",
        "finetuning",
        "--images 640 --rounds 5 --compile default",
        "amx",
        "amx",
    ),
    Benchmark(
        "A whole small sweep",
        "Start-up, data, masks and storing included, against a process for each run, which has float32 only.",
        "whole_sweep",
        "--images 4000 --rounds 4 --precision bf16-mixed",
        "data",
    ),
    Benchmark(
        "A whole small sweep in float32",
        "The same at equal precision.",
        "whole_sweep",
        "--images 4000 --rounds 1",
        "data",
        "float32",
    ),
    Benchmark(
        "A whole small sweep on a processor with AMX",
        "Two cores of 16; other work ran on other cores.",
        "whole_sweep",
        "--images 4000 --rounds 2 --precision bf16-mixed",
        "amx",
        "amx",
    ),
    Benchmark(
        "Structured runs on the network that is left",
        "`--train-smaller` fine-tunes the physically smaller network (docs/structured-pruning.md), here "
        "in float32. Top-1 is of 21 images of noise.",
        "structured_training",
        "--images 192 --rounds 2",
    ),
    Benchmark(
        "Rounds in common",
        "An iterative method at several compressions in one sweep, against a sweep for each (docs/methods.md). "
        "Each run trains for itself after its last round, which lands on its target: the gain is that of "
        "trainings, 23 in place of 54.",
        "shared_rounds",
    ),
    Benchmark(
        "Rounds of 10 % in common",
        "44 trainings in place of 111.",
        "shared_rounds",
        "--method weight_rewinding[schedule=iterative-10] --rounds 1",
        variant="of_10_percent",
    ),
    Benchmark(
        "Rounds that end where others go on",
        "With `halve-in-3` a run at 2x ends with the third round of one at 4x: 15 trainings in place of 45.",
        "shared_rounds",
        "--method weight_rewinding[schedule=halve-in-3] --rounds 1",
        variant="of_halves",
    ),
    Benchmark(
        "Measured latency of smaller networks",
        "The times of one network in turn with those of its pruned copies.",
        "structured_latency",
        "--batch-size 32 --rounds 7",
    ),
    Benchmark(
        "Stopping when it is decided",
        "`--until-decided` against the fixed grid of its largest number of seeds (docs/statistics.md). Racing "
        "leaves fewer pairs to correct for, and methods that stopped still tell of the noise: in all rows the "
        "power is that of the fixed grid's report or above it; of 12 methods at 1 standard deviation (1,000 "
        "further stores) Kim and DeMets' find 42 %, Pocock's 33 % where the grid finds 44 %. At leads of 3 "
        "O'Brien and Fleming's, the default, need 2.1 to 2.2 times fewer runs, Kim and DeMets' 2.5 to 2.9, "
        "Pocock's 3.0 to 3.1 (`--spending`): of two methods the first hardly end before the fifth of ten "
        "seeds. With two methods a further 4,000 stores were looked at: 5.1 % are false by O'Brien and "
        "Fleming's boundaries, 5.0 % by Kim and DeMets', and at a lead of 3 these need 2.496 times fewer runs.",
        "until_decided",
        "--stores 500 --seed 1",
    ),
    Benchmark(
        "Ten thousand planned runs",
        "Planning, checking what is done, and status.",
        "store_scale",
    ),
    Benchmark(
        "The report of a large comparison",
        "2,592 runs of 12 methods on 12 tasks, with the main figures.",
        "report_scale",
    ),
    Benchmark(
        "Choosing the weights to keep",
        "The highest-scored eighth of all weights of ResNet-50.",
        "selection",
    ),
    Benchmark(
        "One step of training on a GPU",
        "Small networks wait for the launches of their kernels there: a compiled step is one CUDA graph that "
        "launches them all (`sweep --compile on`). Both loops repeat bit for bit, without TF32. The bare one "
        "finds its batches ready, and evaluates nothing.",
        "finetuning",
        "--device cuda --compile reduce-overhead --batch-size 128 --images 6400 --rounds 5 --no-original",
        "gpu",
        "cuda",
    ),
    Benchmark(
        "The same run again on a GPU",
        "Left alone, torch gives other weights each time and multiplies float32 in 10 bits of mantissa "
        "inside convolutions. shrinkbench turns both off: a run repeats bit for bit, at the price below. "
        "`bf16-mixed` in a recipe is the honest way to be faster.",
        "gpu_repeatable",
        needs="gpu",
    ),
    Benchmark(
        "Several runs on one GPU",
        "Small networks leave most of a GPU idle. `--workers N` puts N processes on it; NVIDIA's multi-"
        "process service, started by hand (`nvidia-cuda-mps-control -d`), lets their kernels run side by "
        "side.",
        "gpu_processes",
        "--processes 1 14",
        "gpu",
    ),
)


def record(benchmark: Benchmark, data: Path | None) -> None:
    """Run the script and keep what it printed."""
    given = shlex.split(benchmark.arguments)
    if benchmark.needs == "data" or benchmark.script == "gpu_repeatable":
        given += ["--data", str(data)]
    script = HERE / f"{benchmark.script}.py"
    done = subprocess.run([sys.executable, script, *given], check=True, stdout=subprocess.PIPE, text=True)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], check=True, stdout=subprocess.PIPE, text=True, cwd=HERE
    )
    shown = " ".join(["DIR" if word == str(data) else word for word in given])
    head = f"$ python benchmarks/{benchmark.script}.py {shown}".rstrip()
    day = datetime.now(UTC).date().isoformat()
    machine = f"{os.cpu_count()} cores of {processor()}, Python {platform.python_version()}"
    text = f"{head}\n{day}, {machine}, commit {commit.stdout.strip()}\n\n{done.stdout.rstrip()}\n"
    recorded(benchmark).write_text(text, encoding="utf-8")


def recorded(benchmark: Benchmark) -> Path:
    """Where the output of the script is kept."""
    return HERE / "recorded" / f"{benchmark.name}.txt"


def write_page() -> None:
    """Write the page from what is recorded; what is not is named as unmeasured."""
    parts = [INTRODUCTION]
    for benchmark in BENCHMARKS:
        path = recorded(benchmark)
        shown = f"```text\n{path.read_text(encoding='utf-8')}```" if path.exists() else "Not measured yet."
        parts.append(f"## {benchmark.title}\n\n{benchmark.text}\n\n{shown}\n")
    PAGE.write_text("\n".join(parts), encoding="utf-8")


def main() -> None:
    """Read the arguments, measure what is asked for, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser.add_argument("--run", nargs="+", default=[], choices=["all", *names], metavar="NAME")
    parser.add_argument("--data", type=Path, help="CIFAR-10, for those that train on it")
    options = parser.parse_args()
    for benchmark in BENCHMARKS:
        asked = benchmark.name in options.run
        able = benchmark.needs == "cpu" or (benchmark.needs == "data" and options.data is not None)
        if asked or ("all" in options.run and able):
            print(f"{benchmark.title} ...", flush=True)
            record(benchmark, options.data)
    write_page()


if __name__ == "__main__":
    main()
