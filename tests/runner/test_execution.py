"""What one run measures of its network."""

import torch

from shrinkbench.models import build
from shrinkbench.network.probe import weight_parameters
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.runner.execution import bin_counts
from shrinkbench.spec import ExperimentSpec, parse_value


def test_the_histogram_holds_weights_that_multiply_inputs_alone(tmp_path):
    """Channels take the scales and shifts of their batch norm with them: masked, but no weights."""
    fields = {
        "name": "test",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": "network_slimming",
        "channels": 0.5,
        "pretrain": {"epochs": 1},
        "finetune": {"epochs": 1},
        "train_images": 128,
    }
    sweep(parse_value(ExperimentSpec, fields, where="test"), tmp_path, device="cpu")
    ((result,), _) = ResultStore(tmp_path).results()
    weights = weight_parameters(build("digits-cnn"))
    assert result.layers.keys() - weights.keys()  # batch norms have lost scales
    histogram, masked = result.weight_histogram, result.layers.keys() & weights.keys()
    assert sum(histogram.before) == sum(weights[name].numel() for name in masked)
    assert sum(histogram.after) == sum(result.layers[name].kept for name in masked)


def test_bins_count_beyond_what_float32_tells_apart():
    """A layer of a hundred million weights near zero has more in one bin than 2^24."""
    weights = torch.zeros(2**24 + 3)
    assert sum(bin_counts(weights, 1.0)) == 2**24 + 3
    assert sum(bin_counts(weights[:0], 1.0)) == 0
