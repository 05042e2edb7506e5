"""What somebody's code sets for the whole process is put back, and told."""

import contextlib

import numpy as np
import pytest
import torch

from shrinkbench.training.global_settings import _note, settings_put_back


def leak_autocast():
    torch.set_autocast_enabled("cpu", True)
    torch.set_autocast_dtype("cpu", torch.float16)


LEAKS = {
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 2),
    "mkldnn.enabled": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "flushing of denormal numbers": lambda: torch.set_flush_denormal(True),
    "gradients": lambda: torch.set_grad_enabled(False),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "cudnn.deterministic": lambda: setattr(torch.backends.cudnn, "deterministic", True),
    "cudnn.benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "cudnn.enabled": lambda: setattr(torch.backends.cudnn, "enabled", False),
    "cudnn (TF32).allow_tf32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "cuda.matmul.allow_tf32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "precision of float32 products": lambda: torch.set_float32_matmul_precision("medium"),
    "autocast on cpu": leak_autocast,
    "detection of anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "fast path of attention": lambda: torch.backends.mha.set_fastpath_enabled(False),
    "efficient attention": lambda: torch.backends.cuda.enable_mem_efficient_sdp(False),
    "numpy's errors": lambda: np.seterr(all="raise"),
}


@pytest.mark.parametrize("name", LEAKS)
def test_what_is_set_inside_is_put_back_and_told(name):
    before = _note()
    assert name in before
    with settings_put_back() as changed:
        LEAKS[name]()
    assert any(each.startswith(f"{name} (") for each in changed)
    assert _note() == before


def test_all_of_them_at_once_and_an_error():
    before = _note()
    with contextlib.suppress(ValueError), settings_put_back() as changed:
        for leak in LEAKS.values():
            leak()
        raise ValueError("mine")
    assert len(changed) >= len(LEAKS)
    assert _note() == before


def test_what_changes_nothing_tells_nothing():
    with settings_put_back() as changed:
        torch.ones(3).sum()
    assert changed == []
