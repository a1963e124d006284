#!/usr/bin/env python3
"""run.t: `rapt run` against attention in plain Python, for every tensor and option."""

import json
import os
import resource
import signal
import subprocess
import sys
from time import monotonic

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support import *

tap = Tap()
here = folder()
BOUND = {"F32": 2e-5, "F16": 4e-3, "BF16": 3e-2}


def path(name):
    return os.path.join(here, name)


def compare(name, file, arguments, row, b_h_i, dtype="F32", layout="bthd", want_weights=True):
    """Runs with -o and compares out, lse and weights of the named rows."""
    result = rapt(
        "run",
        file,
        *arguments,
        "-o",
        path("o.safetensors"),
        *(["--weights"] if want_weights else []),
        "--verify",
    )
    if not tap.equal(result.code, 0, f"{name}: exit code", result.error):
        return
    got, worst = read_file(path("o.safetensors")), 0
    for b, h, i, place in b_h_i:
        out, p, lse = row(b, h, i)
        for c, want in enumerate(out):
            index = (place[0], h, place[1], c) if layout == "bhtd" else (place[0], place[1], h, c)
            worst = max(worst, abs(got["out"].at(*index) - want))
        got_lse = got["lse"].at(place[0], h, place[1])
        worst = max(worst, 0 if got_lse == lse else abs(got_lse - lse) / 10)
        if want_weights:
            worst = max(
                [worst]
                + [abs(got["weights"].at(place[0], h, place[1], j) - w) for j, w in enumerate(p)]
            )
    tap.ok(worst <= BOUND[dtype], f"{name}: results", f"largest error {worst}")


def dense_rows(tensors):
    batch, tokens, heads, _ = tensors["q"].shape
    return [(b, h, i, (b, i)) for b in range(batch) for h in range(heads) for i in range(tokens)]


def dense(name, tensors, arguments=(), dtype="F32", **options):
    file = write_file(path("i.safetensors"), tensors)
    extra = {key: tensors[key] for key in ("bias", "mask", "sink", "alibi_slope") if key in tensors}
    problem = Problem(tensors["q"], tensors["k"], tensors["v"], **options, **extra)
    compare(name, file, arguments, problem.row, dense_rows(tensors), dtype)


def qkv(dtype="F32", batch=2, queries=5, keys=7, heads=4, kv_heads=2, channels=8, values=8):
    return {
        "q": random_tensor(dtype, [batch, queries, heads, channels], 1),
        "k": random_tensor(dtype, [batch, keys, kv_heads, channels], 2),
        "v": random_tensor(dtype, [batch, keys, kv_heads, values], 3),
    }


# Options, one by one.
dense("plain", qkv())
dense("F16", qkv("F16"), dtype="F16")
dense("BF16", qkv("BF16"), dtype="BF16")
dense("values of another width", qkv(values=12))
dense("F16 keys and values under F32 queries", {**qkv("F16"), "q": qkv()["q"]})
dense("--causal", qkv(), ["--causal"], causal=True)
dense(
    "--causal --align top-left",
    qkv(),
    ["--causal", "--align", "top-left"],
    causal=True,
    top_left=True,
)
dense("--causal --align bottom-right", qkv(), ["--causal", "--align=bottom-right"], causal=True)
dense(
    "more queries than keys: rows without a key", qkv(queries=7, keys=4), ["--causal"], causal=True
)
dense("--window 2,1", qkv(), ["--window", "2,1"], window=(2, 1))
dense("--window -1,0", qkv(), ["--window", "-1,0"], window=(-1, 0))
dense(
    "--window 0,-1 --align top-left",
    qkv(),
    ["--window", "0,-1", "--align", "top-left"],
    window=(0, -1),
    top_left=True,
)
dense("--softcap", qkv(), ["--softcap", "1.5"], softcap=1.5)
dense("--scale", qkv(), ["--scale", "-0.25"], scale=-0.25)
dense("bias", {**qkv(), "bias": random_tensor("F32", [2, 4, 5, 7], 4)})
dense(
    "bias, broadcast, in q's type",
    {**qkv("BF16"), "bias": random_tensor("BF16", [1, 4, 1, 7], 4)},
    dtype="BF16",
)
mask = [int(x) for x in "1101011" "0000000" "1111110" "0000001" "1010101"]
dense("mask BOOL", {**qkv(), "mask": Tensor("BOOL", [1, 1, 5, 7], mask)})
dense(
    "mask U8",
    {**qkv(), "mask": Tensor("U8", [1, 1, 5, 7], [200 * x for x in mask])},
    ["--causal"],
    causal=True,
)
dense("sink", {**qkv(), "sink": random_tensor("F32", [4], 5)})
dense(
    "alibi_slope",
    {**qkv(), "alibi_slope": Tensor("F32", [4], [0.5, 0.25, 0.125, 0.0625])},
    ["--causal"],
    causal=True,
)

