#!/usr/bin/env python3
"""commands.t: `rapt` itself, `rapt info`, `rapt explain`, `rapt bench` and `rapt check`."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from time import monotonic as time_now

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support import *

COMMANDS = ("run", "info", "explain", "bench", "check", "map")
tap = Tap()
here = folder()

# The command itself.
result = rapt("--version")
tap.ok(
    result.code == 0 and re.fullmatch(r"rapt \d+\.\d+\.\d+\n", result.out),
    "--version",
    result.out,
    result.error,
)
version = result.out.split()[1]
with open("include/rapt/rapt.h") as file:
    header = file.read()
tap.equal(
    version,
    ".".join(
        re.search(rf"RAPT_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH")
    ),
    "the version is the header's",
)
for arguments in (["--help"], ["-h"], ["help"]):
    result = rapt(*arguments)
    tap.ok(
        result.code == 0 and all(c in result.out for c in COMMANDS),
        f"{arguments[0]} lists the commands",
    )
result = rapt()
tap.ok(
    result.code == 2 and "Usage" in result.error and not result.out,
    "no command: the usage, on the error stream",
)
result = rapt("runn")
tap.ok(result.code == 2 and "runn" in result.error, "an unknown command is named")
for command in COMMANDS:
    result = rapt(command, "--help")
    tap.ok(
        result.code == 0 and f"rapt {command}" in result.out and "--json" in result.out,
        f"{command} --help",
        result.out,
    )
    tap.ok(
        max(len(line) for line in result.out.splitlines()) <= 80,
        f"{command} --help fits 80 columns",
    )
    result = rapt(command, "--no-such-option")
    tap.ok(
        result.code == 2 and "no-such-option" in result.error and not result.out,
        f"{command}: an unknown option",
    )
for arguments in (["--help"], ["info"], ["info", "--json"], ["check", "--select", "semantics/plain*"]):
    done = subprocess.run(
        [RAPT, *arguments], stdout=open("/dev/full", "w"), stderr=subprocess.PIPE, text=True
    )
    speaker = "rapt" if arguments[0].startswith("-") else f"rapt {arguments[0]}"
    tap.ok(
        done.returncode == 2
        and done.stderr.startswith(f"{speaker}: ")
        and "could not be written" in done.stderr,
        f"{' '.join(arguments)}: a full disk is no success",
        done.returncode,
        done.stderr,
    )

# info
result = rapt("info", "--json")
document = json.loads(result.out)
tap.equal(result.code, 0, "info --json: exit code", result.error)
tap.equal(document["version"], version, "info --json: version")
devices, kernels = document["devices"], document["kernels"]
tap.ok(
    devices and devices[-1]["backend"] == "cpu" and devices[-1]["name"] and devices[-1]["arch"],
    "info --json: the CPU is the last device",
    devices,
)
tap.ok(
    devices[-1]["compute_units"] > 0 and devices[-1]["memory_bytes"] > 0,
    "info --json: threads and memory of the CPU",
    devices,
)
shown = re.search(r"cpu:0 .* ([\d.]+) GiB\n", rapt("info").out)
tap.near(float(shown[1]), devices[-1]["memory_bytes"] / 2**30, 0.06, "info: GiB of the CPU")
tap.ok(
    all({"name", "vendor", "arch", "op", "bytes"} <= set(k) for k in kernels),
    "info --json: members of kernels",
)
tap.ok(
    {k["vendor"] for k in kernels} <= {"nvidia", "amd", "cpu"},
    "info --json: vendors",
    {k["vendor"] for k in kernels},
)
tap.ok(
    any(k["vendor"] == "cpu" and k["present"] for k in kernels),
    "info --json: a kernel for the CPU is present",
)
tap.equal(
    [b["name"] for b in document["backends"]], ["cuda", "hip", "cpu"], "info --json: backends"
)
for backend in document["backends"]:
    found = any(d["backend"] == backend["name"] for d in devices)
    tap.ok(
        found == (backend["note"] is None) and backend["note"] != "",
        f"info --json: {backend['name']} has a device or a reason",
        backend,
    )
objects = [k["bytes"] for k in kernels if k["backend"] != "cpu" and k["bytes"]]
tap.equal(
    document["code_objects"],
    {"count": len(objects), "bytes": sum(objects)},
    "info --json: all code objects together",
)
result = rapt("info")
tap.ok(
    f"{len(objects)} code objects for GPUs in this library, {sum(objects)} bytes" in result.out,
    "info: all code objects together",
    result.out[-200:],
)
tap.ok(
    result.code == 0 and all(k["name"] in result.out for k in kernels),
    "info: every kernel is named",
)
tap.ok(
    all((b["note"] or "")[:40] in result.out for b in document["backends"]),
    "info: reasons are printed",
)

# Each of the nine names of the environment, for both vendors, on stand-ins of their drivers: the rows of that name are shown as
# replaced, and no others.
with open("src/gpu/overrides.def") as file:
    names = re.findall(r"^OVERRIDE\((\w+), (\w+)\)", file.read(), re.M)
tap.equal(len(names), 9, "nine code objects can be replaced")
fakes = os.path.abspath(os.path.join(os.path.dirname(RAPT), "tests", "fake_drivers"))
for library, variable, arch, old, suffix in (
    ("libcuda.so", "RAPT_CUDA_LIBRARY", "sm_90", "sm_75", "CUBIN"),
    ("libamdhip64.so", "RAPT_HIP_LIBRARY", "gfx942", "gfx803", "HSACO"),
):
    if not os.path.exists(os.path.join(fakes, library)):
        tap.ok(True, f"info: overrides # SKIP no stand-in driver {library}")
        continue
    working, broken = (os.path.join(fakes, library.replace(".so", end)) for end in (".so", "_broken.so"))
    name = "hip" if "hip" in library else "cuda"
    for path, begin, reason in (
        ("/no/such/driver.so", "no ", "(/no/such/driver.so: "),
        (broken, "the library has no ", "Init (it is too old or no driver)"),
        (working, f"{name}:0: ", f"{old}, has no code object in this library"),
    ):
        result = rapt("info", environment={variable: path, "FAKE_ARCH": old})
        notes = result.out.split("Kernels")[0]
        tap.ok(  # the backend's name stands once, before its note
            result.code == 0 and re.search(rf"^  {name:5} {begin}.*{re.escape(reason)}", notes, re.M),
            f"info: {library}: {reason}",
            notes,
            result.error,
        )
    unit = "compute units" if "hip" in library else "multiprocessors"
    result = rapt("info", environment={variable: working, "FAKE_ARCH": arch})
    tap.ok(re.search(rf":0 .*, {arch}, \d+ {unit}, ", result.out), f"info: {library}: {unit}", result.out[:300])
    for row, stem in names:
        environment = {
            variable: os.path.join(fakes, library),
            "FAKE_ARCH": arch,
            f"{stem}_{suffix}": f"/no/such/{row}",
        }
        replaced = rapt("info", "--json", environment=environment)
        rows = [k for k in json.loads(replaced.out)["kernels"] if k["override"]]
        printed = rapt("info", environment=environment)
        tap.ok(
            replaced.code == 0
            and rows
            and all(k["name"] == row and k["override"] == f"/no/such/{row}" for k in rows)
            and f"replaced by /no/such/{row}" in printed.out,
            f"info: {stem}_{suffix} is shown",
            rows,
            printed.out,
        )
printed_rows = rapt("info").out.split("\nKernels ")[1:]
listed = [[line.split() for line in part.splitlines()[1:] if line] for part in printed_rows]
tap.equal(
    [row[0] for row in listed[0][1:]],
    [k["name"] for k in kernels if k["present"]],
    "info: the kernels that run here come first, best first",
)
table = [line for part in printed_rows for line in part.splitlines()[1:] if line.strip()]
starts = {re.match(r"  \S+ +\S+ +", line).end() for line in table}
tap.equal(len(starts), 1, "info: columns stand below each other, whatever the names", starts)
tap.ok(
    sorted((row[0], row[1], arch) for row in listed[1] for arch in row[4 + (row[3] == "not") :])
    == sorted((k["name"], k["backend"], k["arch"]) for k in kernels if not k["present"]),
    "info: each other kernel once, with all that it is built for",
    printed_rows[1],
)
result = rapt("info", environment={"RAPT_CPU": "scalar"})
tap.ok(result.code == 0, "info under RAPT_CPU=scalar", result.error)
result = rapt("info", "file")
tap.equal(result.code, 2, "info takes no file")

# explain
LINE = "forward bf16 b1 h4/2 q64 kv64 d32 causal"
result = rapt("explain", "--device", "cpu", LINE)
tap.ok(
    result.code == 0 and result.out.splitlines()[-1].endswith(": runs") and not result.error,
    "explain: the kernel that runs",
    result.out,
    result.error,
)
document = json.loads(rapt("explain", "--device", "cpu", "--json", LINE).out)
ran = json.loads(rapt("bench", "--device", "cpu", "--seconds", 0.01, "--json", LINE).out)
tap.ok(
    document["problem"] == LINE and document["device"] == "cpu" and document["kernel"] == ran["kernel"],
    "explain --json: the kernel that bench takes",
    document,
)
best = [k["name"] for k in kernels if k["backend"] == "cpu" and k["present"]]
document = json.loads(
    rapt("explain", "--device", "cpu", "--json", LINE.replace("bf16", "f32")).out
)
tap.ok(
    [r["kernel"] for r in document["refusals"]] == best[: best.index(document["kernel"])]
    and all(r["reason"] for r in document["refusals"]),
    "explain --json: a reason for each better kernel",
    document,
)
result = rapt("explain", "--device", "cpu", "--kernel", "no_such_kernel", LINE)
tap.ok(
    result.code == 3 and "no_such_kernel: this device has no kernel of that name" in result.out,
    "explain: nothing serves",
    result.out,
    result.error,
)
named = f"{LINE} kernel=cpu_scalar"
tap.ok(
    rapt("explain", "--device", "cpu", named).out.endswith("cpu_scalar: runs\n")
    and json.loads(rapt("explain", "--device", "cpu", "--json", named).out)["kernel"] == "cpu_scalar",
    "explain: the kernel that the line names",
    rapt("explain", "--device", "cpu", named).out,
)
result = rapt("explain", "--device", "cpu", "forward f32 b1000000 h1000000 q1000000 kv1000000 d128")
tap.equal(
    (result.code, result.out, result.error),
    (3, "", "rapt explain: its tensors do not fit into this machine's memory\n"),
    "explain: more than memory holds",
)
result = rapt("explain", "--device", "cpu", "--kernel", "no_such_kernel", named)
tap.ok(result.code == 3 and "no_such_kernel: this" in result.out, "explain: --kernel goes before the line's", result.out)
for arguments, word in [
    ([], "no problem"),
    ([LINE, LINE], "more than one"),
    (LINE.split(), "a line in quotes is one"),
    (["forward zebra"], "zebra"),
    (["rope f32"], "only forward"),
]:
    refused(tap, rapt("explain", *arguments), f"explain {' '.join(arguments)}", word)

# bench
LINE = "forward f32 b1 h4/2 q64 kv64 d32 causal"
DECODE = "forward bf16 b1 h8/2 q1 kv512 d64 window3,0"
quick = ["--seconds", "0.02", "--device", "cpu"]
start = time_now()
result = rapt("bench", *quick, "--json", LINE, DECODE, "softmax f32 b1 h2 q32 kv32")
passed = time_now() - start
tap.equal(result.code, 0, "bench --json: exit code", result.error)
rows = [json.loads(line) for line in result.out.splitlines()]
tap.equal(
    [row["problem"] for row in rows],
    [LINE, DECODE, "softmax f32 b1 h2 q32 kv32"],
    "bench --json: one object a line",
)
for row in rows:
    name = row["problem"].split()[0]
    tap.ok(
        {
            "problem",
            "device",
            "kernel",
            "threads",
            "time_ms",
            "gflops",
            "gbytes_per_s",
            "ceiling",
            "percent_of_ceiling",
        }
        <= set(row),
        f"bench --json {name}: members",
        row,
    )
    time = row["time_ms"]
    tap.ok(
        0 < time["min"] <= time["median"] <= time["max"],
        f"bench --json {name}: times in order",
        time,
    )
    tap.ok(
        1e-3 < row["calls"] * time["median"] * 1e-3 < passed,
        f"bench --json {name}: calls of so many milliseconds fit into the run and fill its seconds",
        row,
        passed,
    )
    tap.ok(
        row["device"] == "cpu" and row["kernel"] and row["threads"] > 0,
        f"bench --json {name}: where",
        row,
    )
    rate = row["gflops"] if row["ceiling_unit"] == "GFLOP/s" else row["gbytes_per_s"]
    tap.near(
        row["percent_of_ceiling"],
        100 * rate / row["ceiling"],
        1e-3 * row["percent_of_ceiling"],
        f"bench --json {name}: percentage of the ceiling",
    )
pairs = 64 * 65 / 2
result = rapt("bench", *quick, LINE)
tap.ok(re.match(r"cpu: .*, \d+ threads?\n\n" + re.escape(LINE), result.out), "bench: the device, then rows", result.out)
shown = re.search(r" ([\d.]+) (m?u?s)  \(.*\)  ([\d.e+]+) GFLOP/s", result.out)
if tap.ok(shown and 1 <= float(shown[1]) < 1000, "bench: a time of at most three digits", result.out):
    seconds = float(shown[1]) * {"s": 1, "ms": 1e-3, "us": 1e-6}[shown[2]]
    tap.near(4 * pairs * 4 * 32 / seconds * 1e-9 / float(shown[3]), 1, 1e-2, "bench: its unit")
tap.near(
    rows[0]["gflops"],
    4 * pairs * 4 * 32 / rows[0]["time_ms"]["median"] * 1e-6,
    1e-4 * rows[0]["gflops"],
    "bench: visible pairs are counted",
)
tap.ok(
    rows[1]["rotated"] > 1 and rows[0]["rotated"] == 1,
    "bench: decode takes K and V in turn, prefill does not",
    rows,
)
rows = rapt("bench", *quick, "--json", "causal_mask f32 b1 h1 q9 kv9", "kv_replicate f32 b1 h2/1 kv9 d8",
            "rope f32 b1 h1 q9 d8").out
rows = [json.loads(line) for line in rows.splitlines()]
tap.near(
    rows[0]["gbytes_per_s"] * rows[0]["time_ms"]["median"] * 1e6,
    4 * 9 * 8 / 2,
    1e-3,
    "bench: a causal mask counts the elements that it hides",
)
tap.ok(
    rows[0]["ceiling_of"].startswith("writes")
    and "read once + written 4 times" in rows[1]["ceiling_of"]
    # Under emulation a copy can be the faster of its two ceilings.
    and (rows[2]["ceiling_of"].startswith("copies") or "RAPT_TEST_EMULATED" in os.environ),
    "bench: the stream that an operation is compared with",
    rows,
)
row = json.loads(rapt("bench", *quick, "--json", "--rotate", 1, DECODE).out)
tap.equal(row["rotated"], 1, "bench --rotate 1")
row = json.loads(rapt("bench", *quick, "--json", "forward f32 b1 h2 q8 kv8 d16").out)
tap.equal(row["rotated"], 1, "bench: a prefill of few tokens finds its keys where they were written")
row = json.loads(rapt("bench", *quick, "--json", "--forward", LINE).out)
tap.ok(row["time_ms"]["median"] > 0 and row["calls"] > 0, "bench --forward", row)
row = json.loads(rapt("bench", *quick, "--json", "--threads", 1, LINE).out)
tap.equal(row["threads"], 1, "bench --threads 1")
table = list(csv.DictReader(io.StringIO(rapt("bench", *quick, "--csv", LINE, DECODE).out)))
tap.equal(
    [row["problem"] for row in table], [LINE, DECODE], "bench --csv: a line each, commas quoted"
)
tap.ok(
    all(float(row["time_ms_median"]) > 0 and float(row["percent_of_ceiling"]) > 0 for row in table),
    "bench --csv: numbers",
    table,
)
lines = os.path.join(here, "lines.txt")
with open(lines, "w") as file:
    file.write(f"# two problems\n\n{LINE}\n  {DECODE}\n")
result = rapt("bench", *quick, "--json", lines)
tap.equal(
    len(result.out.splitlines()), 2, "bench: a file of lines, comments passed over", result.error
)
result = rapt("bench", *quick, "--json", "-", stdin=LINE + "\n")
tap.equal(len(result.out.splitlines()), 1, "bench: lines of the standard input", result.error)
result = rapt("bench", *quick, LINE)
tap.ok(
    result.code == 0
    and all(w in result.out for w in (LINE, "GFLOP/s", "GB/s", "%"))
    # Which ceiling is the nearer one depends on the build: instrumented code is short of bandwidth.
    and any(w in result.out for w in ("in registers", ": reads of")),
    "bench for people",
    result.out,
)
spoiled = os.path.join(here, "spoiled.txt")
with open(spoiled, "w") as file:
    file.write(f"{LINE}\n{LINE} zebra\n")
for arguments, word in [
    ([], "no problem"),
    (["forwards f32"], '"forwards f32" is no file, and as a problem line'),
    (["forwards f32"], "one of forward rope softmax qk pv causal_mask kv_replicate kv_append)"),
    ([here], "Is a directory"),
    ([spoiled], "spoiled.txt:2: "),
    (["forward f32 q"], ""),
    (["forward f32 zebra"], "zebra"),
    ([LINE, "--rotate", "0"], "0"),
    ([LINE, "--seconds", "0"], "0"),
    ([LINE, "--seconds", "3601"], "3601"),
    ([LINE, "--kernel", ""], "empty"),
    ([LINE, "--csv", "--json"], "--csv and --json"),
    ([LINE + " paged0"], "at least 1 token"),
    ([LINE, "--seconds", "x"], "x"),
    (["forward f32 h3/2 q4"], ""),
]:
    refused(tap, rapt("bench", *arguments), f"bench {' '.join(arguments)}", word)
most = 2**63 - 1
for line, code in [
    (f"forward b{most}", 2),
    (f"forward h{most}", 2),
    (f"forward q{most} kv1", 2),
    (f"forward paged{most}", 2),
    (f"forward d{most}", 2),
    ("forward b16777216 h2147483647 q2147483647 kv2147483647 d65536", 3),
    ("softmax b100 q100000 kv1000000", 3),
    ("forward paged2147483647", 3),
]:
    refused(
        tap,
        rapt("bench", *quick, "--json", line),
        f"bench {line}",
        "beyond" if code == 2 else "memory",
        code,
    )
result = rapt("bench", *quick, "softmax b100 q100000 kv1000000", LINE)
tap.ok(result.code == 3 and LINE in result.out, "bench: the worst exit code, and the rest runs", result.error)
result = rapt("bench", *quick, "--kernel", "no_such_kernel", LINE)
tap.ok(
    result.code in (2, 3) and "no_such_kernel" in result.error,
    "bench --kernel: an unknown one",
    result.error,
)

# check
result = rapt("check", "--select", "semantics/*")
tap.ok(
    result.code == 0
    and re.match(r"\d+ right, 0 wrong, 0 not supported here; the nearest .*\n$", result.out)
    and not result.error,
    "check: one line in a pipe when all is right",
    result.out,
    result.error,
)
document = json.loads(
    rapt("check", "--select", "semantics/*,op/*", "--json", "--device", "cpu").out
)
tap.ok(document["right"] > 50 and document["wrong"] == 0, "check --json", document)
tap.ok(
    0 < document["worst_fraction_of_bound"] <= 1, "check --json: the nearest to its bound", document
)
refused(tap, rapt("check", "--select", "tile/many-short"), "check: large problems are for --all", "fits")
result = rapt("check", "--select", "no-such-group/*")
tap.ok(
    result.code == 2 and "no-such-group/*" in result.error,
    "check: nothing selected is no success",
    result.error,
)
result = rapt("check", "--kernel", "no_such_kernel", "--select", "semantics/plain*")
tap.ok(
    result.code == 3 and "no_such_kernel: this device has no kernel of that name" in result.error,
    "check --kernel: an unknown one is no success",
    result.error,
)

CASE = "check: progress and a summary on a terminal"
try:
    main, other = pty.openpty()
except OSError as error:
    tap.ok(True, f"{CASE} # SKIP no terminal can be had: {error}")
else:
    done = subprocess.Popen(
        [RAPT, "check", "--select", "semantics/*", "--device", "cpu"], stdout=other, stderr=other
    )
    os.close(other)
    shown = b""
    try:
        while chunk := os.read(main, 4096):
            shown += chunk
    except OSError:
        pass  # the terminal is gone when the program has ended
    tap.ok(
        done.wait() == 0 and b"semantics/plain" in shown and b"right, 0 wrong" in shown,
        CASE,
        shown[-300:],
    )
tap.plan()
