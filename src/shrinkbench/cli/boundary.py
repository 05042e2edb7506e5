"""The outermost boundary: nothing but a clear sentence and an exit code leaves it."""

from __future__ import annotations

import errno
import io
import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from shrinkbench.errors import ShrinkbenchError, one_line, said_of

REFUSED, INTERRUPTED, FAULT = 2, 130, 70
# typer carries its own copy of click, or uses the installed one.
_WRONG_USE: Any = typer.BadParameter.__mro__[2]
_NO_ARGUMENTS: Any = getattr(import_module(typer.BadParameter.__module__), "NoArgsIsHelpError", ())
_UNWRITABLE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF))
_EMPTY = re.compile("(--[a-z-]+=)?")
_NO_MEMORY_FOR_LIBRARY = re.compile("failed to map segment|[Cc]annot allocate memory")  # as glibc says it
_CLOSED = 141  # as of a program that SIGPIPE ends


def run_guarded(command: Callable[[], int | None]) -> None:
    """Call ``command``; whatever it raises becomes one sentence on standard error, and the exit code.

    2: the input is at fault, or the machine (memory, disk). 130: interrupted. 70: a fault of shrinkbench, with
    the traceback in a file. What the reader of standard output has left unread is no error.
    """
    _fill_closed()
    _take_all_characters()
    try:
        code = command()
        sys.stdout.flush()
    except _WRONG_USE as error:
        if isinstance(error, _NO_ARGUMENTS):
            error.show()  # the help
            sys.exit(REFUSED)
        _leave(REFUSED, _usage(error))
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # as rich ends a program
            _leave_closed()
        if isinstance(error.code, str) or _is_elsewheres(error):  # ours are numbers
            _leave(REFUSED, one_line(f"error: somebody's code ends this command: {said_of(error)}"))
        _flush_or_leave()
        raise
    except BrokenPipeError:
        _leave_closed()
    except KeyboardInterrupt:
        _leave(INTERRUPTED, "interrupted")
    except BaseException as error:
        _leave(*outcome_of(error))
    else:
        if code:  # of typer.Exit
            sys.exit(code)


def _is_elsewheres(error: SystemExit) -> bool:
    """Whether code from outside this package, and of no library that leads the command line, has raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    ours = [Path(__file__).parents[1], Path(str(typer.__file__)).parent]
    raised_in = None if trace is None else Path(trace.tb_frame.f_code.co_filename)
    return type(error) is SystemExit and raised_in is not None and not any(map(raised_in.is_relative_to, ours))


def _usage(error: Any) -> str:
    """What is wrong with the command line, and where its options are told."""
    context = getattr(error, "ctx", None)
    asked = f"; `{context.command_path} --help` tells what can be given" if context is not None else ""
    return one_line(f"error: {error.format_message().rstrip('.')}{asked}")


def check_call(arguments: Iterable[str]) -> None:
    """Refuse what no command can work with: a folder that was removed meanwhile, names that are no text."""
    try:
        Path.cwd()
    except OSError as error:
        raise ShrinkbenchError(
            f"the folder that you are in cannot be used ({error.strerror}); change to another"
        ) from None
    for given in arguments:
        if _EMPTY.fullmatch(given):  # as a path it would be that of where one is
            raise ShrinkbenchError("an argument is empty and names nothing; write . for the folder you are in")
        try:
            given.encode()
        except UnicodeEncodeError:
            raise ShrinkbenchError(f"'{given}' holds bytes that are no text in UTF-8; rename it") from None


def outcome_of(error: BaseException) -> tuple[int, str]:
    """The exit code and the sentence for what a command raised."""
    if isinstance(error, ShrinkbenchError):
        return REFUSED, f"error: {error}"
    if isinstance(error, OSError) and error.filename is not None:
        reason = error.strerror or type(error).__name__
        return REFUSED, one_line(f"error: cannot use {error.filename}: {reason}; choose another path")
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:  # of an open file, whose name is not told
        return REFUSED, one_line(
            f"error: cannot write: {error.strerror}; make room, or send the output elsewhere"
        )
    if isinstance(error, ValueError) and (sys.stdout.closed or sys.stderr.closed):
        return REFUSED, "error: standard output was closed by somebody's code; nothing more can be told there"
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return REFUSED, "error: there is not enough memory for this; choose a smaller network, batch or file"
    if isinstance(error, RecursionError):
        return REFUSED, "error: the input is nested too deeply to be read; flatten it"
    said = one_line(said_of(error), 120)
    return FAULT, f"a fault of shrinkbench: {said}; please report it, {_kept(error)}"


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether torch has run out of the device's memory, or a library has found none to be read into."""
    if isinstance(error, ImportError):
        return _NO_MEMORY_FOR_LIBRARY.search(str(error)) is not None
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, getattr(torch, "OutOfMemoryError", ()))


def _kept(error: BaseException) -> str:
    """Write the traceback to a file of its own and say where that is."""
    from shrinkbench import __version__

    head = (
        f"shrinkbench {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"{os.environ.get('SHRINKBENCH_COMMAND', '')}\n\n"
    )
    try:
        handle, name = tempfile.mkstemp(prefix="shrinkbench-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(head + "".join(traceback.format_exception(error)))
    except OSError:
        return "no file could be written with the details"
    return f"details in {name}"


def _fill_closed() -> None:
    """Give what was closed before the start a place that takes everything; the next file would have its."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))


def _take_all_characters() -> None:
    """Write out what the encoding of an output lacks: names of files hold bytes that are no text in any."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave(code: int, sentence: str) -> None:
    try:
        typer.echo(sentence, err=True)
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_closed()
    except (OSError, ValueError):  # a full disk, or closed: what could be told was
        _drop_rest()
    sys.exit(code)


def _flush_or_leave() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_closed()
    except (OSError, ValueError) as error:
        _leave(*outcome_of(error))


def _leave_closed() -> None:
    """End without a word."""
    _drop_rest()
    sys.exit(_CLOSED)


def _drop_rest() -> None:
    """Python would complain once more, as it ends, about what it cannot write."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except ValueError:  # it is closed
            continue
