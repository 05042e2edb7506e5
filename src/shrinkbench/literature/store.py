"""Loading a corpus from wherever it is, and writing one in the project's own format.

A folder of the own format holds ``corpus.json`` (name, reference, named choices), ``papers.csv``, ``facts.csv``
(one fact per row) and, where there are any, ``listings.csv`` (unpruned networks) and ``errata.csv``
(corrections).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from pydantic import Field

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import is_folder, parse_json, read_file, write_atomically
from shrinkbench.literature.corpus import Corpus, Finding
from shrinkbench.literature.errata import ERRATA_FILE, Erratum, correct
from shrinkbench.literature.errata import as_printed as take_back
from shrinkbench.literature.export import PAPERS, is_export, read_export, split_names
from shrinkbench.literature.rules import Rules
from shrinkbench.literature.schema import SCHEMA_VERSION, Fact, Listing, Paper
from shrinkbench.literature.tables import Row, lies_at, read_table, write_table
from shrinkbench.spec import Value, parse_value
from shrinkbench.spec.value import ValueT

CORPUS_FILE = "corpus.json"
_LARGEST = 16 << 20
REMEDY = "correct the file (docs/literature.md describes the format) or restore it"
_BELOW_CHECKOUT = Path("analysis") / "assets" / "existing-results"


class CorpusManifest(Value):
    """``corpus.json``: what is not a table."""

    schema_version: int = Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    name: str
    reference: str = ""
    rules: Rules = Rules()
    findings: tuple[tuple[str, str, str], ...] = ()


def load_corpus(folder: Path | None = None, *, as_printed: bool = False) -> Corpus:
    """Load the corpus in ``folder``: the published export, a checkout that holds it, or the own format.

    Listed errata are applied unless it is read ``as_printed``. Without a folder, the bundled tables of Liu et
    al. 2019 are loaded, which have none. Raises ``ShrinkbenchError`` with one sentence for a folder that holds
    neither or a file that is damaged.
    """
    if folder is None:
        with resources.as_file(resources.files("shrinkbench.literature") / "data" / "liu2019") as bundled:
            return _read_own(bundled, origin="bundled", as_printed=as_printed)
    if not is_folder(folder):
        raise ShrinkbenchError(
            f"there is no folder {folder}; give the folder of a corpus, or leave --corpus out for the "
            "bundled one"
        )
    for candidate in (folder, folder / _BELOW_CHECKOUT):
        if lies_at(candidate / CORPUS_FILE):
            return _read_own(candidate, origin=str(candidate), as_printed=as_printed)
        if is_export(candidate):
            return _check(read_export(candidate, as_printed=as_printed))
    raise ShrinkbenchError(
        f"{folder} holds neither '{CORPUS_FILE}' nor '{PAPERS}'; point --corpus at a corpus, for example "
        f"{_BELOW_CHECKOUT} in a checkout of the original repository"
    )


def write_corpus(corpus: Corpus, folder: Path) -> list[Path]:
    """Write ``corpus`` to ``folder`` in the own format; an export becomes one fact per row this way.

    Corrected values have the printed ones beside them; what was read as printed is written without errata.
    """
    manifest = CorpusManifest(
        schema_version=SCHEMA_VERSION,
        name=corpus.name,
        reference=corpus.reference,
        rules=corpus.rules,
        findings=tuple((f.check, f.where, f.message) for f in corpus.findings),
    )
    tables: dict[str, tuple[type[Value], Iterable[Value]]] = {
        "papers.csv": (Paper, corpus.papers),
        "facts.csv": (Fact, corpus.facts),
        "listings.csv": (Listing, corpus.listings),
        ERRATA_FILE: (Erratum, () if corpus.as_printed else corpus.errata),
    }
    for name, (kind, values) in tables.items():
        write_table(folder / name, list(kind.model_fields), (_cells(value) for value in values))
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    path = folder / CORPUS_FILE
    write_atomically(path, f"{text}\n".encode())
    return [path, *(folder / name for name in tables)]


def _cells(value: Value) -> dict[str, object]:
    return {
        name: ",".join(cell)
        if isinstance(cell, tuple)
        else str(cell).lower()
        if isinstance(cell, bool)
        else cell
        for name, cell in value
    }


def _read_own(folder: Path, *, origin: str, as_printed: bool) -> Corpus:
    manifest = _manifest(folder / CORPUS_FILE)
    listings = folder / "listings.csv"
    facts, errata = _correct(folder)
    return _check(
        Corpus(
            name=manifest.name,
            reference=manifest.reference,
            papers=tuple(_values(folder / "papers.csv", Paper)),
            facts=take_back(facts) if as_printed else facts,
            listings=tuple(_values(listings, Listing)) if lies_at(listings) else (),
            rules=manifest.rules,
            findings=tuple(Finding(*finding) for finding in manifest.findings),
            origin=origin,
            errata=errata,
            as_printed=as_printed,
        )
    )


def _correct(folder: Path) -> tuple[tuple[Fact, ...], tuple[Erratum, ...]]:
    """The facts, corrected by the errata beside them; each erratum must fit, and each correction be listed."""
    facts, path = _values(folder / "facts.csv", Fact), folder / ERRATA_FILE
    errata = _values(path, Erratum) if lies_at(path) else []
    for fact in facts:
        if fact.printed is not None and not any(erratum.touches(fact) for erratum in errata):
            raise ShrinkbenchError(
                f"{folder / 'facts.csv'}: {fact.quantity} of '{fact.paper}' ({fact.source}) is corrected from "
                f"{fact.printed} without an erratum; list it in {ERRATA_FILE}, or empty its cell 'printed'"
            )
    for row, erratum in enumerate(errata, start=2):
        if any(erratum.is_of_the_number_of(earlier) for earlier in errata[: row - 2]):
            raise ShrinkbenchError(
                f"{path}, row {row}: {erratum.quantity} of {erratum.where} is corrected twice; remove one row"
            )
    corrected, listed, unfit = correct(facts, errata)
    if unfit:
        erratum, problem = unfit[0]
        raise ShrinkbenchError(
            f"{path}, row {errata.index(erratum) + 2}: {erratum.quantity} of {erratum.where}: {problem}; "
            "correct the row or remove it"
        )
    return corrected, listed


def _manifest(path: Path) -> CorpusManifest:
    try:
        data = parse_json(read_file(path, most=_LARGEST))
    except (OSError, ValueError) as error:
        raise ShrinkbenchError(f"cannot read {path}: {error}; {REMEDY}") from None
    if not isinstance(data, dict):
        raise ShrinkbenchError(f"{path} is not a table of keys and values; {REMEDY}")
    return parse_value(CorpusManifest, data, where=str(path))


def _values(path: Path, kind: type[ValueT]) -> list[ValueT]:
    required = [name for name, field in kind.model_fields.items() if field.is_required()]
    rows = read_table(path, required, remedy=REMEDY)
    return [_value(row, kind) for row in rows]


def _value(row: Row, kind: type[ValueT]) -> ValueT:
    """One record; an empty cell is the field's default."""
    fields: dict[str, object] = {name: cell for name, cell in row.cells.items() if cell}
    for name, cell in row.cells.items():
        if name == "compares_to":
            fields[name] = tuple(split_names(cell))
    return parse_value(kind, fields, where=f"{row.path}, row {row.number} (line {row.line})")


def _check(corpus: Corpus) -> Corpus:
    """References that no analysis can do without; doubtful content is the linter's business."""
    keys = [paper.key for paper in corpus.papers]
    repeated = next((key for key in keys if keys.count(key) > 1), None)
    if repeated is not None:
        raise ShrinkbenchError(f"{corpus.origin}: two papers are called '{repeated}'; rename one")
    for fact in corpus.facts:
        if fact.paper not in corpus.by_key:
            raise ShrinkbenchError(
                f"{corpus.origin}: a fact ({fact.source}) names the paper '{fact.paper}', "
                "which is not among the papers; add it there"
            )
    return corpus
