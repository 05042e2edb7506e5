"""One named random stream per purpose, all from the run's seed."""

from __future__ import annotations

import hashlib


def stream(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream ``names`` of the run seed ``seed``.

    Streams do not depend on one another: drawing more for augmentation leaves the order of images as it was.

    >>> stream(0, "order", 1) == stream(0, "order", 1), stream(0, "order", 1) == stream(0, "order", 2)
    (True, False)
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