# Lengths of the keys in use.
tensors = qkv()
lengths = [3, 7]
problem = Problem(tensors["q"], tensors["k"], tensors["v"], causal=True)
for dtype in ("I64", "I32"):
    file = write_file(path("i.safetensors"), {**tensors, "kv_length": Tensor(dtype, [2], lengths)})
    compare(
        f"kv_length {dtype}",
        file,
        ["--causal"],
        lambda b, h, i: problem.row(b, h, i, kv_length=lengths[b]),
        dense_rows(tensors),
    )

# The other memory order, and a result in f32.
tensors = qkv("F16")
turned = {}
for key in "qkv":
    t = tensors[key]
    b, s, h, d = t.shape
    turned[key] = Tensor(
        "F16",
        [b, h, s, d],
        [t.at(x, z, y, c) for x in range(b) for y in range(h) for z in range(s) for c in range(d)],
    )
file = write_file(path("i.safetensors"), turned)
problem = Problem(tensors["q"], tensors["k"], tensors["v"])
compare(
    "--layout bhtd", file, ["--layout", "bhtd"], problem.row, dense_rows(tensors), "F16", "bhtd"
)
tap.equal(
    read_file(path("o.safetensors"))["out"].shape,
    turned["q"].shape,
    "--layout bhtd: the shape of out is q's",
)
tap.equal(read_file(path("o.safetensors"))["out"].dtype, "F16", "out has q's dtype")
rapt("run", file, "--layout", "bhtd", "--out-dtype", "f32", "-o", path("o.safetensors"))
tap.equal(read_file(path("o.safetensors"))["out"].dtype, "F32", "--out-dtype f32")
tap.ok("weights" not in read_file(path("o.safetensors")), "weights only when they are asked for")

# A file whose data lies unaligned.
for padding in (1, 2, 3):
    tensors = qkv()
    file = write_file(path("i.safetensors"), tensors, padding=padding)
    problem = Problem(tensors["q"], tensors["k"], tensors["v"])
    compare(f"data at an odd offset, {padding}", file, [], problem.row, dense_rows(tensors))

