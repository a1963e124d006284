#!/usr/bin/env python3
"""hostile.t: files that are cut, forged or malformed end in a sentence and exit code 2, never in a crash."""

import json
import os
import random
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support import *

tap = Tap()
here = folder()
target = os.path.join(here, "hostile.safetensors")

DATA = b"".join(struct.pack("<16f", *[0.1 * i for i in range(16)]) for _ in range(3))


def entry(number, dtype="F32", shape=(1, 4, 1, 4), size=64):
    return {
        "dtype": dtype,
        "shape": list(shape),
        "data_offsets": [size * number, size * (number + 1)],
    }


def good():
    return {"q": entry(0), "k": entry(1), "v": entry(2)}


def bad(name, content, word="", code=2):
    with open(target, "wb") as file:
        file.write(content)
    for command in (["run"], ["map", "-o", os.path.join(here, "map.png")]):
        refused(
            tap,
            rapt(command[0], target, *command[1:], "--causal"),
            f"{command[0]}: {name}",
            word,
            code,
        )
    tap.ok(not os.path.exists(os.path.join(here, "map.png")), f"{name}: no picture")


def forged(name, change, word="", code=2, data=DATA):
    header = good()
    change(header)
    bad(name, file_bytes(header, data), word, code)


def forged_text(name, old, new, word=""):
    bad(name, file_bytes(json.dumps(good()).replace(old, new, 1).encode(), DATA), word)


with open(target, "wb") as file:
    file.write(file_bytes(good(), DATA))
tap.equal(
    rapt("run", target, "--causal", "--verify").code, 0, "the file that is spoiled below is right"
)

# The frame.
whole = file_bytes(good(), DATA)
for size in (0, 1, 7, 8, 9, 100, len(whole) - len(DATA), len(whole) - 1):
    bad(f"cut after {size} bytes", whole[:size])
bad("bytes behind the last tensor", whole + b"x", "follow")
for length in (0, 1, len(whole), 100_000_001, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1):
    bad(f"a header of {length} bytes", file_bytes(good(), DATA, length), "header")
bad("a header that begins with a blank", file_bytes(b" " + json.dumps(good()).encode(), DATA), "{")
bad("a header of 17 MB", file_bytes(b"{" + b" " * (17 << 20) + b"}", b""), "at most")
bad("only zeros", bytes(4096), "header")
bad("a PNG", b"\x89PNG\r\n\x1a\n" + bytes(200))

# JSON.
bad("an array", file_bytes(b"[1, 2, 3]", DATA), "{")
bad("no JSON", file_bytes(b"{this is no JSON}", DATA), "JSON")
bad("JSON without an end", file_bytes(json.dumps(good()).encode()[:-1], DATA), "JSON")
bad("two values", file_bytes(json.dumps(good()).encode() + b"{}", DATA), "JSON")
bad("deep nesting", file_bytes(b'{"a":' * 100000, b""), "JSON")
bad(
    "bytes that are no UTF-8",
    file_bytes(json.dumps(good()).encode().replace(b'"q"', b'"\xff\xfe"'), DATA),
    "JSON",
)
bad(
    "a name with a zero byte",
    file_bytes(json.dumps(good()).encode().replace(b'"q"', b'"q\\u0000"'), DATA),
    "JSON",
)
bad(
    "a name with a line break",
    file_bytes(json.dumps(good()).encode().replace(b'"q"', b'"q\\n"'), DATA),
    "control",
)
bad(
    "a name with the last of the control characters",
    file_bytes(json.dumps(good()).encode().replace(b'"q"', b'"q\x7f"'), DATA),
    "control",
)
bad("a header of a byte more than there is", file_bytes(b"{}", b"", 3), "the file ends 2 bytes")
bad(
    "a name of 256 bytes",
    file_bytes(json.dumps(good()).encode().replace(b'"q"', b'"' + b"q" * 256 + b'"'), DATA),
    "256 bytes (at most 255)",
)
text = json.dumps(good())
bad(
    "the same tensor twice",
    file_bytes((text[:-1] + ', "q": ' + json.dumps(entry(0)) + "}").encode(), DATA),
    "JSON",
)
bad(
    "the same member twice",
    file_bytes(text.replace('"dtype"', '"dtype": "F32", "dtype"', 1).encode(), DATA),
    "JSON",
)
bad("an empty object", file_bytes({}, b""), "q")

# Entries.
forged("an entry that is a list", lambda h: h.update(q=[1]), "q")
forged("an entry that is null", lambda h: h.update(q=None), "q")
forged("an unknown member", lambda h: h["q"].update(stride=[1]), "unknown")
for member in ("dtype", "shape", "data_offsets"):
    forged(f"no {member}", lambda h: h["q"].pop(member), member)
