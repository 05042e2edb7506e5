"""What in a results folder is not what was written there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from shrinkbench.cells import say_count
from shrinkbench.files import is_folder, parse_json, sha256_of
from shrinkbench.results.claims import CLAIMS, RunClaims
from shrinkbench.results.index import read_index
from shrinkbench.results.layout import (
    BESIDE_NAME,
    FAILURE_NAME,
    NETWORK_NAME,
    PLUGIN_FOLDER,
    PLUGINS,
    RESULT_NAME,
)
from shrinkbench.results.outside_code import EDITED, lack_of
from shrinkbench.results.places import find_misplaced
from shrinkbench.results.reading import read_beside_plan
from shrinkbench.results.record import RunResult
from shrinkbench.results.seals import check_card, check_tensors
from shrinkbench.results.store import Problem, ResultStore, read_result

_MOMENT = re.compile(r"(?P<unit>epoch|step)-(?P<number>[0-9]+)\.(safetensors|json)")
_CARDS = ("card.json", NETWORK_NAME)


def verify_store(store: ResultStore) -> list[Problem]:
    """Everything in the folder that is not what was written there; results are read and checked in full.

    A result has to agree with its key, with itself and with the checksum noted when it was written; what runs
    share, with the seal that it carries and the key of its folder. What is no file, or no folder, where one
    belongs is named too.
    """
    plan = store.find_plan()
    found = [plan] if isinstance(plan, Problem) else []
    index = read_index(store.root)
    results: list[RunResult] = []
    for path in sorted(store.root.glob(f"runs/*/{RESULT_NAME}")):
        outcome = read_result(path)
        if isinstance(outcome, Problem):
            found.append(outcome)
            continue
        results.append(outcome)
        known = index.get(outcome.key)
        is_described = known is not None and known.describes(path.stat())
        if known is not None and is_described and sha256_of(path) != known.sha256:
            found.append(Problem(path, "has other bytes than were written, and the same time of change"))
        found += _check_kept(path.parent, outcome)
    for path in sorted(store.root.glob(f"runs/*/{FAILURE_NAME}")):
        outcome = read_result(path)
        found += [outcome] if isinstance(outcome, Problem) else []
    found += store.conflicts(())[1] + _check_outside_code(store, results)
    found += [*find_misplaced(store.root), *_check_beside(store.root / BESIDE_NAME)]
    if is_folder(store.root / CLAIMS):
        found += [Problem(path, why) for _, path, why in RunClaims(store.root).obstacles()]
    for path in sorted(store.root.glob("shared/*/*/*")):
        found += _check_shared(path)
    return list({problem.path: problem for problem in reversed(found)}.values())[::-1]  # the first of each


def _check_beside(path: Path) -> list[Problem]:
    """What lies beside the plan, where it is not what this version reads."""
    try:
        fields = parse_json(read_beside_plan(path))
        if fields["schema_version"] == 1:
            return []
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return [Problem(path, "says nothing that this version reads of data, weights and plug-ins of the runs")]


def _check_outside_code(store: ResultStore, results: Iterable[RunResult]) -> list[Problem]:
    """Copies of outside code that are not the files whose digest names their folder."""
    sources, problems = store.sources()
    rest = Counter(code for result in results for code in result.spec.sources)
    for folder in sorted((store.root / PLUGINS).glob("*")):
        code = folder.name
        if PLUGIN_FOLDER.fullmatch(code) and folder.is_dir():
            lack = EDITED if code not in sources else lack_of(sources[code], code)
            if lack == EDITED:
                those = say_count(rest[code], "run rests", "runs rest")
                problems.append(Problem(folder, f"holds outside code, on which {those}: {lack}"))
    return problems


def _check_kept(folder: Path, result: RunResult) -> list[Problem]:
    """Files of the run's network that are there, and are not what the run has written."""
    found = []
    for name, seal in result.provenance.kept.items():
        path = folder / f"{name}.safetensors"
        sentence = check_tensors(path, key=result.key, seal=seal) if path.exists() else ""
        found += [Problem(path, sentence)] if sentence else []
    card = folder / NETWORK_NAME
    sentence = check_card(card, key=result.key) if result.provenance.kept and card.exists() else ""
    return found + ([Problem(card, sentence)] if sentence else [])


def _check_shared(path: Path) -> list[Problem]:
    """What is wrong with a shared file; nothing where it is whole, or of no kind that is sealed."""
    if path.name == RESULT_NAME:
        outcome = read_result(path)
        if isinstance(outcome, Problem):
            return [outcome]
        failed = [Problem(path, "is of a control that failed")] if outcome.status != "done" else []
        return failed + _check_kept(path.parent, outcome)
    moment = _MOMENT.fullmatch(path.name)
    key = f"{path.parent.name} {moment['unit']} {moment['number']}" if moment else path.parent.name
    if path.suffix == ".safetensors":
        sentence = check_tensors(path, key=key)
    else:
        sentence = check_card(path, key=key) if moment or path.name in _CARDS else ""
    return [Problem(path, sentence)] if sentence else []
