#!/usr/bin/env python3
"""map.t: pictures of `rapt map`: where the weights are, and that row blocks keep every option's meaning."""

import array
import json
import os
import struct
import sys
import zlib
from time import monotonic

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support import *

tap = Tap()
here = folder()
HIDDEN = (0xF1, 0xF0, 0xF4)


def path(name):
    return os.path.join(here, name)


class Picture:
    """A PNG of 8-bit RGB, as rows of bytes (PNG specification, sections 9 and 11)."""

    def __init__(self, name):
        with open(name, "rb") as file:
            data = file.read()
        if data[:8] != b"\x89PNG\r\n\x1a\n":
            raise ValueError("no PNG")
        at, packed = 8, b""
        while at < len(data):
            length, kind = struct.unpack(">I4s", data[at : at + 8])
            if kind == b"IHDR":
                self.width, self.height, depth, colour = struct.unpack(
                    ">IIBB", data[at + 8 : at + 18]
                )
                self.channels = {2: 3, 6: 4}[colour]
                assert depth == 8
            if kind == b"IDAT":
                packed += data[at + 8 : at + 8 + length]
            at += length + 12
        self.rows = self.unfilter(zlib.decompress(packed))

    def unfilter(self, raw):
        n, step, rows, above = (
            self.channels,
            self.width * self.channels,
            [],
            bytes(self.width * self.channels),
        )
        for y in range(self.height):
            kind, row = raw[y * (step + 1)], bytearray(
                raw[y * (step + 1) + 1 : (y + 1) * (step + 1)]
            )
            for x in range(step if kind else 0):
                left, up, corner = (
                    (row[x - n] if x >= n else 0),
                    above[x],
                    (above[x - n] if x >= n else 0),
                )
                if kind == 4:
                    p = left + up - corner
                    nearest = min(
                        (abs(p - left), 0, left), (abs(p - up), 1, up), (abs(p - corner), 2, corner)
                    )[2]
                row[x] = (
                    row[x]
                    + {1: left, 2: up, 3: (left + up) // 2, 4: nearest if kind == 4 else 0}[kind]
                    & 255
                )
            above = bytes(row)
            rows.append(above)
        return rows

    def at(self, x, y):
        return tuple(self.rows[y][x * self.channels : x * self.channels + 3])

    def plot(self, columns, rows, cell_width, cell_height):
        """The colours of the cells: the plot is the widest block that begins at the first hidden or dark pixel."""
        unit = max(max(columns * cell_width, rows * cell_height) / 900, 0.5)
        left, top = int(104 * unit + 0.5), int(94 * unit + 0.5)
        return [
            [
                self.at(
                    left + c * cell_width + cell_width // 2,
                    top + r * cell_height + cell_height // 2,
                )
                for c in range(columns)
            ]
            for r in range(rows)
        ]


def draw(file, *arguments):
    result = rapt("map", file, "-o", path("map.png"), "--size", 240, *arguments)
    return result, Picture(path("map.png")) if result.code == 0 else None


def light(colour):
    return sum(colour)


def oklch(colour):
    """Lightness, chroma and hue in degrees of sRGB bytes (B. Ottosson, "A perceptual color space for image processing")."""
    parts = [byte / 255 for byte in colour]
    r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    l = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    m = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    s = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    u = 1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s
    v = 0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s
    lightness = 0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s
    return lightness, math.hypot(u, v), math.degrees(math.atan2(v, u))


def on_scale(place, colour):
    """Whether a place on the scale, 0 ... 1, has its colour: lightness and hue are linear in it."""
    lightness, chroma, hue = oklch(colour)
    off = (hue - (282 + 183 * place) + 180) % 360 - 180
    return abs(lightness - (0.13 + 0.84 * place)) < 0.01 and chroma > 0.03 and abs(off) < 4


# Small: every weight is a cell. Cells are ordered by brightness as weights are by size.
tensors = {
    "q": random_tensor("F32", [2, 6, 4, 8], 1, 2),
    "k": random_tensor("F32", [2, 9, 2, 8], 2, 2),
    "v": random_tensor("F32", [2, 9, 2, 8], 3),
}
small = write_file(path("small.safetensors"), tensors)
problem = Problem(tensors["q"], tensors["k"], tensors["v"], causal=True)
for b, h in ((0, 0), (1, 3)):
    result, picture = draw(small, "--causal", "--head", h, "--batch", b, "--json")
    if not tap.equal(result.code, 0, f"batch {b}, head {h}: exit code", result.error):
        continue
    document = json.loads(result.out)
    tap.equal(
        (document["rows"], document["columns"], document["head"], document["batch"]),
        (6, 9, h, b),
        "--json",
        document,
    )
    cells = picture.plot(9, 6, 240 // 9, 160 // 6)
    weights = [problem.row(b, h, i)[1] for i in range(6)]
    tap.ok(
        all((cells[i][j] == HIDDEN) == (weights[i][j] == 0) for i in range(6) for j in range(9)),
        f"batch {b}, head {h}: hidden cells are grey",
        cells,
    )
    order = sorted(
        (weights[i][j], light(cells[i][j])) for i in range(6) for j in range(9) if weights[i][j]
    )
    tap.ok(
        all(a[1] <= b[1] for a, b in zip(order, order[1:])),
        f"batch {b}, head {h}: heavier is lighter",
        order,
    )
    top = max(map(max, weights))
    shown = [(weights[i][j] / top, cells[i][j]) for i in range(6) for j in range(9) if weights[i][j]]
    tap.ok(all(on_scale(*cell) for cell in shown), f"batch {b}, head {h}: the colours of the scale", shown)
result, picture = draw(small, "--causal", "--log")
cells, weights = picture.plot(9, 6, 240 // 9, 160 // 6), [problem.row(0, 0, i)[1] for i in range(6)]
shown = [(weights[i][j], cells[i][j]) for i in range(6) for j in range(9) if weights[i][j]]
low, top = min(shown)[0], max(shown)[0]
low = min(max(low, top * 1e-4), top / 10)  # one decade at least, four at most
shown = [(max(math.log(weight / low) / math.log(top / low), 0), colour) for weight, colour in shown]
tap.ok(all(on_scale(*cell) for cell in shown), "--log: the colours of the scale", shown)
linear = draw(small, "--causal")[1].rows
tap.ok(picture.rows != linear, "--log is another picture")
result, picture = draw(small, "--title", "A title of one's own", "--pool", "mean")
tap.ok(result.code == 0 and picture.rows != linear, "--title and --pool mean draw", result.error)

# The title is the model's name without its remarks; the line below says what a pixel is.
titles = [
    draw(write_file(path("titled"), tensors, {"model": model}), "--causal")[1].rows
    for model in ("Name", "Name (of a remark)", "Other")
]
tap.ok(titles[0] == titles[1] != titles[2], "the title is the model's name without remarks")
# A title that is too long is cut, not shrunk to a line of dots; bytes that are no text ruin no picture.
def ink(picture):
    """Rows and columns of the title's dark pixels."""
    dark = [(x, y) for y in range(5, 25) for x in range(picture.width) if light(picture.at(x, y)) < 300]
    return len({y for _, y in dark}), max(x for x, _ in dark)


for title in ("A long title " * 40, "\u00e9" * 999 + "x", "short"):
    result, picture = draw(small, "--title", title)
    rows, last = ink(picture)
    tap.ok(rows >= 4 and last < picture.width - 11, f"a title of {len(title)} characters", rows, last, picture.width)
titles = [draw(write_file(path(name), tensors), "--causal") for name in ("no\udcfftext", "no?text", "text")]
tap.equal([result.code for result, _ in titles], [0, 0, 0], "a file's name that is no UTF-8", titles[0][0].error)
tap.ok(titles[0][1].rows == titles[1][1].rows != titles[2][1].rows, "its byte is drawn as a question mark")
for model in ("\u00e9" * 400, "a" + "\u00e9" * 400, "\ufffe"):
    noted = write_file(path("titled"), tensors, {"model": model, "layer": "\u00e9" * 20})
    tap.ok(len(set(draw(noted, "--causal")[1].rows[40:])) > 9, f"a model's name of {len(model)} characters")
for title, byte in (("ok\udcff", 3), ("\udcc3", 1), ("\ufffe", 1), ("\udced\udca0\udc80", 1), ("\udcc0\udc80", 1)):
    result = rapt("map", small, "-o", path("x.png"), "--title", title)
    refused(tap, result, f"a title that is no UTF-8: {ascii(title)}", f"--title: byte {byte} begins no character")
result = draw(small, "--window", "3,0")[0]
tap.ok("window 3,0; one cell per weight" in result.out, "what is drawn, in words", result.out)
nothing = write_file(path("nothing"), {**tensors, "kv_length": Tensor("I64", [2], [0, 9])})
refused(tap, rapt("map", nothing, "-o", path("x.png")), "a sequence without keys", "no keys to draw")

# Long: rows come in blocks. The same problem with its hidden keys spelled out as a mask or a bias, which no block can
# misplace, must look the same.
N = 1300


def long_tensors(queries=N, keys=N, heads=1):
    return {
        "q": random_tensor("F32", [1, queries, heads, 8], 4),
        "k": random_tensor("F32", [1, keys, 1, 8], 5),
        "v": random_tensor("F32", [1, keys, 1, 8], 6),
    }


def difference(first, second):
    """Share of the plot's pixels whose colours differ by more than rounding. The first 47 rows hold text."""
    count = apart = 0
    for a, b in zip(first.rows[47:], second.rows[47:]):
        count += len(a)
        apart += sum(abs(x - y) > 4 for x, y in zip(a, b)) if a != b else 0
    return apart / count


def mask_of(queries, keys, visible):
    rows = []
    for i in range(queries):
        first, last = visible(i)
        first, last = min(max(first, 0), keys), min(max(last, 0), keys)
        rows.append(bytes(first) + b"\1" * max(last - first, 0) + bytes(keys - max(first, last)))
    return Raw("U8", [1, 1, queries, keys], b"".join(rows))


class Raw:
    """A tensor of ready bytes; Python would take long to encode its elements."""

    def __init__(self, dtype, shape, data):
        self.dtype, self.shape, self.data = dtype, shape, data


def write_raw(name, tensors):
    header, data = {}, b""
    for key, tensor in tensors.items():
        part = tensor.data if isinstance(tensor, Raw) else encode(tensor.dtype, tensor.values)
        header[key] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [len(data), len(data) + len(part)],
        }
        data += part
    with open(path(name), "wb") as file:
        file.write(file_bytes(header, data))
    return path(name)


def same(name, tensors, arguments, spelled, spelled_arguments=()):
    first, picture = draw(write_raw("a.safetensors", tensors), "--log", *arguments)
    second, reference = draw(
        write_raw("b.safetensors", {**tensors, **spelled}), "--log", *spelled_arguments
    )
    if tap.equal(
        (first.code, second.code), (0, 0), f"{name}: exit codes", first.error, second.error
    ):
        share = difference(picture, reference)
        tap.ok(
            share < 0.002,
            f"{name}: the same picture in blocks and spelled out",
            f"{share:.4f} of the pixels differ",
        )
        tap.ok(
            len({bytes(row) for row in picture.rows}) > 50, f"{name}: the picture shows something"
        )


square, wide, high = long_tensors(), long_tensors(N, 700), long_tensors(700, N)
same("causal", square, ["--causal"], {"mask": mask_of(N, N, lambda i: (0, i + 1))})
same(
    "causal, more queries than keys",
    wide,
    ["--causal"],
    {"mask": mask_of(N, 700, lambda i: (0, i + 1 - 600))},
)
same("causal, more keys", high, ["--causal"], {"mask": mask_of(700, N, lambda i: (0, i + 1 + 600))})
same(
    "causal, top-left, more queries",
    wide,
    ["--causal", "--align", "top-left"],
    {"mask": mask_of(N, 700, lambda i: (0, i + 1))},
)
same(
    "causal, top-left, more keys",
    high,
    ["--causal", "--align", "top-left"],
    {"mask": mask_of(700, N, lambda i: (0, i + 1))},
)
same(
    "window 90,40",
    square,
    ["--window", "90,40"],
    {"mask": mask_of(N, N, lambda i: (i - 90, i + 41))},
)
same("window 90,-1", square, ["--window", "90,-1"], {"mask": mask_of(N, N, lambda i: (i - 90, N))})
same("window -1,0", square, ["--window=-1,0"], {"mask": mask_of(N, N, lambda i: (0, i + 1))})
same(
    "window 50,20, top-left, more queries",
    wide,
    ["--window", "50,20", "--align", "top-left"],
    {"mask": mask_of(N, 700, lambda i: (i - 50, i + 21))},
)
same(
    "as many keys to the left as there are numbers, more queries",
    wide,
    ["--window=9223372036854775806,0"],
    {"mask": mask_of(N, 700, lambda i: (0, i + 1 - 600))},
)
same(
    "as many keys to the right as there are numbers, top-left, more queries",
    wide,
    ["--window=30,9223372036854775806", "--align", "top-left"],
    {"mask": mask_of(N, 700, lambda i: (i - 30, N))},
)
same(
    "window 50,20 and causal",
    high,
    ["--window", "50,20", "--causal"],
    {"mask": mask_of(700, N, lambda i: (i + 550, i + 601))},
)


def alibi_bias(slope, offset, queries, keys):
    distances = array.array("f", [-slope * d for d in range(max(queries, keys) + abs(offset) + 1)])
    rows = []
    for i in range(queries):
        p = i + offset
        rows.append(array.array("f", [distances[abs(p - j)] for j in range(keys)]).tobytes())
    return Raw("F32", [1, 1, queries, keys], b"".join(rows))


slope = Tensor("F32", [1], [0.03125])
none = Tensor("F32", [1], [0.0])
same(
    "ALiBi",
    {**square, "alibi_slope": slope},
    [],
    {"alibi_slope": none, "bias": alibi_bias(0.03125, 0, N, N)},
)
same(
    "ALiBi, more keys",
    {**high, "alibi_slope": slope},
    [],
    {"alibi_slope": none, "bias": alibi_bias(0.03125, 600, 700, N)},
)
same(
    "ALiBi, causal, more keys",
    {**high, "alibi_slope": slope},
    ["--causal"],
    {"alibi_slope": none, "bias": alibi_bias(0.03125, 600, 700, N)},
    ["--causal"],
)

# Equal weights: their mean is their largest, however many rows and columns share a pixel.
flat = write_raw("flat.safetensors", {**square, "q": Tensor("F32", [1, N, 1, 8], [0.0] * (N * 8))})
largest, mean = draw(flat)[1], draw(flat, "--pool", "mean")[1]
share = difference(largest, mean)
tap.ok(share < 0.002, "the mean of equal weights", f"{share:.4f} of the pixels differ")
file = write_raw("square.safetensors", square)
share = difference(draw(file)[1], draw(file, "--pool", "mean")[1])
tap.ok(share > 0.1, "the mean of others is another picture", f"{share:.4f} of the pixels differ")
result = rapt("map", file, "-o", path("x.png"), "--json")
document = json.loads(result.out)
tap.equal((document["rows"], document["columns"]), (900, 900), "the size that no --size gives")
os.remove(path("x.png"))


# Ragged and paged sequences against the same tokens alone.
def part(tensor, first, last):
    row = tensor.shape[2] * tensor.shape[3]
    return Tensor(
        tensor.dtype, [1, last - first, *tensor.shape[2:]], tensor.values[first * row : last * row]
    )


ragged = {
    **square,
    "q_start": Tensor("I64", [3], [0, 500, 1300]),
    "kv_start": Tensor("I64", [3], [0, 600, 1300]),
}
alone = {
    "q": part(square["q"], 500, 1300),
    "k": part(square["k"], 600, 1300),
    "v": part(square["v"], 600, 1300),
}
for name, tensors, arguments in (
    ("a.safetensors", ragged, ["--batch", 1]),
    ("b.safetensors", alone, []),
):
    result, picture = draw(write_raw(name, tensors), "--causal", "--log", *arguments)
    tap.equal(result.code, 0, f"ragged, {name}", result.error)
    ragged_picture = picture if name == "a.safetensors" else ragged_picture
tap.ok(difference(ragged_picture, picture) < 0.002, "a ragged sequence looks as it does alone")

pages = [(7 * i + 3) % 13 for i in range(13)]
paged = {
    "q": square["q"],
    "page_table": Tensor("I32", [1, 13], pages),
    "kv_length": Tensor("I64", [1], [1250]),
}
for key in "kv":
    values = [0.0] * (N * 8)
    for i, page in enumerate(pages):
        values[page * 800 : (page + 1) * 800] = square[key].values[i * 800 : (i + 1) * 800]
    paged[key] = Tensor("F32", [13, 100, 1, 8], values)
length = {**square, "kv_length": Tensor("I64", [1], [1250])}
first, picture = draw(write_raw("a.safetensors", paged), "--causal", "--log")
second, reference = draw(write_raw("b.safetensors", length), "--causal", "--log")
tap.equal((first.code, second.code), (0, 0), "paged: exit codes", first.error, second.error)
share = difference(picture, reference)
tap.ok(
    share < 0.002,
    "a paged sequence looks as it does in one piece",
    f"{share:.4f} of the pixels differ",
)

# Memory stays bounded: the weights of 30,000 tokens would be 3.6 GB.
many = 30000
tile = random_tensor("F32", [1, 500, 1, 8], 9).values
raw = encode("F32", tile) * (many // 500)
file = write_raw("many.safetensors", {key: Raw("F32", [1, many, 1, 8], raw) for key in "qkv"})
start = monotonic()
done = subprocess.run(
    [
        "python3",
        "-c",
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)",
        RAPT,
        "map",
        file,
        "--causal",
        "--window",
        "3000,0",
        "-o",
        path("many.png"),
        "--json",
    ],
    capture_output=True,
    text=True,
)
tap.equal(done.returncode, 0, "30,000 tokens: exit code", done.stderr)
tap.ok(
    20 < json.loads(done.stdout.splitlines()[0])["time_ms"] < 1e3 * (monotonic() - start),
    "30,000 tokens: milliseconds",
    done.stdout,
)
limit = 2_000_000 if "san" in RAPT else 300_000
tap.ok(int(done.stdout.split()[-1]) < limit, "30,000 tokens: bounded memory", done.stdout)

# Use.
for arguments, word in [
    ([], "no file"),
    ([small], "-o"),
    ([small, "-o", path("x.png"), "--head", "4"], "--head 4"),
    ([small, "-o", path("x.png"), "--head", "-1"], "-1"),
    ([small, "-o", path("x.png"), "--batch", "2"], "--batch 2"),
    ([small, "-o", path("x.png"), "--size", "10"], "10"),
    ([small, "-o", path("x.png"), "--size", "100000"], "100000"),
    ([small, "-o", path("x.png"), "--pool", "min"], "min"),
    ([small, "-o", small], "input"),
    ([small, "-o", path("no/such/x.png")], "No such"),
]:
    refused(
        tap,
        rapt("map", *arguments),
        f"map {' '.join(os.path.basename(str(a)) for a in arguments)}",
        word,
    )
tap.ok(not os.path.exists(path("x.png")), "no picture after a refusal")
result, picture = draw(SAMPLE, "--causal", "--head", 3, "--log")
tap.ok(
    result.code == 0 and "SmolLM2" in result.out and "king" not in result.error,
    "the sample draws",
    result.error,
)
tap.plan()