forged("metadata that is a list", lambda h: h.update(__metadata__=[]), "metadata")
forged("metadata that is a number", lambda h: h.update(__metadata__={"a": 1}), "metadata")
forged("an unknown dtype", lambda h: h["q"].update(dtype="F31"), "dtype")
forged("a dtype that is a number", lambda h: h["q"].update(dtype=32), "dtype")
forged("a dtype of another size", lambda h: h["q"].update(dtype="F64"), "bytes")
forged("a dtype that attention has no use for", lambda h: h["q"].update(dtype="U32"), "U32")
forged("integers as queries", lambda h: h["q"].update(dtype="I32"), "dtype")

# Shapes: sizes that are no sizes.
for value in (-1, 1.5, "4", None, True, [4], {}, 1e30):
    forged(
        f"a size of {value!r}",
        lambda h: h["q"]["shape"].__setitem__(1, value),
        "size 1 of its shape is no whole number",
    )
forged_text("a size of NaN", "[1, 4", "[NaN, 4", "JSON")
forged_text("a size of Infinity", "[1, 4", "[Infinity, 4", "JSON")
forged_text("a size of 2^64", "[1, 4", "[18446744073709551616, 4", "JSON")
forged_text("a size of 10^400", "[1, 4", "[1" + "0" * 400 + ", 4", "JSON")
forged("a shape that is a number", lambda h: h["q"].update(shape=16), "shape")
forged(
    "sizes whose product passes 64 bits",
    lambda h: h["q"].update(shape=[2**33, 2**33, 1, 4]),
    "64 bits",
)
forged(
    "sizes whose product returns to 16",
    lambda h: h["q"].update(shape=[2**62, 4, 2**60 + 16, 1]),
    "64 bits",
)
forged(
    "sizes whose product passes 63 bits behind a size of 0",
    lambda h: h.update(
        q={"dtype": "F32", "shape": [0, 2**40, 2**40, 1], "data_offsets": [0, 0]},
        k=entry(0),
        v=entry(1),
    ),
    "tensor q is larger than 63 bits can count",
    data=DATA[:128],
)
forged("nine axes", lambda h: h["q"].update(shape=[1] * 8 + [16]), "9 axes (at most 8)")
forged("three axes", lambda h: h["q"].update(shape=[1, 4, 4]), "axes")
forged("no axis", lambda h: (h["q"].update(shape=[], data_offsets=[0, 4])), "")

# Offsets.
for offsets in (
    [0],
    [0, 64, 128],
    [64, 0],
    [-64, 0],
    [0, 65],
    [0, 2**62],
    [2**63 - 64, 2**63 - 1],
    ["0", 64],
    [0.0, 64.0],
    None,
    {},
    64,
):
    forged(f"data_offsets {offsets}", lambda h: h["q"].update(data_offsets=offsets), "data_offsets")
forged(
    "data_offsets that fall",
    lambda h: h["q"].update(data_offsets=[64, 0]),
    "64 ... 0 lie outside",
)
forged(
    "a byte past the end",
    lambda h: h.update(x={"dtype": "U8", "shape": [1], "data_offsets": [192, 193]}),
    "192 ... 193 lie outside of the file's 192 data bytes",
)
forged("tensors over each other", lambda h: h["k"].update(data_offsets=[32, 96]), "overlap")
forged("two names for the same bytes", lambda h: h["k"].update(data_offsets=[0, 64]), "overlap")
forged(
    "a gap",
    lambda h: [h[n].update(data_offsets=[o + 8, o + 72]) for n, o in (("k", 64), ("v", 128))],
    "unused",
    data=DATA + bytes(8),
)
forged(
    "an empty tensor within another",
    lambda h: h.update(z={"dtype": "F32", "shape": [0], "data_offsets": [32, 32]}),
    "overlap",
)
header = {**good(), "z": {"dtype": "F32", "shape": [0], "data_offsets": [64, 64]}}
with open(target, "wb") as file:
    file.write(file_bytes(header, DATA))
tap.equal(rapt("run", target).code, 0, "an empty tensor where another begins is right")

# Tensors that do not fit together.
forged("no v", lambda h: (h.pop("v")), "", data=DATA[:128])
forged("q of other channels", lambda h: h["q"].update(shape=[1, 2, 1, 8]), "channel")
forged("k of other tokens", lambda h: h["k"].update(shape=[1, 2, 2, 4]), "")
forged("k of another type", lambda h: h["k"].update(dtype="F16", shape=[1, 4, 2, 4]), "")
huge = 2**40
forged(
    "an output of 2^100 elements",
    lambda h: [
        h["q"].update(shape=[1, huge, huge, 0], data_offsets=[0, 0]),
        h["k"].update(shape=[1, 4, 1, 0], data_offsets=[0, 0]),
        h["v"].update(shape=[1, 4, 1, 4], data_offsets=[0, 64]),
    ],
    "",
    data=DATA[:64],
)

