"""Objects of a Python file by name: ``FILE.py:NAME``, as experiments and options write them."""

from __future__ import annotations

import re
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError, UnknownNameError, is_of_the_code, line_in, said_of
from shrinkbench.sources.loading import load_file
from shrinkbench.sources.origin import Origin, digest_of, origin_of_file

_REFERENCE = re.compile(r"(?P<file>[^\n]*\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)")
_PLACES: dict[str, Path] = {}  # the name of a file without its folder -> where it lies
_OTHERS: dict[str, Path] = {}  # another file of that name, with other content


def split_reference(text: str) -> tuple[str, str] | None:
    """File and name of ``FILE.py:NAME``; ``None`` where ``text`` is none.

    >>> split_reference("parts/mine.py:make_network"), split_reference("torchvision/resnet18")
    (('parts/mine.py', 'make_network'), None)
    """
    found = _REFERENCE.fullmatch(text)
    return (found["file"], found["name"]) if found else None


def bare_reference(text: str) -> str:
    """``text`` without the folder of its file: where a file lies is in no run's key.

    >>> bare_reference("parts/mine.py:make_network")
    'mine.py:make_network'
    """
    split = split_reference(text)
    return text if split is None else f"{Path(split[0]).name}:{split[1]}"


def is_remembered(text: str) -> bool:
    """Whether the file of the reference is known by its bare name."""
    split = split_reference(text)
    return split is not None and Path(split[0]).name in _PLACES


def remember_file(file: Path) -> Path:
    """Let objects of ``file`` be named without its folder from now on; returns where the file lies.

    Of copies of one file it is the last that was named, since each reads what lies beside itself; of two files
    of one name with other content neither can be named so.
    """
    place = file.expanduser().resolve()
    known = _PLACES.setdefault(place.name, place)
    if known != place and (not known.is_file() or _alike(known, place)):
        _PLACES[place.name] = place
    elif known != place:
        _OTHERS[place.name] = place
    return _PLACES[place.name]


def _unambiguous(file: Path) -> Path:
    place = _PLACES[file.name]
    other = _OTHERS.get(file.name)
    if other is not None and other.is_file():
        raise ShrinkbenchError(
            f"two different files are called {place.name} ({place}, {other}), and results name a file without "
            "its folder; rename one of them"
        )
    return place


def _alike(one: Path, other: Path) -> bool:
    return digest_of([origin_of_file(one)]) == digest_of([origin_of_file(other)])


def file_of_reference(text: str) -> Path | None:
    """Where the file of the reference lies, which is remembered; ``None`` where ``text`` is no reference."""
    split = split_reference(text)
    if split is None:
        return None
    file = Path(split[0])
    if file.name == split[0] and file.name in _PLACES:
        return _unambiguous(file)
    if not file.expanduser().is_file():
        raise ShrinkbenchError(
            f"'{text[:120]}' names a Python file, and there is none at {str(file)[:80]}; check the path (in "
            "an experiment file it counts from the folder of that file)"
        )
    remember_file(file)
    return _unambiguous(file)


def find_object(text: str) -> tuple[object, Origin]:
    """The object that ``FILE.py:NAME`` names, and its file as origin; the file is run the first time.

    It runs with all rights of this process: name only files that you trust.
    """
    file, split = file_of_reference(text), split_reference(text)
    if file is None or split is None:
        raise ShrinkbenchError(f"'{text[:120]}' names no object of a file; write FILE.py:NAME")
    try:
        module = load_file(file)
    except ShrinkbenchError:
        raise
    except BaseException as error:  # whatever class the file raises
        if not is_of_the_code(error):
            raise
        raise ShrinkbenchError(f"the file {file} fails{line_in(file, error)}: {said_of(error)}") from error
    members = vars(module)
    if split[1] not in members:
        own = [name for name, value in members.items() if getattr(value, "__module__", None) == module.__name__]
        raise UnknownNameError(
            f"{file.name} has nothing called '{split[1]}'; it defines {', '.join(own)[:120] or 'no function'}"
        )
    return members[split[1]], origin_of_file(file)
