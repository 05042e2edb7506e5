"""Whether the stored files of outside code are those whose digest keys name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from shrinkbench.results.layout import LEFT_OUT
from shrinkbench.sources import digest_of_parts

EDITED = "its source is not whole, or was edited"


def lack_of(files: Mapping[str, bytes], code: str) -> str:
    """Why the code of digest ``code`` cannot be read in ``files``, by place; nothing where it can."""
    if not files:
        return "its source is not here: it was removed, or never kept"
    sums = {place: hashlib.sha256(content).hexdigest() for place, content in files.items()}
    if digest_of_parts(sums.items()) == code:
        return ""
    noted = {place: files[place] for place in files if place.endswith(LEFT_OUT)}
    kept = [(place, digest) for place, digest in sums.items() if place not in noted]
    large = [(p.removesuffix(LEFT_OUT), c.decode("ascii", "replace")) for p, c in noted.items()]
    if digest_of_parts([*kept, *large]) == code:
        return f"its source is here but for {len(large)} large files, of which the checksums are"
    return EDITED
