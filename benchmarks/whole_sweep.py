"""Seconds of a whole small sweep against one process per run in the original ShrinkBench's style.

    python benchmarks/whole_sweep.py --data DIR [--images 4000] [--rounds 2] [--precision bf16-mixed]

Six runs of ResNet-20: three methods at two ratios, one epoch of fine-tuning on the same images, accuracy before
and after on the same 1,000 test images; start-up, data, masks, storing and what else either does are counted.
"shrinkbench" is one command with two workers. "original's style" is a process for each run, one after another
with two threads, that reads the images through PIL and a DataLoader, and trains a network whose modules
multiply their weights by masks (see finetuning.py), in float32. They take turns; ratios are of one round.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS, RATIOS = ("global_magnitude", "layerwise_magnitude", "random"), (2, 4)
EXPERIMENT = """
name = "whole"
dataset = "cifar10"
model = "resnet20"
weights = "{weights}"
method = {methods}
compression = {ratios}
seed = 0
train_images = {images}
validation_images = 100
test_images = 1000

[finetune]
epochs = 1
precision = "{precision}"
"""
ORIGINAL = """
import sys
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(2)
from finetuning import PilImages, masked_network, original_epoch
from safetensors.torch import load_file
from pathlib import Path
from shrinkbench.datasets import load_dataset
data = load_dataset("cifar10", Path({data!r}))
module = masked_network({method!r}, {ratio}, load_file({weights!r}))
train, test = data.train.subset({images}), data.test.subset(1000)
tests = torch.utils.data.DataLoader(PilImages(test.images, test.labels), 128)
def accuracy():
    module.eval()
    with torch.no_grad():
        right = sum((module(x).argmax(1) == y).sum().item() for x, y in tests)
    module.train()
    return right / len(test.labels)
before = accuracy()
original_epoch(module, PilImages(train.images, train.labels))()
print(before, accuracy())
"""


def time_of(*command: str) -> float:
    """Seconds of a command; its output is shown where it fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Read the arguments, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", default="float32", help="shrinkbench's; the original has no other")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = folder / "initial.safetensors"
        write = "from shrinkbench.models import build; from safetensors.torch import save_file; "
        write += f"save_file(dict(build('resnet20').state_dict()), {str(weights)!r})"
        time_of(sys.executable, "-c", write)
        experiment = folder / "whole.toml"
        fields = {
            "weights": weights,
            "methods": list(METHODS),
            "ratios": list(RATIOS),
            "images": options.images,
            "precision": options.precision,
        }
        experiment.write_text(EXPERIMENT.format(**fields).replace("'", '"'))
        ratios = []
        for number in range(options.rounds):
            place = ["--data", str(options.data), "--out", str(folder / f"store-{number}"), "--workers", "2"]
            place += ["--device", "cpu"]
            ours = time_of(sys.executable, "-m", "shrinkbench", "sweep", str(experiment), *place)
            theirs = 0.0
            for method in METHODS:
                for ratio in RATIOS:
                    values = {"here": str(Path(__file__).parent), "data": str(options.data), "ratio": ratio}
                    values |= {"method": method, "weights": str(weights), "images": options.images}
                    theirs += time_of(sys.executable, "-c", ORIGINAL.format(**values))
            ratios.append(theirs / ours)
            print(f"shrinkbench {ours:.1f} s, original's style {theirs:.1f} s: {ratios[-1]:.2f}x", flush=True)
        print(f"median of {len(ratios)} rounds: {statistics.median(ratios):.2f}x")


if __name__ == "__main__":
    main()
