"""The published CSV export of "What is the State of Neural Network Pruning?" as a corpus.

The export is five tables saved from a spreadsheet service, with its traps: byte-order marks, cells of several
lines, percent strings padded with zeros, records that other tables still name after they were deleted, ``???``
for what a paper leaves open, one display name for two records, names with commas, dates as ``YYYY-M``.
"""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal, InvalidOperation
from importlib import resources
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import is_file
from shrinkbench.literature.corpus import Corpus, Finding
from shrinkbench.literature.errata import correct, shipped_errata
from shrinkbench.literature.rules import Rules
from shrinkbench.literature.schema import Fact, Paper
from shrinkbench.literature.supplements import read_listings, read_supplements
from shrinkbench.literature.tables import Row, read_table

PAPERS, RESULTS, MODELS, DATASETS, VENUES = (
    f"{name}-Grid view.csv" for name in ("Papers", "Results", "Models", "Datasets", "Venues")
)
REMEDY = "fetch the file again from the original repository (JJGO/shrinkbench, analysis/assets)"
NOT_PEER_REVIEWED = ("arXiv", "OpenReview", "CVPR Workshops")
"""Venues that the paper's histograms count as not peer-reviewed."""

# Column of the export -> quantity and unit.
_QUANTITIES = {
    "Top1": ("top1", "percent"),
    "Err1": ("top1_error", "percent"),
    "dTop1": ("top1_change", "percent"),
    "Top5": ("top5", "percent"),
    "Err5": ("top5_error", "percent"),
    "dTop5": ("top5_change", "percent"),
    "MParams": ("parameters", "million"),
    "keptParams": ("parameters_kept", "percent"),
    "savedParams": ("parameters_pruned", "percent"),
    "old/new Nparam": ("compression", "ratio"),
    "GFLOPS": ("operations", "billion"),
    "keptFLOPS": ("operations_kept", "percent"),
    "savedFLOPS": ("operations_pruned", "percent"),
    "old/new FLOPS": ("speedup", "ratio"),
    "OrigTop1": ("initial_top1", "percent"),
    "OrigErr1": ("initial_top1_error", "percent"),
    "OrigTop5": ("initial_top5", "percent"),
    "OrigErr5": ("initial_top5_error", "percent"),
    "OrigMParams": ("initial_parameters", "million"),
    "OrigGFLOPS": ("initial_operations", "billion"),
}
_TOO_LARGE, _TOO_SMALL, _LONGEST_NUMBER = Decimal(10) ** 12, -12, 24
_SPREADS = {"stdTop1": ("top1", "top1_change", "top1_error"), "stdOrigTop1": ("initial_top1",)}
_PLACE = re.compile(r"\b(?:table|fig(?:ure)?|sec(?:tion)?)\.?\s*[0-9]+(?:\.[0-9]+)?[a-d]?", re.IGNORECASE)


def is_export(folder: Path) -> bool:
    """Whether ``folder`` holds any table of the export."""
    return any(is_file(folder / name) for name in (PAPERS, RESULTS, MODELS, DATASETS))


def read_export(folder: Path, *, as_printed: bool = False) -> Corpus:
    """Read the export in ``folder`` and correct it by the listed errata, unless it is read ``as_printed``.

    What cannot be read is one sentence with file, row and remedy.
    """
    papers = read_table(
        folder / PAPERS,
        ["Name", "Date", "AuthorName", "Venue", "BibTeX", "Notes", "Compares To", "Non-pruning", "Results"],
        remedy=REMEDY,
    )
    records = read_table(
        folder / RESULTS,
        ["Name", "Paper", "Dataset", "Model", "Method", "Notes", "NumTrials", *_QUANTITIES, *_SPREADS],
        remedy=REMEDY,
    )
    models = read_table(folder / MODELS, ["Name", "Results", "Count"], remedy=REMEDY)
    datasets = read_table(folder / DATASETS, ["Name", "Results", "UsedInPapers"], remedy=REMEDY)
    venues = read_table(folder / VENUES, ["Name", "Papers"], remedy=REMEDY)
    read_papers = tuple(_paper(row) for row in papers)
    _check_references(records, papers, models, datasets)
    printed = tuple(fact for row in records for fact in _facts(row))
    corrected, errata, unfit = correct(printed, shipped_errata())
    facts = printed if as_printed else corrected
    supplements, absent = read_supplements(folder, facts)
    listings, more_absent = read_listings(folder)
    return Corpus(
        name="What is the State of Neural Network Pruning? (published export)",
        reference="blalock2020state",
        papers=read_papers,
        facts=facts + supplements,
        listings=listings,
        rules=published_rules(),
        findings=(
            *_list_deleted_records(records, papers, models, datasets),
            *_find_repeated_names(papers, models, datasets, venues),
            *_venue_lists(papers, venues),
            *absent,
            *more_absent,
            *(Finding("erratum", erratum.where, f"not applied: {problem}") for erratum, problem in unfit),
        ),
        origin=str(folder),
        errata=errata,
        as_printed=as_printed,
    )


def published_rules() -> Rules:
    """The named choices behind the paper's figures and tables."""
    text = (resources.files("shrinkbench.literature") / "data" / "published.json").read_text(encoding="utf-8")
    return Rules.model_validate_json(text)


