"""One place decides what a failure says: something about the method, or about the machine."""

import errno
import threading
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from shrinkbench.errors import CannotMeetTargetError, InputError, ShrinkbenchError
from shrinkbench.files import NotPlainError, write_atomically
from shrinkbench.models import MODELS
from shrinkbench.pruning import METHODS, resolve
from shrinkbench.pruning.method import resolve_finetuning
from shrinkbench.runner.execution import sentence_of
from shrinkbench.runner.outcomes import classify, doubt_failures
from shrinkbench.runner.sealing import NotAsWrittenError
from shrinkbench.runner.workspace import check_source
from shrinkbench.sources import digest_of, origin_of_file
from shrinkbench.spec import CLASSIFICATION, AxisValue, FinetuningSpec, ModelSpec, Objective
from shrinkbench.tasks import task_of


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
        *(OSError(getattr(errno, name), "x") for name in ("ENOTDIR", "EISDIR", "ELOOP", "EEXIST")),
        NotPlainError(errno.EINVAL, "it is a pipe"),
        translated(NotAsWrittenError(Path("x")), IsADirectoryError(errno.EISDIR, "x")),
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
        ModuleNotFoundError("No module named 'scipy'"),
        translated(ShrinkbenchError("tasks on x need the package x"), ImportError("x")),
        RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
        RuntimeError("No CUDA GPUs are available"),
        AssertionError("Torch not compiled with CUDA enabled"),
        ExceptionGroup("of threads", [ValueError("x"), ExceptionGroup("inner", [MemoryError()])]),
        InputError("the weights file has changed"),
        translated(InputError("cannot read x; put it back"), OSError(errno.ENOENT, "x")),
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
        AssertionError("the method's own"),
        ExceptionGroup("of threads", [ValueError("x")]),
        ShrinkbenchError("training diverged"),
        CannotMeetTargetError("x", largest=3.0),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        SystemExit(0),  # a method that ends the process has failed
        RecursionError(),
        OSError("no number"),
        OSError(errno.ENOENT, "a file that the method reads"),
        OSError(errno.EINVAL, "what the method asks of the system"),
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


@pytest.mark.parametrize(
    "ask",
    [
        lambda: resolve(METHODS.get("random").spec.model_copy(update={"base": "a_method_that_is_not_there"})),
        lambda: resolve(METHODS.get("random").spec.model_copy(update={"update": AxisValue(name="other")})),
        lambda: resolve_finetuning(FinetuningSpec(name="a-mode-that-is-not-there")),
        lambda: task_of(Objective(**{**CLASSIFICATION.model_dump(), "name": "no-such-task"})),
        lambda: check_source(MODELS, ModelSpec(name="no-such-network")),
        lambda: check_source(MODELS, ModelSpec(name="digits-cnn", source="0" * 64)),
        lambda: METHODS.get("filter_l1[allocation=pattern:liu2019-vgg16#00000000]"),
    ],
)
def test_what_was_planned_with_and_is_not_at_hand(ask):
    """Code that this process lacks, or has in another version, says nothing about a method."""
    with pytest.raises(ShrinkbenchError) as told:
        ask()
    assert classify(told.value) == "environment"


def test_a_plug_in_that_is_edited_while_it_runs(tmp_path):
    file = tmp_path / "plug.py"
    file.write_text("x = 1\n")
    origin = origin_of_file(file)
    file.write_text("x = 2\n")
    with pytest.raises(ShrinkbenchError, match="has changed since it was loaded") as told:
        digest_of([origin])
    assert classify(told.value) == "environment"


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def test_what_is_told_is_what_the_code_has_raised_whatever_its_text():
    assert classify(MuteError()) == "scientific"
    assert sentence_of(MuteError()) == "MuteError: its text cannot be told"
    assert sentence_of(ValueError("bad \ud800 text")) == r"ValueError: bad \ud800 text"
    assert len(sentence_of(ValueError("x" * 10**7))) == 2000


def test_a_folder_that_is_removed_under_a_run_is_no_finding(tmp_path):
    def removed(temporary):
        temporary.unlink()
        tmp_path.joinpath("runs").rmdir()

    with pytest.raises(ShrinkbenchError, match="No such file") as caught:
        write_atomically(tmp_path / "runs" / "result.json", removed)
    assert classify(caught.value) == "environment"


def test_what_fails_once_the_process_was_told_to_end_is_no_finding(monkeypatch):
    monkeypatch.setattr("shrinkbench.runner.outcomes._signalled", threading.Event())
    assert classify(ValueError("no")) == "scientific"
    doubt_failures()
    assert classify(ValueError("no")) == "interruption"