EXTRA = {
    "bias": [1, 1, 3, 4],
    "mask": [1, 1, 4, 5],
    "sink": [2],
    "alibi_slope": [3],
    "kv_length": [2],
}
for name, shape in EXTRA.items():
    count = 1
    for size in shape:
        count *= size
    dtype = {"mask": "U8", "kv_length": "I64"}.get(name, "F32")
    size = count * SIZES[dtype]
    forged(
        f"{name} of a wrong size",
        lambda h: h.update(
            {name: {"dtype": dtype, "shape": shape, "data_offsets": [192, 192 + size]}}
        ),
        "",
        data=DATA + bytes(size),
    )
    forged(
        f"{name} of a wrong type",
        lambda h: h.update(
            {name: {"dtype": "F8_E4M3", "shape": shape, "data_offsets": [192, 192 + count]}}
        ),
        "dtype",
        data=DATA + bytes(count),
    )


def indices(name, tensors, word):
    header, data = good(), DATA
    for key, (dtype, shape, values) in tensors.items():
        part = encode(dtype, values)
        header[key] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(data), len(data) + len(part)],
        }
        data += part
    bad(name, file_bytes(header, data), word)


ROOM = "kv_length[0] is 5 (0 to the 4 tokens there is room for)"
indices("kv_length above the capacity", {"kv_length": ("I64", [1], [5])}, ROOM)
indices("kv_length of two axes", {"kv_length": ("I64", [1, 1], [4])}, "2 axes (it needs 1)")
indices(
    "kv_length of another batch",
    {"kv_length": ("I64", [2], [4, 4])},
    "kv_length has 2 entries for a batch of 1",
)
indices("kv_length below 0", {"kv_length": ("I32", [1], [-1])}, "kv_length[0] is -1")
indices("kv_length at the end of 64 bits", {"kv_length": ("I64", [1], [2**63 - 1])}, "kv_length")
indices("kv_length as floats", {"kv_length": ("F32", [1], [1.0])}, "kv_length")
indices(
    "q_start that falls",
    {"q_start": ("I64", [3], [0, 3, 2]), "kv_start": ("I64", [3], [0, 2, 4])},
    "q_start[2] is 2",
)
indices(
    "q_start past the tokens",
    {"q_start": ("I64", [2], [0, 5]), "kv_start": ("I64", [2], [0, 4])},
    "q_start[1] is 5",
)
indices(
    "q_start below 0",
    {"q_start": ("I64", [2], [-1, 4]), "kv_start": ("I64", [2], [0, 4])},
    "q_start[0] is -1",
)
indices(
    "an empty q_start", {"q_start": ("I64", [0], []), "kv_start": ("I64", [2], [0, 4])}, "q_start"
)
indices(
    "kv_start of another batch",
    {"q_start": ("I64", [2], [0, 4]), "kv_start": ("I64", [3], [0, 2, 4])},
    "kv_start has 3 entries for a batch of 1 (batch + 1)",
)
ONE_PAGE = "page_table[0, 0] is 1 (k has 1 pages)"
indices("a page that is not there", {"page_table": ("I32", [1, 1], [1])}, ONE_PAGE)
indices(
    "a page of which one token is used",
    {"page_table": ("I32", [1, 3], [0, 7, 9]), "kv_length": ("I64", [1], [5])},
    "page_table[0, 1] is 7 (k has 1 pages)",
)
indices("a page below 0", {"page_table": ("I64", [1, 1], [-1])}, "page_table[0, 0] is -1")
indices(
    "a page table of another batch",
    {"page_table": ("I64", [2, 1], [0, 0])},
    "page_table has 2 rows for a batch of 1",
)
indices(
    "pages and ragged keys at once",
    {"page_table": ("I64", [1, 1], [0]), "kv_start": ("I64", [2], [0, 4])},
    "both given",
)
indices(
    "ragged keys and a page table without an entry, at the end of the file",
    {"kv_start": ("I32", [2], [0, 4]), "page_table": ("I32", [1, 0], [])},
    "both given",
)

forged(
    "pages without tokens",
    lambda h: h.update(
        k={"dtype": "F32", "shape": [1, 0, 1, 4], "data_offsets": [64, 64]},
        v={"dtype": "F32", "shape": [1, 0, 1, 4], "data_offsets": [64, 64]},
        page_table={"dtype": "I32", "shape": [1, 1], "data_offsets": [64, 68]},
    ),
    "a page of k has no tokens (at least 1)",
    data=DATA[:64] + bytes(4),
)

# Random damage: any outcome but a crash.
generator = random.Random(20261122)
worst = 0
for _ in range(150):
    content = bytearray(whole)
    for _ in range(generator.randrange(1, 4)):
        content[
            generator.randrange(0 if generator.random() < 0.1 else 8, len(whole) - len(DATA))
        ] = generator.choice(b'0123456789{}[]",:-eE\x00\xff')
    with open(target, "wb") as file:
        file.write(content)
    result = rapt("run", target)
    if result.code not in (0, 2) or (
        result.code == 2 and not result.error.startswith("rapt run: ")
    ):
        worst = (result.code, bytes(content), result.error)
tap.equal(worst, 0, "150 files with damaged headers: exit code 0, or 2 with a sentence")
tap.plan()
