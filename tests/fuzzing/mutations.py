"""Wrong input made from right input: bytes and values changed at random places."""

import copy
import json

HOSTILE_TEXTS = (
    *("", " ", "\0", "a\nb", "x" * 300, "y" * 10_000, "../../up", "/etc/passwd", "~nouser/x", "=1+1", "$^$"),
    *(
        "</script><img onerror=1>",
        "\u202e\ud7ff",
        "é" * 70,
        "_",
        "-",
        "nan",
        "1e999",
        "%s%n{0}",
        "a.b",
        "a:b@c[d=e]",
    ),
)
HOSTILE_VALUES = (
    *HOSTILE_TEXTS,
    *(0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**64), 10**400, 0.0, -0.0, 1e-320, 1e308, -1.5),
    *(float("inf"), float("-inf"), float("nan"), True, False, None, [], {}, [[]], {"": {}}, [1, "a", None]),
    json.loads("[" * 60 + "]" * 60),
)
HOSTILE_BYTES = (
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\n",
    b'"',
    b"'",
    b",",
    b"[",
    b"{",
    b"=",
    b"9" * 5000,
    b"[" * 20_000,
)
HOSTILE_BYTES += (b"x." * 20_000, b"%" * 400, b"\r", b"-", b"e999", b"\xed\xa0\x80")


def with_bytes_changed(rng, content):
    """``content`` with one to four places flipped, cut, doubled, swapped or filled with something hostile."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(content) + 1)
        end = min(len(content), at + rng.choice((1, 1, 4, 30, 1000)))
        match rng.randrange(6):
            case 0 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                del content[at:end]
            case 2:
                content[at:at] = rng.choice(HOSTILE_BYTES)
            case 3:
                content[at:at] = content[at:end]
            case 4:
                del content[at:]
            case _:
                content[at:end] = bytes(rng.randrange(256) for _ in range(end - at))
    return bytes(content)


def places_in(tree):
    """All pairs of a table or list and a key of it."""
    found, stack = [], [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict | list):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            found += [(node, key) for key in keys]
            stack += [node[key] for key in keys]
    return found


def with_values_changed(rng, tree):
    """A copy of ``tree`` with one or two values replaced, removed, renamed, doubled or moved elsewhere."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2))):
        places = places_in(tree)
        if not places:
            break
        node, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del node[key]
            case 1 if isinstance(node, dict):
                node[rng.choice(HOSTILE_TEXTS)] = node.pop(key)
            case 2 if isinstance(node, list):
                node.insert(key, copy.deepcopy(node[key]))
            case 3:
                other, there = rng.choice(places)
                node[key] = (
                    copy.deepcopy(other[there])
                    if there in other or (isinstance(other, list) and there < len(other))
                    else None
                )
            case 4 if type(node[key]) in (int, float):
                node[key] = rng.choice(
                    (-node[key], node[key] * 10, node[key] + 1, node[key] / 3, str(node[key]))
                )
            case _:
                node[key] = copy.deepcopy(rng.choice(HOSTILE_VALUES))
    return tree


def as_toml(value, *, top=True):
    """``value`` as TOML, in inline tables below the first level."""
    if top:
        return "\n".join(
            f"{json.dumps(str(k))} = {as_toml(v, top=False)}" for k, v in value.items() if v is not None
        )
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(
                f"{json.dumps(str(k))} = {as_toml(v, top=False)}" for k, v in value.items() if v is not None
            )
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(v, top=False) for v in value if v is not None) + "]"
    if isinstance(value, float) and not abs(value) < float("inf"):
        return "nan" if value != value else "inf" if value > 0 else "-inf"
    return json.dumps(value)
