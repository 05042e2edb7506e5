"""What a stored failure is about: the run as it is specified, or the machine it ran on."""

from __future__ import annotations

import re

from shrinkbench.results.record import RunResult

MACHINE_WORDS = re.compile(
    r"can't allocate memory|not enough memory|out of memory|std::bad_alloc|CUDNN_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_NOT_INITIALIZED|CUBLAS_STATUS_ALLOC_FAILED|PytorchStreamWriter failed"
    r"|unable to (open|mmap|write) .*(file|bytes)|CUDA driver|no NVIDIA driver"
    r"|No CUDA GPUs are available|not compiled with CUDA enabled"
    r"|CUDA error: (uncorrectable ECC|device.*(unavailable|busy)|unknown error|no CUDA-capable)"
    r"|can't start new thread|Too many open files|No space left on device"
    r"|Connection (closed|reset) by peer|NCCL error|ProcessGroupNCCL|third_party/gloo",
    re.IGNORECASE,
)
"""Libraries that are not Python's own tell in words only that memory, disk or device failed."""
_TYPE = re.compile(r"(?:[A-Za-z_]\w*\.)*(?P<name>[A-Z]\w*(?:Error|Exception|Pool|Interrupt))\s*(?::|\Z)")
_MACHINE_TYPES = re.compile(
    r"MemoryError|OutOfMemoryError|BrokenProcessPool|KeyboardInterrupt|CancelledError|OSError|PermissionError"
    r"|NotADirectoryError|IsADirectoryError|FileExistsError|NotPlainError|TimeoutError|Connection\w*Error"
    r"|ImportError|ModuleNotFoundError"
)
_WITHOUT_TYPE = re.compile(
    r"(killed|out of memory|((a|the|its) )?(worker|process)( \d+)? (was|has been) killed( by signal \w+)?)\W*",
    re.IGNORECASE,
)
"""Whole sentences of a scheduler or a shell, in which no method plays a part."""
_LONGEST = 2000


def is_scientific(result: RunResult) -> bool:
    """Whether a run failed for a reason that lies in what it is: a finding, which all sources should share.

    A sweep stores no other failures; others may store that a worker was killed or that memory was short, which
    says nothing about the run. The type of the error decides, where it is told; what libraries say in words
    counts of a ``RuntimeError`` or ``AssertionError`` alone, which is all that they raise.
    """
    if result.status != "failed":
        return False
    told = (result.error or "")[:_LONGEST]
    kind = _TYPE.match(told)
    if kind is None:
        return _WITHOUT_TYPE.fullmatch(told) is None
    if kind["name"] in ("RuntimeError", "AssertionError"):
        return MACHINE_WORDS.search(told) is None
    return _MACHINE_TYPES.fullmatch(kind["name"]) is None
