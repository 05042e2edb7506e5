"""One result on one GPU: the same kernels in the same order every time, and float32 that is float32."""

from __future__ import annotations

import os

import torch


def compute_repeatably(device: str) -> None:
    """Set this process so that a run on ``device`` repeats bit for bit; a CPU needs nothing for it.

    On ``cuda`` torch chooses among kernels by what it measures, adds in whatever order threads end, and
    multiplies float32 in 10 bits of mantissa (TF32) inside convolutions. All three are turned off. An operation
    that has no repeatable form is carried out, with torch's own warning.
    """
    if torch.device(device).type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read where cuBLAS is first used
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
