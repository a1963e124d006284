"""support.py: what the tests of the tool share: TAP, safetensors files made byte by byte, and attention in plain Python."""

import array
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

RAPT = os.path.join(os.environ.get("RAPT_BUILD", "build"), "rapt")
SAMPLE = os.path.join("tests", "data", "smollm2-layer17.safetensors")
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1, "I8": 1, "F64": 8}
FORMATS = {
    "F32": "f",
    "F16": "e",
    "I64": "q",
    "I32": "i",
    "U8": "B",
    "BOOL": "B",
    "I8": "b",
    "F64": "d",
}


if not os.path.exists(RAPT):
    print(f"1..0 # SKIP {RAPT} was not built (it needs jansson and cairo)")
    sys.exit(0)


class Tap:
    """Numbers and prints test results; plan() last."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def ok(self, condition, name, *details):
        self.count += 1
        self.failed += not condition
        print(f"{'ok' if condition else 'not ok'} {self.count} - {name}")
        if not condition:
            for detail in details:
                for line in str(detail)[:2000].splitlines():
                    print(f"#   {line}")
        sys.stdout.flush()
        return condition

    def equal(self, got, want, name, *details):
        return self.ok(got == want, name, f"got {got!r}, not {want!r}", *details)

    def near(self, got, want, bound, name):
        return self.ok(abs(got - want) <= bound, name, f"got {got!r}, not {want!r} within {bound}")

    def plan(self):
        print(f"1..{self.count}")
        sys.exit(1 if self.failed else 0)


class Result:
    def __init__(self, done):
        self.code, self.out, self.error = done.returncode, done.stdout, done.stderr


SECONDS = 1200 if os.environ.get("RAPT_TEST_EMULATED") else 120


def rapt(*arguments, stdin=None, environment=None, timeout=SECONDS):
    """Runs the tool; a crash has a negative code."""
    return Result(
        subprocess.run(
            [RAPT, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(environment or {})},
        )
    )


def refused(tap, result, name, word="", code=2):
    """Exit code, a sentence on the error stream that holds the word, and nothing on the output."""
    sentence = result.error.startswith("rapt ") and len(result.error) > 15
    tap.ok(
        result.code == code and sentence and word in result.error and not result.out,
        name,
        f'exit code {result.code}, wanted {code} and "{word}"',
        result.error,
        result.out,
    )


def folder():
    path = tempfile.mkdtemp(prefix="rapt-cli-")
    import atexit

    atexit.register(shutil.rmtree, path, True)
    return path


def encode(dtype, values):
    if dtype == "BF16":
        return b"".join(struct.pack("<I", to_bf16(x))[2:] for x in values)
    return struct.pack(f"<{len(values)}{FORMATS[dtype]}", *values)


def to_bf16(x):
    """The bits of the nearest bf16 (ties to even), in the upper half of a word."""
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    return (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000


def decode(dtype, data):
    if dtype == "BF16":
        return [struct.unpack("<f", b"\0\0" + data[i : i + 2])[0] for i in range(0, len(data), 2)]
    return list(struct.unpack(f"<{len(data) // SIZES[dtype]}{FORMATS[dtype]}", data))


class Tensor:
    def __init__(self, dtype, shape, values):
        self.dtype, self.shape = dtype, list(shape)
        self.values = decode(dtype, encode(dtype, values))  # as the file holds them

    def at(self, *index):
        """Element; an axis of size 1 repeats."""
        offset = 0
        for size, i in zip(self.shape, index):
            offset = offset * size + (i if size > 1 else 0)
        return self.values[offset]


def random_tensor(dtype, shape, seed, spread=1.0):
    generator = random.Random(seed)
    return Tensor(dtype, shape, [generator.gauss(0, spread) for _ in range(math.prod(shape))])


def file_bytes(header, data, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write_file(path, tensors, metadata=None, padding=0):
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, tensor in tensors.items():
        part = encode(tensor.dtype, tensor.values)
        header[name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [len(data), len(data) + len(part)],
        }
        data += part
    text = json.dumps(header).encode() + b" " * padding
    with open(path, "wb") as file:
        file.write(file_bytes(text, data))
    return path


def read_file(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    return {
        name: Tensor(
            entry["dtype"],
            entry["shape"],
            decode(entry["dtype"], data[slice(*entry["data_offsets"])]),
        )
        for name, entry in header.items()
    }


class Problem:
    """Attention as docs/SEMANTICS.md defines it, in Python's floats, for small dense problems.

    q, k and v are [batch, token, head, channel]; options have the library's names."""

    def __init__(self, q, k, v, **options):
        self.q, self.k, self.v = q, k, v
        self.options = options

    def weights(self, b, h, i, q_length, kv_length, q_token, k_token):
        """The weights of query i over kv_length keys; q_token and k_token: (batch, token) in the tensors."""
        o = self.options
        channels, group = self.q.shape[3], self.q.shape[2] // self.k.shape[2]
        offset = 0 if o.get("top_left") else kv_length - q_length
        position = i + offset
        left, right = o.get("window", (-1, -1))
        scores = []
        for j in range(kv_length):
            s = sum(
                self.q.at(*q_token(i), h, c) * self.k.at(*k_token(j), h // group, c)
                for c in range(channels)
            )
            s *= o.get("scale", 1 / math.sqrt(channels))
            if o.get("softcap"):
                s = o["softcap"] * math.tanh(s / o["softcap"])
            if "bias" in o:
                s += o["bias"].at(b, h, i, j)
            if "alibi_slope" in o:
                s -= o["alibi_slope"].values[h] * abs(position - j)
            hidden = ("mask" in o and not o["mask"].at(b, h, i, j)) or (
                o.get("causal") and j > position
            )
            hidden = (
                hidden
                or (left >= 0 and j < position - left)
                or (right >= 0 and j > position + right)
            )
            scores.append(-math.inf if hidden else s)
        sink = o["sink"].values[h] if "sink" in o else -math.inf
        most = max(scores + [sink])
        if most == -math.inf:
            return [0.0] * kv_length, -math.inf
        total = math.exp(sink - most) + sum(math.exp(s - most) for s in scores)
        return [math.exp(s - most) / total for s in scores], most + math.log(total)

    def row(self, b, h, i, q_length=None, kv_length=None, q_token=None, k_token=None):
        """out, weights and lse of one query."""
        q_length = self.q.shape[1] if q_length is None else q_length
        kv_length = self.k.shape[1] if kv_length is None else kv_length
        k_token = k_token or (lambda j: (b, j))
        p, lse = self.weights(b, h, i, q_length, kv_length, q_token or (lambda t: (b, t)), k_token)
        group = self.q.shape[2] // self.k.shape[2]
        out = [
            sum(p[j] * self.v.at(*k_token(j), h // group, c) for j in range(kv_length) if p[j])
            for c in range(self.v.shape[3])
        ]
        return out, p, lse
