"""Which code from outside this package a result depends on, and its digest.

What a plug-in registers behaves as the plug-in's files say. They are part of the key of a run, so that the
result of an older version is never taken for that of the present one.
"""

from shrinkbench.sources.callables import origins_in, same_value
from shrinkbench.sources.loading import load_file, load_within, unload_file
from shrinkbench.sources.named import (
    bare_reference,
    file_of_reference,
    find_object,
    is_remembered,
    remember_file,
    split_reference,
)
from shrinkbench.sources.origin import (
    Origin,
    digest_of,
    digest_of_parts,
    origin_of_caller,
    origin_of_file,
    origin_of_maker,
    texts_behind,
)

__all__ = [
    "Origin",
    "bare_reference",
    "digest_of",
    "digest_of_parts",
    "file_of_reference",
    "find_object",
    "is_remembered",
    "load_file",
    "load_within",
    "origin_of_caller",
    "origin_of_file",
    "origin_of_maker",
    "origins_in",
    "remember_file",
    "same_value",
    "split_reference",
    "texts_behind",
    "unload_file",
]
