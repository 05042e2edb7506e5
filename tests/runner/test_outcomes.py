"""One place decides what a failure says: something about the method, or about the machine."""

import errno
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch
from safetensors import SafetensorError

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.files import write_atomically
from shrinkbench.runner.outcomes import classify


def translated(error, raised):
    """``error`` as our code raises it in the handler of ``raised``."""
    try:
        try:
            raise raised
        except type(raised):
            raise error from None
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        *(
            OSError(getattr(errno, name), "x")
            for name in ("ENOSPC", "EFBIG", "EDQUOT", "EIO", "EMFILE", "ESTALE")
        ),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        BrokenProcessPool("a process died"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError(
            "[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0; PytorchStreamWriter failed"
        ),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        translated(ShrinkbenchError("cannot write x"), OSError(errno.ENOSPC, "full")),
        translated(ShrinkbenchError("cannot write x"), SafetensorError("I/O error: x (os error 28)")),
    ],
)
def test_the_machine(error):
    assert classify(error) == "environment"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        ShrinkbenchError("training diverged"),
        CannotMeetTargetError("x", largest=3.0),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        SystemExit(0),  # a method that ends the process has failed
        RecursionError(),
        OSError("no number"),
        OSError(errno.ENOENT, "a file that the method reads"),
        translated(ShrinkbenchError("there is no dataset"), OSError(errno.ENOENT, "x")),
        translated(ValueError("the method's own way out failed"), MemoryError()),
    ],
)
def test_the_run(error):
    assert classify(error) == "scientific"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CancelledError(), GeneratorExit()])
def test_somebody(error):
    assert classify(error) == "interruption"


def test_a_refused_write_is_the_machines(tmp_path):
    def fill(place):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ShrinkbenchError) as refused:
        write_atomically(tmp_path / "file", fill)
    assert classify(refused.value) == "environment"
