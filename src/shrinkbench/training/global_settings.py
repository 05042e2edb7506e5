"""Settings of torch and numpy that a whole process shares and that change numbers: noted, and put back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.backends import cuda, cudnn, mha, mkldnn, opt_einsum

_DENORMAL = 2.0**-140  # of float32; zero where such numbers are flushed
_ATTRIBUTES: Mapping[str, tuple[Any, tuple[str, ...]]] = {
    "torch.backends": (torch.backends, ("fp32_precision",)),
    "mkldnn": (mkldnn, ("enabled", "deterministic", "fp32_precision", "allow_tf32")),
    "mkldnn.matmul": (getattr(mkldnn, "matmul", None), ("fp32_precision",)),
    "mkldnn.conv": (getattr(mkldnn, "conv", None), ("fp32_precision",)),
    "mkldnn.rnn": (getattr(mkldnn, "rnn", None), ("fp32_precision",)),
    "cudnn": (cudnn, ("enabled", "benchmark", "benchmark_limit", "deterministic", "fp32_precision")),
    "cudnn.conv": (getattr(cudnn, "conv", None), ("fp32_precision",)),
    "cudnn.rnn": (getattr(cudnn, "rnn", None), ("fp32_precision",)),
    "cudnn (TF32)": (cudnn, ("allow_tf32",)),
    "cuda.matmul": (
        cuda.matmul,
        (
            "fp32_precision",
            "allow_tf32",
            "allow_fp16_reduced_precision_reduction",
            "allow_bf16_reduced_precision_reduction",
        ),
    ),
    "opt_einsum": (opt_einsum, ("enabled", "strategy")),
    "torch.utils.deterministic": (
        torch.utils.deterministic,
        ("fill_uninitialized_memory",),
    ),
}


@dataclass(frozen=True)
class _Setting:
    """How one setting is read, and written."""

    read: Callable[[], Any]
    write: Callable[[Any], object]


def _default_device() -> str:
    return str(torch.get_default_device())


def _set_default_device(device: str) -> None:
    torch.set_default_device(None if device == "cpu" else device)  # "cpu" would stand before every call


def _flushes_denormals() -> bool:
    return not float(torch.tensor(_DENORMAL, dtype=torch.float32, device="cpu") * 1)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(found: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(found[0], warn_only=found[1])


def _anomalies() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _set_anomalies(found: tuple[bool, bool]) -> None:
    torch.autograd.set_detect_anomaly(*found)


def _set_numpy_errors(found: dict[str, Any]) -> None:
    np.seterr(**found)


def _settings() -> dict[str, _Setting]:
    """Every setting by its name; the device first, as some of the others make tensors."""
    found = {
        "default device": _Setting(_default_device, _set_default_device),
        "default dtype": _Setting(torch.get_default_dtype, torch.set_default_dtype),
        "number of threads": _Setting(torch.get_num_threads, torch.set_num_threads),
        "flushing of denormal numbers": _Setting(_flushes_denormals, torch.set_flush_denormal),
        "gradients": _Setting(torch.is_grad_enabled, torch.set_grad_enabled),
        "deterministic algorithms": _Setting(_deterministic, _set_deterministic),
        "detection of anomalies": _Setting(_anomalies, _set_anomalies),
        "fast path of attention": _Setting(mha.get_fastpath_enabled, mha.set_fastpath_enabled),
        "numpy's errors": _Setting(np.geterr, _set_numpy_errors),
        "autocast's cache": _Setting(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
        "flash attention": _Setting(cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
        "efficient attention": _Setting(cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
        "plain attention": _Setting(cuda.math_sdp_enabled, cuda.enable_math_sdp),
        "cudnn's attention": _Setting(cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
    }
    for kind in ("cpu", "cuda"):
        found[f"autocast on {kind}"] = _Setting(
            partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind)
        )
        found[f"autocast's dtype on {kind}"] = _Setting(
            partial(torch.get_autocast_dtype, kind), partial(torch.set_autocast_dtype, kind)
        )
    for place, (owner, names) in _ATTRIBUTES.items():
        for name in names:
            if owner is not None:
                found[f"{place}.{name}"] = _Setting(
                    partial(getattr, owner, name), partial(setattr, owner, name)
                )
    # Last: it also sets the precision of single back ends.
    found["precision of float32 products"] = _Setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    )
    return found


_SETTINGS = _settings()


def _note() -> dict[str, Any]:
    """What every setting is now; one that this version of torch has not, or cannot tell, is left out."""
    found = {}
    for name, setting in _SETTINGS.items():
        with contextlib.suppress(AttributeError, RuntimeError):
            found[name] = setting.read()
    return found


@contextlib.contextmanager
def settings_put_back() -> Iterator[list[str]]:
    """Whatever somebody's code sets inside is set back; afterwards the list tells what it had changed."""
    before = _note()
    changed: list[str] = []
    try:
        yield changed
    finally:
        after = _note()
        changed += [
            f"{name} ({was} -> {after.get(name)})" for name, was in before.items() if after.get(name) != was
        ]
        if changed:
            _put_back(before)


def _put_back(before: Mapping[str, Any]) -> None:
    for _ in range(2):  # some set others along
        for name, was in before.items():
            with contextlib.suppress(AttributeError, RuntimeError):
                if _SETTINGS[name].read() == was:
                    continue
            with contextlib.suppress(AttributeError, RuntimeError):
                _SETTINGS[name].write(was)
