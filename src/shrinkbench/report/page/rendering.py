"""Templates are filled: a page is one file, which needs no other."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from shrinkbench.report.page.published import as_data_uri
from shrinkbench.report.page.wording import lead_text, make_breakable
from shrinkbench.report.tables import TEXTS, Table

_ACTING = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
"""What may show the text around it, numbers among it, from right to left, or is no character of HTML."""


def render_page(template: str, **values: Any) -> str:
    """Fill a template; styles and scripts stand inside the page, so that it needs no other file."""
    environment = Environment(
        loader=PackageLoader("shrinkbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assets = files("shrinkbench.report") / "templates"
    scripts = ("chart.js", "tables.js", "runs.js", "page.js")
    page = environment.get_template(template).render(
        **values,
        style=(assets / "style.css").read_text(encoding="utf-8"),
        script="".join((assets / name).read_text(encoding="utf-8") for name in scripts),
        lead=lead_text,
        breakable=make_breakable,
        formats=_formats,
        as_data_uri=as_data_uri,
        version=_version(),
    )
    return _ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", page)  # an escape in JSON, too


def _formats(table: Table) -> list[tuple[str, str]]:
    names = {"tex": "LaTeX", "md": "Markdown", "csv": "CSV"}
    return [(names[extension], write(table)) for extension, write in TEXTS.items()]


def _version() -> str:
    try:
        return version("shrinkbench")
    except PackageNotFoundError:
        return "from source"