# 8-bit keys and values with a scale for each token and block of channels.
tensors = qkv()
whole, file_tensors = {"q": tensors["q"]}, {"q": tensors["q"]}
for key in "kv":
    small = Tensor("I8", [2, 7, 2, 8], [round(20 * x) for x in tensors[key].values])
    scale = Tensor("F32", [2, 7, 2, 2], [0.01 + 0.001 * i for i in range(56)])
    whole[key] = Tensor(
        "F32", [2, 7, 2, 8], [x * scale.values[i // 4] for i, x in enumerate(small.values)]
    )
    file_tensors.update({key: small, f"{key}_scale": scale})
problem = Problem(whole["q"], whole["k"], whole["v"])
compare(
    "I8 keys and values",
    write_file(path("i.safetensors"), file_tensors),
    [],
    problem.row,
    dense_rows(whole),
    "F16",
)

# Ragged: sequences behind each other, one of them empty.
q_start, kv_start = [0, 3, 3, 8], [0, 4, 6, 15]
tensors = {
    "q": random_tensor("F32", [1, 8, 4, 8], 1),
    "k": random_tensor("F32", [1, 15, 2, 8], 2),
    "v": random_tensor("F32", [1, 15, 2, 8], 3),
}
file = write_file(
    path("i.safetensors"),
    {**tensors, "q_start": Tensor("I64", [4], q_start), "kv_start": Tensor("I32", [4], kv_start)},
)
problem = Problem(tensors["q"], tensors["k"], tensors["v"], causal=True)


def ragged_row(b, h, i):
    return problem.row(
        0,
        h,
        i,
        q_start[b + 1] - q_start[b],
        kv_start[b + 1] - kv_start[b],
        lambda t: (0, q_start[b] + t),
        lambda j: (0, kv_start[b] + j),
    )


rows = [
    (b, h, i, (0, q_start[b] + i))
    for b in range(3)
    for h in range(4)
    for i in range(q_start[b + 1] - q_start[b])
]
compare("q_start and kv_start", file, ["--causal"], ragged_row, rows)
tap.equal(
    read_file(path("o.safetensors"))["weights"].shape,
    [1, 4, 8, 9],
    "ragged weights are as wide as the longest sequence",
)

# Pages in any order, with unused entries.
table = [4, 0, -1, 2, 5, 1]
tensors = {
    "q": random_tensor("F32", [2, 3, 4, 8], 1),
    "k": random_tensor("F32", [6, 4, 2, 8], 2),
    "v": random_tensor("F32", [6, 4, 2, 8], 3),
}
lengths = [7, 12]
file = write_file(
    path("i.safetensors"),
    {
        **tensors,
        "page_table": Tensor("I32", [2, 3], table),
        "kv_length": Tensor("I64", [2], lengths),
    },
)
problem = Problem(tensors["q"], tensors["k"], tensors["v"], causal=True)
compare(
    "page_table",
    file,
    ["--causal"],
    lambda b, h, i: problem.row(
        b, h, i, kv_length=lengths[b], k_token=lambda j: (table[b * 3 + j // 4], j % 4)
    ),
    dense_rows(tensors),
)

# What is printed.
result = rapt("run", SAMPLE, "--causal", "--verify", "--json", "--device", "cpu", "--threads", 1)
tap.equal(result.code, 0, "the sample: exit code", result.error)
document = json.loads(result.out)
tap.equal(
    set(document) >= {"device", "kernel", "time_ms", "error"}, True, "--json: members", document
)
tap.equal(
    set(document["error"]), {"max_abs", "max_rel", "fraction_of_bound"}, "--json: members of error"
)
tap.ok(0 < document["error"]["fraction_of_bound"] <= 1, "--json: fraction of the bound", document)
tap.ok(
    0 < document["error"]["max_abs"] < 0.01 and document["time_ms"] > 0, "--json: numbers", document
)
tap.equal(document["device"], "cpu", "--json: device")
result = rapt("run", SAMPLE, "--causal")
tap.ok(
    result.code == 0
    and all(
        word in result.out
        for word in ("SmolLM2", "17 of 30", "house that Jack built", "against the file's out")
    ),
    "for people: model, layer, text and error",
    result.out,
    result.error,
)
result = rapt("run", write_file(path("i.safetensors"), qkv()), "--json")
tap.equal(json.loads(result.out)["error"], None, "no error without an answer to compare with")
result = rapt("run", SAMPLE, "--json")
tap.ok(
    json.loads(result.out)["error"]["max_abs"] > 0.1,
    "another problem than the file's answer has a large error",
    result.out,
)

# What was computed, and what was not read, in words and in JSON.
optional = {
    "bias": random_tensor("F32", [2, 4, 5, 7], 4),
    "sink": random_tensor("F32", [4], 5),
    "kv_length": Tensor("I64", [2], [3, 7]),
}
extra = {"maks": random_tensor("F32", [2], 1), "out": random_tensor("F32", [2, 5, 4, 12], 1), "\u00e9": Tensor("U8", [0], [])}
file = write_file(path("i.safetensors"), {**qkv(values=12), **optional, **extra})
options = ["--window", "3,-1", "--align", "top-left", "--softcap", "1.5", "--scale", "0.25"]
problem = (
    "f32, batch 2, heads 4/2, queries 5, keys 7, channels 8/12, window 3,-1, top-left, softcap 1.5, scale 0.25"
    "; with bias, sink, kv_length"
)
result = rapt("run", file, *options)
shown = dict(line.split(None, 1) for line in result.out.splitlines())
tap.equal((shown["problem"], set(shown["ignored"].split(", "))), (problem, {"maks", "é"}), "the problem, and what is ignored")
document = json.loads(rapt("run", file, *options, "--json").out)
tap.equal((document["problem"], set(document["ignored"])), (problem, {"maks", "é"}), "the same in JSON")
result = rapt("run", SAMPLE, "--causal")
tap.ok("channels 64, causal\n" in result.out and "ignored" not in result.out, "nothing ignored, no option", result.out)
tap.equal(json.loads(rapt("map", file, "-o", path("x.png"), "--json").out)["ignored"], document["ignored"], "map names them too")

# Times are milliseconds.
start = monotonic()
document = json.loads(rapt("run", SAMPLE, "--json", "--device", "cpu").out)
tap.ok(document["time_ms"] < 1e3 * (monotonic() - start), "--json: time_ms", document)

# Against a stored answer: equal values weigh to themselves, so each result is 2.
even = {
    "q": random_tensor("F32", [1, 3, 2, 4], 1),
    "k": random_tensor("F32", [1, 5, 2, 4], 2),
    "v": Tensor("F32", [1, 5, 2, 4], [2.0] * 40),
}


def answered(out, *arguments):
    return rapt("run", write_file(path("answer"), {**even, "out": out}), "--device", "cpu", *arguments)


for dtype in ("F64", "F32", "F16", "BF16"):
    stored = Tensor(dtype, [1, 3, 2, 4], [2.0] * 23 + [-4.0])
    error = json.loads(answered(stored, "--json").out)["error"]
    tap.near(error["max_abs"], 6, 1e-5, f"a stored {dtype}: the largest difference")
    tap.near(error["max_rel"], 1.5, 1e-5, f"a stored {dtype}: relative to the largest value")
result = answered(Tensor("F32", [1, 3, 2, 4], [2.0] * 23 + [math.nan]))
tap.ok("at most inf" in result.out, "a stored NaN is no 2", result.out, result.error)
for shape in ([2, 3, 2, 4], [1, 2, 2, 4], [1, 3, 1, 4], [1, 3, 2, 3], [3, 2, 4]):
    stored = Tensor("F32", shape, [2.0] * math.prod(shape))
    refused(tap, answered(stored), f"a stored answer of {shape}", "shape [1, 3, 2, 4]")
stored = Tensor("I32", [1, 3, 2, 4], [2] * 24)
refused(tap, answered(stored), "a stored answer of integers", "I32 (F64, F32, F16 or BF16)")

# Notes of a file are one line each, whatever they hold.
notes = {"model": "a\x1b[31mred\x7f\n\nline", "title": "x" * 100, "layer": "\x1b" + "\u00e9" * 80}
result = rapt("run", write_file(path("noted"), even, notes), "--device", "cpu")
tap.ok(
    f"model     a [31mred line\ntitle     {'x' * 78} ...\nlayer     {'é' * 78} ...\n" in result.out,
    "notes without control characters",
    repr(result.out),
)

# The types of out.
for dtype in ("F16", "BF16"):
    same = {key: Tensor(dtype, t.shape, t.values) for key, t in even.items()}
    file = write_file(path("types"), same)
    for name in ("f32", dtype.lower()):
        result = rapt("run", file, "--out-dtype", name, "-o", path("typed"), "--device", "cpu")
        got = read_file(path("typed"))["out"].dtype if result.code == 0 else result.error
        tap.equal(got, name.upper(), f"{dtype}, --out-dtype {name}")

# A wrong result is exit code 1: a stand-in driver takes launches and computes nothing.
fakes = os.path.join(os.path.dirname(RAPT), "tests", "fake_drivers", "libcuda.so")
if os.path.exists(fakes):
    with open(path("idle"), "w") as file:
        file.write("fake sm_90 flash")
    idle = {
        "RAPT_CUDA_LIBRARY": os.path.abspath(fakes),
        "FAKE_ARCH": "sm_90",
        "FLASH_ATTENTION_CUBIN": path("idle"),
    }
    on_it = ("--device", "cuda:0", "--kernel", "flash")
    result = rapt("run", SAMPLE, "--causal", "--verify", *on_it, environment=idle)
    tap.ok(
        result.code == 1 and "WRONG" in result.out,
        "run --verify: wrong is exit code 1",
        result.out,
        result.error,
    )
    result = rapt("run", SAMPLE, "--causal", "--kernel", "cpu_scalar", environment=idle)
    tap.ok(
        result.code == 0 and "device    cpu" in result.out and "cuda:0" in result.error,
        "a device that refuses says so and leaves the problem to the next",
        result.out,
        result.error,
    )
    result = rapt("check", "--select", "semantics/plain-f16", *on_it, environment=idle)
    tap.ok(
        result.code == 1 and "semantics/plain-f16" in result.error,
        "check: wrong is exit code 1",
        result.out,
        result.error,
    )
else:
    tap.ok(True, "wrong is exit code 1 # SKIP no stand-in driver")

# A kernel by its name gives the same answer; one that is not there is refused.
names = [
    k["name"]
    for k in json.loads(rapt("info", "--json").out)["kernels"]
    if k["backend"] == "cpu" and k["op"] == "forward" and k["present"]
]
tap.ok(len(names) > 0, "there are kernels for the CPU", names)
best = json.loads(rapt("run", SAMPLE, "--causal", "--json", "--device", "cpu").out)["kernel"]
result = rapt("run", SAMPLE, "--causal", "--verify", "--json", "--kernel", "cpu")
tap.ok(
    result.code == 0 and json.loads(result.out)["kernel"] == best,
    "--kernel cpu: the CPU's best, whatever else is here",
    result.out,
    result.error,
)
for name in names:
    result = rapt(
        "run", SAMPLE, "--causal", "--verify", "--json", "--kernel", name, "--device", "cpu"
    )
    if result.code == 3:
        tap.ok(
            name in result.error or "bf16" in result.error,
            f"--kernel {name}: refused with a reason",
            result.error,
        )
    else:
        tap.ok(
            result.code == 0 and json.loads(result.out)["kernel"] == name,
            f"--kernel {name}",
            result.out,
            result.error,
        )
result = rapt("run", SAMPLE, "--kernel", "no_such_kernel")
tap.ok(
    result.code in (2, 3) and "no_such_kernel" in result.error,
    "--kernel: an unknown one",
    result.error,
)
refused(tap, rapt("run", SAMPLE, "--device", "cuda:97"), "--device: one that is not there", "cuda:97", 3)
refused(tap, rapt("run", SAMPLE, "--device", "cpu:7"), "--device: a second CPU", "there is no device cpu:7 on this machine", 3)

# Equal runs write equal bytes, and an output is replaced only by a whole one.
rapt("run", SAMPLE, "--causal", "-o", path("a.safetensors"), "--weights")
rapt("run", SAMPLE, "--causal", "-o", path("b.safetensors"), "--weights", "--threads", 1)
with open(path("a.safetensors"), "rb") as a, open(path("b.safetensors"), "rb") as b:
    tap.ok(a.read() == b.read(), "one thread and all give the same bits")
with open(path("kept"), "w") as file:
    file.write("precious")
refused(
    tap, rapt("run", path("kept"), "-o", path("a2")), "a file that is no safetensors file", "header"
)
write_file(path("odd"), {**qkv(), "q": random_tensor("F32", [2, 5, 3, 8], 1)})
refused(tap, rapt("run", path("odd"), "-o", path("kept")), "3 query heads over 2 KV heads", "head")
with open(path("kept")) as file:
    tap.equal(file.read(), "precious", "a failed run leaves the output file as it was")
os.chmod(path("kept"), 0o640)
rapt("run", SAMPLE, "-o", path("kept"))
tap.ok(
    "out" in read_file(path("kept")) and os.stat(path("kept")).st_mode & 0o777 == 0o640,
    "an output is replaced and keeps its mode",
)
write_file(path("i.safetensors"), qkv())
with open(path("i.safetensors"), "rb") as file:
    before = file.read()
os.link(path("i.safetensors"), path("hard"))
os.symlink("i.safetensors", path("soft"))
for name in ("i.safetensors", "hard", "soft"):
    refused(
        tap,
        rapt("run", path("i.safetensors"), "-o", path(name)),
        f"-o is the input, as {name}",
        "input",
    )
with open(path("i.safetensors"), "rb") as file:
    tap.equal(file.read() == before, True, "the input is untouched")
refused(tap, rapt("run", path("i.safetensors"), "-o", here), "-o is a folder", "regular")
refused(tap, rapt("run", path("i.safetensors"), "-o", "/dev/null"), "-o is a device", "regular")
refused(
    tap,
    rapt("run", path("i.safetensors"), "-o", path("no/such/folder")),
    "-o in a folder that is not there",
    "No such",
)


def interrupted(arguments, target):
    """Ends a run by SIGINT while it writes beside target: its exit code, and what target holds then."""
    for _ in range(20):  # a run that is done before the signal comes proves nothing
        with open(target, "w") as file:
            file.write("precious")
        process = subprocess.Popen(
            [RAPT, *arguments],
            stdout=subprocess.DEVNULL,  # and SIGINT as a terminal has it: shells ignore it in the background
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while process.poll() is None:
            beside = [f for f in os.listdir(here) if f.startswith(os.path.basename(target) + ".")]
            try:
                if any(os.stat(path(f)).st_size for f in beside):
                    process.send_signal(signal.SIGINT)
                    break
            except FileNotFoundError:
                pass
        if process.wait() != 0:
            break
    with open(target, "rb") as file:
        return process.returncode, file.read(8)


for name, sizes in (("no sequences", {"batch": 0}), ("no queries", {"queries": 0})):
    write_file(path("empty"), qkv(**sizes))
    result = rapt("run", path("empty"), "--weights", "--verify", "-o", path("o.safetensors"))
    tap.ok(result.code == 0 and "the results are empty" in result.out, name, result.out, result.error)
    tap.equal(read_file(path("o.safetensors"))["weights"].shape[3], 7, f"{name}: the keys of the weights")


for name, tensors in (("no keys", qkv(keys=0)), ("a mask that hides all", {**qkv(), "mask": Tensor("U8", [1, 1, 5, 7], [0] * 35)})):
    result = rapt("run", write_file(path("empty"), tensors), "--verify")
    tap.ok(
        result.code == 0 and "right: 360 elements compared with the f64 definition, no difference" in result.out,
        f"{name}: zeros are a result",
        result.out,
        result.error,
    )

write_file(path("long"), qkv(batch=1, queries=2000, keys=2000))
tap.equal(
    interrupted(["run", path("long"), "--weights", "-o", path("kept")], path("kept")),
    (-signal.SIGINT, b"precious"),
    "Ctrl-C while a file is written leaves the old one",
)


def no_room():
    """Writes fail past 64 bytes, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))


with open(path("kept"), "wb") as file:
    file.write(b"precious")
for command in (["run", SAMPLE], ["map", SAMPLE, "--size", "240"]):
    result = subprocess.run(
        [RAPT, *command, "-o", path("kept")], capture_output=True, text=True, preexec_fn=no_room
    )
    with open(path("kept"), "rb") as file:
        tap.ok(
            result.returncode == 2 and "too large" in result.stderr and file.read() == b"precious",
            f"{command[0]}: no room for the output leaves the old one",
            result.returncode,
            result.stderr,
        )
tap.equal(
    sorted(f for f in os.listdir(here) if "." in f and len(f.rsplit(".", 1)[1]) == 6),
    [],
    "no temporary file is left",
)

# Use.
for arguments, word in [
    ([], "no file"),
    ([SAMPLE, SAMPLE], "more than one"),
    ([SAMPLE, "--window", "3"], "L,R"),
    ([SAMPLE, "--window", "3,x"], "x"),
    ([SAMPLE, "--window=-2,0"], "-2"),
    ([SAMPLE, "--softcap", "nan"], "nan"),
    ([SAMPLE, "--softcap", "-1"], "-1"),
    ([SAMPLE, "--softcap", "0"], "0"),
    ([SAMPLE, "--scale", "inf"], "inf"),
    ([SAMPLE, "--scale", "0"], "0"),
    ([SAMPLE, "--scale", "1e999"], "1e999"),
    ([SAMPLE, "--align", "middle"], "middle"),
    ([SAMPLE, "--layout", "tbhd"], "tbhd"),
    ([SAMPLE, "--threads", "0"], "0"),
    ([SAMPLE, "--threads", "2.5"], "2.5"),
    ([SAMPLE, "--device", "tpu"], "tpu"),
    ([SAMPLE, "--device", "cuda:x"], "cuda:x"),
    ([SAMPLE, "--device", "cpu:-1"], "cpu:-1"),
    ([SAMPLE, "--out-dtype", "i8"], "i8"),
    ([SAMPLE, "--no-such-option"], "no-such-option"),
    ([SAMPLE, "-o", ""], "empty"),
    ([os.path.join(here, "none")], "No such"),
    ([here], "regular"),
]:
    refused(
        tap,
        rapt("run", *arguments),
        f"run {' '.join(os.path.basename(str(a)) for a in arguments)}",
        word,
    )
tap.plan()
