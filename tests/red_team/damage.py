"""Ways to damage a file: its bytes, the numbers in its text, the nodes of its JSON, the members of its archive.

A file that is damaged inside out, such as one wrong field of a JSON object in an archive whose checksums are right,
gets much farther into a reader than one with a flipped bit.
"""

import copy
import io
import json
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

NASTY: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        0.5,
        -0.0,
        1e308,
        -1e308,
        5e-324,
        2**31,
        2**53 + 1,
        2**63,
        2**64,
        -(2**63),
        10**400,
    ),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        "",
        "0",
        "nan",
        "x" * 5000,
        "\ud800",
        "\0",
        "../../etc/passwd",
        "__class__",
    ),
    *([], {}, [[]], [None], {"": None}, [0] * 1000),
)
"""What stands in the place of a value."""

NUMBERS = (b"0", b"-1", b"4294967296", b"9223372036854775808", b"1e999", b"nan", b"00", b"9" * 400, b"1" * 12)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The file with one to three faults, of its format where that is known."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [_bytes, _numerals]
    for is_one, way in ((_is_zip, _zip), (_is_safetensors, _safetensors), (_is_json, _json)):
        if is_one(content):
            ways = [way, way, way, *ways]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(ways)(content, rng)
    return content


def _bytes(content: bytes, rng: random.Random) -> bytes:
    """Some bytes are flipped, lost, doubled, cleared, set or strange."""
    n = len(content)
    at, size = rng.randrange(n + 1), min(n, rng.choice((1, 1, 4, 8, 64, 1024)))
    begin, middle, end = content[:at], content[at : at + size], content[at + size :]
    flipped = bytes(byte ^ (1 << rng.randrange(8)) for byte in middle)
    made = [flipped, b"", middle * 2, bytes(len(middle)), b"\xff" * len(middle), rng.randbytes(len(middle))]
    whole = begin + rng.choice(made) + end
    return rng.choice((whole, whole, whole, whole, begin, content + rng.randbytes(size)))


def _numerals(content: bytes, rng: random.Random) -> bytes:
    """A number that is written in digits is another."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[: 1 << 16]))
    if not found:
        return _bytes(content, rng)
    chosen = rng.choice(found)
    return content[: chosen.start()] + rng.choice(NUMBERS) + content[chosen.end() :]


def _is_json(content: bytes) -> bool:
    return content[:1] in (b"{", b"[") and _parsed(content) is not None


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _json(content: bytes, rng: random.Random) -> bytes:
    value = _parsed(content)
    return _bytes(content, rng) if value is None else _written(changed(value, rng))


def _written(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def changed(value: Any, rng: random.Random) -> Any:
    """JSON's value with one node replaced, left out, renamed, doubled, exchanged with another or wrapped."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return rng.choice(NASTY)
    holder, key = rng.choice(places)
    other, other_key = rng.choice(places)
    act = rng.randrange(9)
    if act == 0 and isinstance(holder, dict):
        holder[rng.choice(("", "x", "format", key + "_"))] = holder.pop(key)
    elif act == 1:
        del holder[key]
    elif act == 2:
        holder[key] = copy.deepcopy(other[other_key])
    elif act == 3:
        holder[key] = rng.choice(([holder[key]], {"x": holder[key]}, str(holder[key])))
    elif act == 4 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif act == 5 and isinstance(holder[key], int | float):
        holder[key] = -holder[key] + rng.choice((0, 1))
    else:
        holder[key] = rng.choice(NASTY)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place inside: what holds it, and its key or index."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(min(len(value), 20)):
            yield value, key
            yield from _places(value[key])


def _is_zip(content: bytes) -> bool:
    return content[:2] == b"PK" and zipfile.is_zipfile(io.BytesIO(content))


def _zip(content: bytes, rng: random.Random) -> bytes:
    """A member is damaged, lost, doubled, renamed or swollen, and the archive is whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # noqa: BLE001  an archive that is damaged already may fail in any way
        return _bytes(content, rng)
    if not members:
        return _bytes(content, rng)
    at = rng.randrange(len(members))
    name, held = members[at]
    act = rng.randrange(10)
    if act == 0:
        del members[at]
    elif act == 1:
        members.append((name + rng.choice(("x", "/", "")), held))
    elif act == 2:
        members[at] = (rng.choice(("x", "../x", "", "\0", name.upper())), held)
    elif act == 3:
        members[at] = (name, bytes(1 << 24))
    else:
        members[at] = (name, damaged(held, rng))
    return _zipped(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _zipped(members: list[tuple[str, bytes]], how: int) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", how) as archive:
        warnings.simplefilter("ignore")  # that names are doubled is meant
        for name, held in members:
            archive.writestr(zipfile.ZipInfo(name or "_"), held, how)
    return out.getvalue()


def _is_safetensors(content: bytes) -> bool:
    return len(content) > 9 and 0 < struct.unpack("<Q", content[:8])[0] <= len(content) - 8 and content[8:9] == b"{"


def _safetensors(content: bytes, rng: random.Random) -> bytes:
    """Its header is another, or the description in it."""
    size = struct.unpack("<Q", content[:8])[0]
    header = _parsed(content[8 : 8 + size])
    if not isinstance(header, dict):
        return _bytes(content, rng)
    about = header.get("__metadata__")
    if isinstance(about, dict) and about and rng.random() < 0.7:
        key = rng.choice(list(about))
        about[key] = json.dumps(changed(_parsed(str(about[key]).encode("utf-8", "surrogatepass")), rng))
    else:
        header = changed(header, rng)
    head = _written(header)
    return struct.pack("<Q", len(head)) + head + content[8 + size :]
