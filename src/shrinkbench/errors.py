"""The one kind of error that a person can cause and mend."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self

LONGEST = 299
"""Characters of a sentence; what is echoed in its middle gives way."""


def one_line(text: str, most: int = LONGEST) -> str:
    """``text`` as a single printable line of at most ``most`` characters, its middle left out.

    >>> one_line("a\\nb"), one_line("x" * 50, 9)
    ('a b', 'xxxx…xxxx')
    """
    if len(text) > 4 * most:  # what is echoed may be a whole file
        text = f"{text[: 2 * most]}…{text[-2 * most :]}"
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    return line if len(line) <= most else f"{line[: most // 2]}…{line[len(line) - (most - 1 - most // 2) :]}"


def escaped(text: object) -> str:
    r"""``text`` with what could act on a terminal, or begin a line, written out: names of files hold anything.

    >>> escaped("a  b\x1b[2J\n")
    'a  b\\x1b[2J\\n'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def is_unicode(text: object) -> bool:
    r"""Whether ``text`` can be stored: a name of a file may hold bytes that are no UTF-8, and then cannot.

    >>> is_unicode("données"), is_unicode("donn\udce9es")
    (True, False)
    """
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True


def text_of(error: BaseException) -> str:
    """What ``error`` says; the class may be anybody's, and its text raise."""
    try:
        return str(error)
    except Exception:
        return "its text cannot be told"


def said_of(error: BaseException) -> str:
    """Class and text of what somebody's code raised; ``sys.exit`` is told as what was called.

    >>> said_of(SystemExit("no")), said_of(KeyError("a"))
    ("it calls sys.exit('no')", "KeyError: 'a'")
    """
    if isinstance(error, SystemExit):
        given = repr(error.code) if isinstance(error.code, str) else text_of(error)
        return f"it calls sys.exit({'' if error.code is None else given})"
    return f"{type(error).__name__}: {text_of(error)}"


def is_of_the_code(error: BaseException) -> bool:
    """Whether ``error`` is the doing of the code that was run, and no wish to end this process.

    Whoever ends it by a signal raises ``KeyboardInterrupt``, or a kind of ``SystemExit`` of their own.
    """
    if isinstance(error, SystemExit):
        return type(error) is SystemExit
    return not isinstance(error, KeyboardInterrupt | GeneratorExit)


def some_of(names: Iterable[str], near: str, *, more: str, most: int = 6) -> str:
    """The few of ``names`` that are nearest to ``near``; ``more`` says where all of them are shown.

    >>> some_of("abcdefghij", "b", more="the file")
    'b, a, c, d, e, f, ... (the file shows all)'
    """
    known = sorted(names)
    if len(known) <= most:
        return ", ".join(known) or "none"
    close = difflib.get_close_matches(near[:100], known, n=most, cutoff=0.5)
    chosen = [*close, *(name for name in known if name not in close)][:most]
    return f"{', '.join(one_line(name, 40) for name in chosen)}, ... ({more} shows all)"


class ShrinkbenchError(Exception):
    """Bad input, told in one sentence: what is wrong, which value, what to do.

    The command line prints the sentence and exits with code 2; it never shows a traceback for it. It is one
    line of less than 300 characters, whatever it echoes.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(self._tell(sentence))

    @staticmethod
    def _tell(sentence: str) -> str:
        return one_line(sentence)


class InputError(ShrinkbenchError):
    """What was planned with is not there, or is not what it was: code, weights, data, a file beside them.

    It says nothing about a run, which is stored as nothing, and carried out once the input is back.
    """


@contextmanager
def of_input() -> Iterator[None]:
    """Tell what cannot be found or read inside as an :class:`InputError`: it was there for the plan."""
    try:
        yield
    except InputError:
        raise
    except ShrinkbenchError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror or error}; put it back") from error


class UnwritableError(ShrinkbenchError):
    """A file of ours cannot be written, for whatever reason the system gives."""


class UnknownNameError(ShrinkbenchError):
    """A name that no registry entry carries."""


class LeftWholeWarning(UserWarning):
    """What cannot be pruned or removed and had to stay whole, with the reason."""


class TakenWarning(UserWarning):
    """Which of several things in a file was taken, where nobody said which."""


class OtherCodeWarning(UserWarning):
    """What is read was made with other code of the same name, and fits."""


class SettingsWarning(UserWarning):
    """A file changes settings of the whole process as it is loaded; they are put back."""


class DamagedWarning(UserWarning):
    """A stored file was damaged; it is set aside, and made again."""


class CannotMeetTargetError(ShrinkbenchError):
    """A compression target that no mask of the prunable parameters can reach; ``largest`` can be reached.

    ``reason`` says why, and ``least`` of ``total`` parameters have to stay, where that is known.
    """

    reason: str = ""
    total: int = 0
    least: int = 0

    def __init__(self, sentence: str, *, largest: float) -> None:
        super().__init__(sentence)
        self.largest = largest

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), largest=self.largest), self.args, self.__dict__

    @classmethod
    def at_most(cls, problem: str, largest: float) -> Self:
        """``problem``, and ``largest`` in digits that are met: rounded down, all of them written."""
        largest = math.floor(largest * 1e4) / 1e4
        written = f"{largest:.4f}".rstrip("0").rstrip(".")
        return cls(f"{problem}; the largest possible target is {written}", largest=largest)

    @classmethod
    def because(cls, reason: str, *, compression: float, total: int, least: int) -> Self:
        """Name the largest target that can be met when ``least`` of ``total`` parameters have to stay."""
        error = cls.at_most(f"compression {compression:g} cannot be met: {reason}", total / least)
        error.reason, error.total, error.least = reason, total, least
        return error


@contextmanager
def said_by(what: str) -> Iterator[None]:
    """What code of somebody's raises inside is told in a sentence, of ``what``; errors of the machine pass."""
    try:
        yield
    except (ShrinkbenchError, OSError, MemoryError):
        raise
    except BaseException as error:
        if not is_of_the_code(error):
            raise
        raise ShrinkbenchError(f"{what} failed: {one_line(said_of(error), 160)}; mend it") from error


def line_in(file: Path, error: BaseException) -> str:
    """Where in ``file`` an error arose: ``" in line 7"``, or nothing where that is not known."""
    if isinstance(error, SyntaxError):
        return "" if error.lineno is None else f" in line {error.lineno}"
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" in line {lines[-1]}" if lines else ""
