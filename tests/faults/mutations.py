"""Ways in which a file goes wrong: bytes, header fields, cells of tables and nodes of trees."""

import gzip
import json
import random
import struct
from collections.abc import Callable
from typing import Any

import yaml

NUMBERS = (("<h", 32767), ("<h", -1), ("<i", 2**31 - 1), ("<q", 2**62), ("<f", 1e38), ("<f", -0.0))
WRITTEN = [struct.pack(form, number) for form, number in NUMBERS]
WRITTEN += [b"\0" * 8, b"\xff" * 8, b"nan", b'"', b"\n", b"\xfe\xff"]
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    0.5,
    2**63,
    1e308,
    float("nan"),
    "",
    "nan",
    "../../x",
    "\0",
    "x" * 5000,
    [],
    {},
    [[]],
    {"x": 1},
    [1] * 50,
)
HEADER = 400

Mutate = Callable[[bytes, random.Random], bytes]


def of_bytes(content: bytes, chance: random.Random) -> bytes:
    """One to four changes anywhere, half of them near the front, where headers are."""
    for _ in range(chance.randint(1, 4)):
        reach = min(HEADER, len(content)) if chance.random() < 0.5 else len(content)
        at = chance.randrange(reach) if reach else 0
        match chance.choice(("flip", "write", "write", "cut", "drop", "insert", "repeat")):
            case "flip" if content:
                flipped = content[at] ^ (1 << chance.randrange(8))
                content = content[:at] + bytes([flipped]) + content[at + 1 :]
            case "write":
                value = chance.choice(WRITTEN)
                content = content[:at] + value + content[at + len(value) :]
            case "cut":
                content = content[:at]
            case "drop":
                content = content[:at] + content[at + chance.randint(1, 64) :]
            case "insert":
                content = content[:at] + chance.randbytes(chance.randint(1, 16)) + content[at:]
            case "repeat":
                again = content[at : at + 32] * chance.randint(2, 50)
                content = content[:at] + again + content[at:]
    return content


def unpacked(content: bytes, chance: random.Random) -> bytes:
    """What a gzip file holds is changed, and now and then the file."""
    if chance.random() < 0.2:
        return of_bytes(content, chance)
    return gzip.compress(of_bytes(gzip.decompress(content), chance), 1, mtime=0)


def of_nifti(content: bytes, chance: random.Random) -> bytes:
    """A field of the header, in the size that the field has."""
    fields = {40: "<h", 42: "<h", 44: "<h", 46: "<h", 48: "<h", 70: "<h", 72: "<h", 76: "<f"}
    fields |= {80: "<f", 84: "<f", 108: "<f", 112: "<f", 116: "<f", 252: "<h", 254: "<h", 344: "<i"}
    fields |= {280 + 4 * k: "<f" for k in range(12)}
    if chance.random() < 0.3 or len(content) < 348:
        return of_bytes(content, chance)
    changed = bytearray(content)
    at, form = chance.choice(list(fields.items()))
    numbers = (-1, 0, 1, 2, 5, 7, 64, 255, 32767)
    more = (1e38, 1e-38, float("nan"), float("inf"), -3.5)
    number = chance.choice(numbers if form != "<f" else (*numbers, *more))
    struct.pack_into(form, changed, at, number)
    return bytes(changed)


def of_packed_nifti(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return of_bytes(content, chance)
    return gzip.compress(of_nifti(gzip.decompress(content), chance), 1, mtime=0)


def of_table(content: bytes, chance: random.Random) -> bytes:
    """A cell, row or column name of a CSV file."""
    if chance.random() < 0.3:
        return of_bytes(content, chance)
    rows = [line.split(",") for line in content.decode().splitlines()]
    row = chance.choice(rows[:1] + rows)
    match chance.choice(("cell", "cell", "more", "less", "twice", "gone")):
        case "cell":
            row[chance.randrange(len(row))] = str(chance.choice(VALUES))
        case "more":
            row.append(str(chance.choice(VALUES)))
        case "less":
            del row[chance.randrange(len(row))]
        case "twice":
            rows.append(list(row))
        case "gone":
            rows.remove(row)
    return "\n".join(",".join(each) for each in rows).encode()


def of_json(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.3:
        return of_bytes(content, chance)
    return json.dumps(of_tree(json.loads(content), chance)).encode()


def of_yaml(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.3:
        return of_bytes(content, chance)
    return yaml.safe_dump(of_tree(yaml.safe_load(content), chance), sort_keys=False).encode()


def of_safetensors(content: bytes, chance: random.Random) -> bytes:
    """A node of the header, whose length is set right again."""
    if chance.random() < 0.4:
        return of_bytes(content, chance)
    (length,) = struct.unpack_from("<Q", content)
    header = of_tree(json.loads(content[8 : 8 + length]), chance)
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + content[8 + length :]


def of_tree(tree: Any, chance: random.Random) -> Any:
    """The tree with one node replaced, removed, renamed or doubled."""
    places = list(_places(tree))
    if not places or chance.random() < 0.02:
        return chance.choice(VALUES)
    parent, key = chance.choice(places)
    match chance.choice(("replace", "replace", "replace", "remove", "add", "swap")):
        case "replace":
            parent[key] = chance.choice(VALUES)
        case "remove":
            del parent[key]
        case "add" if isinstance(parent, dict):
            parent[chance.choice(("x", "", "0", "train"))] = chance.choice(VALUES)
        case "add":
            parent.insert(key, chance.choice(VALUES))
        case "swap":
            other, name = chance.choice(places)
            parent[key] = json.loads(json.dumps(other[name])) if name in _keys(other) else None
    return tree


def _keys(node: Any) -> Any:
    return node if isinstance(node, dict) else range(len(node))


def _places(tree: Any) -> Any:
    for key in list(_keys(tree)) if isinstance(tree, dict | list) else ():
        yield tree, key
        yield from _places(tree[key])