def _paper(row: Row) -> Paper:
    date = re.fullmatch(r"(\d{4})-(\d{1,2})", row["Date"])
    if not date or not 1 <= int(date[2]) <= 12:
        raise row.error("Date", f"'{row['Date']}' is not a date like 2018-9")
    if not row["Name"] or not row["AuthorName"]:
        raise row.error("Name" if not row["Name"] else "AuthorName", "the cell is empty")
    return Paper(
        key=row["Name"],
        author=row["AuthorName"],
        year=int(date[1]),
        month=int(date[2]),
        title=_title(row["BibTeX"]),
        venue=row["Venue"],
        peer_reviewed=row["Venue"] not in NOT_PEER_REVIEWED,
        pruning=not row["Non-pruning"],
        compares_to=tuple(dict.fromkeys(split_names(row["Compares To"]))),
    )


def split_names(cell: str) -> list[str]:
    """Parts of a comma-separated cell, blanks dropped."""
    return [name.strip() for name in cell.split(",") if name.strip()]


def _title(bibtex: str) -> str:
    """The title of a BibTeX entry, braces and line breaks removed."""
    start = re.search(r"\btitle\s*=\s*[{\"]", bibtex, re.IGNORECASE)
    if start is None:
        return ""
    depth, title = 1, ""
    for letter in bibtex[start.end() :]:
        depth += (letter == "{") - (letter == "}")
        if depth == 0 or (letter == '"' and bibtex[start.end() - 1] == '"' and depth == 1):
            break
        title += letter
    return " ".join(title.replace("{", "").replace("}", "").split())


def _facts(row: Row) -> list[Fact]:
    place = _PLACE.search(row["Notes"])
    common = {
        "paper": row["Paper"],
        "dataset": row["Dataset"],
        "architecture": row["Model"],
        "method": row["Method"],
        "network": f"record {row['Name']}",
        "source": f"{place[0].lower()} (record {row['Name']})" if place else f"record {row['Name']}",
        "note": " ".join(row["Notes"].split()),
    }
    trials = _number(row, "NumTrials")
    facts = [
        Fact(quantity=quantity, value=value, unit=unit, trials=int(trials) if trials else None, **common)
        for column, (quantity, unit) in _QUANTITIES.items()
        if (value := _number(row, column)) is not None
    ]
    for column, quantities in _SPREADS.items():
        spread = _number(row, column)
        holder = next((f for name in quantities for f in facts if f.quantity == name), None)
        if spread is not None and holder is not None:
            with_spread = {"spread": spread, "spread_kind": "standard deviation"}
            facts[facts.index(holder)] = holder.model_copy(update=with_spread)
    return facts or [Fact(quantity="evaluated", **common)]


def _number(row: Row, column: str) -> Decimal | None:
    """The number in a cell without the zeros that the export pads with; accuracies keep one decimal."""
    text = row[column]
    if not text:
        return None
    try:
        number = Decimal(text.removesuffix("%").strip())
    except InvalidOperation:
        raise row.error(column, f"'{text}' is not a number") from None
    if not number.is_finite():
        raise row.error(column, f"'{text}' is not a finite number")
    least = 1 if "Top" in column or "Err" in column else 0
    if abs(number) >= _TOO_LARGE or number.adjusted() < _TOO_SMALL or len(text) > _LONGEST_NUMBER:
        raise row.error(column, f"'{one_line(text, 40)}' is no number that a table of results holds")
    decimals = max(0, -int(number.normalize().as_tuple().exponent), least)
    return number.quantize(Decimal(1).scaleb(-decimals))


def _check_references(records: list[Row], papers: list[Row], models: list[Row], datasets: list[Row]) -> None:
    """Every record must name a paper, dataset and network of the other tables."""
    for column, table in (("Paper", papers), ("Dataset", datasets), ("Model", models)):
        known = {row["Name"] for row in table}
        for row in records:
            if row[column] not in known:
                raise ShrinkbenchError(
                    f"{row.path}, row {row.number} (line {row.line}): {column.lower()} '{row[column]}' is "
                    "not in "
                    f"{table[0].path.name if table else 'its table'}, so one of the two files is cut or of "
                    f"another version; {REMEDY}"
                )


def _list_deleted_records(
    records: list[Row], papers: list[Row], models: list[Row], datasets: list[Row]
) -> list[Finding]:
    known = {row["Name"] for row in records}
    findings = []
    for row in (*papers, *models, *datasets):
        gone = [name for name in split_names(row["Results"]) if name not in known]
        if gone:
            findings.append(
                Finding(
                    "deleted-reference",
                    f"{row.path.name}, row {row.number}",
                    f"'{row['Name']}' still names deleted results ({', '.join(gone)}); they are not counted",
                )
            )
    return findings


def _find_repeated_names(*tables: list[Row]) -> list[Finding]:
    findings = []
    for table in tables:
        counts = Counter(row["Name"] for row in table)
        for name, count in counts.items():
            if count > 1:
                rows = ", ".join(str(row.number) for row in table if row["Name"] == name)
                findings.append(
                    Finding(
                        "repeated-name",
                        f"{table[0].path.name}, rows {rows}",
                        f"'{name}' stands {count} times; results name it by this name, so it counts once",
                    )
                )
    return findings


def _venue_lists(papers: list[Row], venues: list[Row]) -> list[Finding]:
    listed = {paper: row["Name"] for row in venues for paper in split_names(row["Papers"])}
    return [
        Finding(
            "venue",
            f"{row.path.name}, row {row.number}",
            f"'{row['Name']}' is of venue '{row['Venue']}' but the venue table has it "
            + (f"under '{listed[row['Name']]}'" if row["Name"] in listed else "nowhere"),
        )
        for row in papers
        if listed.get(row["Name"]) != row["Venue"]
    ]
