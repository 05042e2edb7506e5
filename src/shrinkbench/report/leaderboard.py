"""A static site that ranks methods per task, every entry linked to the report it comes from."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import check_folder, write_atomically
from shrinkbench.links import check_links
from shrinkbench.report.boards import Boards, name_sources, rank_entries
from shrinkbench.report.page.html import write_report
from shrinkbench.report.page.rendering import render_page
from shrinkbench.report.statistics.claims import Claim
from shrinkbench.report.statistics.metrics import Metric
from shrinkbench.report.tables import p_value
from shrinkbench.results.bundle import Bundle, read_source, require_results, write_bundle
from shrinkbench.results.conflicts import conflicts_among, find_differing_controls
from shrinkbench.results.store import Problem
from shrinkbench.results.verification import find_implausible, verify


@dataclass(frozen=True)
class WrittenLeaderboard:
    """The page of the site, and files of the sources that could not be used."""

    index: Path
    problems: tuple[Problem, ...]


def write_leaderboard(sources: Sequence[Path], out: Path) -> WrittenLeaderboard:
    """Write ``index.html`` with one ranking per place, and a report and a bundle for every source.

    Entries are judged as a report judges methods, see :mod:`shrinkbench.report.boards`. Sources that contradict
    themselves are marked; what is wrong stands beside their report. Entries with a run that another source, or
    their own, contradicts by other numbers or by a failure have no rank.
    """
    check_folder(out)
    check_links(out)
    bundles = [read_source(source) for source in sources]
    for bundle in bundles:
        require_results(bundle, "leave it out")
        _refuse_sequential(bundle)
    unique = _once_each(bundles)
    disputed = find_disputed(list(unique.values()))
    problems = {
        name: [
            *verify(bundle),
            *_disputes(bundle, disputed),
            *map("implausible: {}".format, find_implausible(bundle)),
        ]
        for name, bundle in unique.items()
    }
    for bundle in unique.values():
        _write_evidence(bundle, out)
    index = out / "index.html"
    ranked = rank_entries(list(unique.values()), disputed)
    write_atomically(index, _render(ranked, unique, problems).encode(), durable=False)
    return WrittenLeaderboard(index, tuple(p for bundle in unique.values() for p in bundle.problems))


def _once_each(bundles: Sequence[Bundle]) -> dict[str, Bundle]:
    """Bundles by their content; those of one content are one, under the names of all of them."""
    found: dict[str, list[Bundle]] = {}
    for bundle in bundles:
        found.setdefault(bundle.digest, []).append(bundle)
    return {
        content: replace(alike[0], name=" and ".join(dict.fromkeys(bundle.name for bundle in alike)))
        for content, alike in found.items()
    }


def find_disputed(bundles: Sequence[Bundle]) -> frozenset[str]:
    """Keys that some source has other numbers for than another one, or than itself, or saw fail.

    Controls are among them that methods stored with other numbers, be it in one source or in two.
    """
    parts = [part for bundle in bundles for part in (bundle.results, bundle.others)]
    controls = find_differing_controls(result for part in parts for result in part)
    return frozenset(result.key for pair in (*conflicts_among(parts), *controls) for result in pair)


def _refuse_sequential(bundle: Bundle) -> None:
    """How many seeds such a study has depends on its results: beside others it would be judged wrongly."""
    if bundle.sequential is not None:
        raise ShrinkbenchError(
            f"{bundle.source} holds a comparison whose seeds were added until it was decided; its own report "
            "judges it, a leaderboard does not: leave it out"
        )


def _render(ranked: Boards, bundles: dict[str, Bundle], problems: dict[str, list[str]]) -> str:
    """The page: contents by data and network, boards, bundles."""
    names = name_sources(bundles.values())
    numbered = [(f"board-{number}", board) for number, board in enumerate(ranked.boards, start=1)]
    grouped = itertools.groupby(numbered, key=lambda item: item[1].group)
    return render_page(
        "leaderboard.html.j2",
        boards=numbered,
        contents=[(group, list(members)) for group, members in grouped],
        comparisons=ranked.comparisons,
        bundles=[(b, names[b.digest], _folder(b), problems[b.digest]) for b in bundles.values()],
        evidence={b.digest: (names[b.digest], _folder(b), problems[b.digest]) for b in bundles.values()},
        lead_over=_lead,
        p_value=p_value,
    )


def _lead(lead: Claim, metric: Metric) -> str:
    """A lead with its interval, where it has one."""
    return f"{metric.number(lead.difference)} {metric.interval(lead.low, lead.high)}".rstrip()


def _folder(bundle: Bundle) -> str:
    return f"evidence/{bundle.digest[:12]}"


def _write_evidence(bundle: Bundle, out: Path) -> None:
    """The report of one bundle, and the bundle itself for others to download."""
    folder = out / _folder(bundle)
    shutil.rmtree(folder, ignore_errors=True)
    write_report(bundle, folder)
    write_bundle(bundle, folder / "bundle.zip")


def _disputes(bundle: Bundle, disputed: frozenset[str]) -> list[str]:
    """One sentence about the runs of ``bundle`` that some source contradicts."""
    own = sorted(result.key for result in bundle.results if result.key in disputed)
    if not own:
        return []
    runs = f"{len(own)} run has" if len(own) == 1 else f"{len(own)} runs have"
    return [
        f"{runs} other numbers under the same key in another source, or another outcome, or as controls under "
        f"that of another method, first {own[0][:12]}: no rank for them"
    ]
