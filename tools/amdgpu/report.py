#!/usr/bin/env python3
"""report.py: static figures of the AMD matrix-unit rows as a Markdown table, by the compiler's reports, LLVM's machine-code analyser
and the emulator. Estimates: nothing here is a time measured on hardware.

usage: report.py BUILD_FOLDER [PATTERN...]   (make amdgpu-report runs it; needs llvm-mca-22 and the emulator)

The loop is the innermost one with matrix instructions that took most issue cycles when the emulator ran the row on 256 queries and
2048 keys. Shares by the emulator (tests/amdgpu/loops.c): clocks of its matrix instructions among all it issues, one by one or with
units that overlap in order. Share, llvm-mca: clocks in which the matrix unit is busy among the clocks of a pass, one wave alone; LLVM models MFMA as a
unit of its own on CDNA only. LDS conflicts: extra cycles among all of the loop's LDS cycles."""

import fnmatch
import os
import re
import subprocess
import sys


def rows(build):
    """(name, arch, dtype, head size) of each built row on matrix units."""
    with open(f"{build}/gpu/rows.txt") as file:
        for line in file:
            name, arch, vendor, source, *flags = line.split()
            if vendor != "hip" or not source.startswith("amd/"):
                continue
            if os.path.exists(f"{build}/gpu/{name}_{arch}.co"):
                value = dict(f[2:].split("=", 1) for f in flags if f.startswith("-D") and "=" in f)
                yield name, arch, value["DTYPE"][len("DTYPE_") :], int(value["D"])


def resources(build):
    """Lines of resources.txt by (name, arch)."""
    with open(f"{build}/gpu/resources.txt") as file:
        head = re.sub("entry point", "entry", file.readline()).split()
        for line in file:
            name, arch, *values = line.split()
            yield (name, arch), dict(zip(head[1:], values))


def emulate(build, name, arch, dtype, d):
    """What the emulator says of the row's loop."""
    problem = f"forward {dtype} b1 h1 q256 kv2048 d{d} kernel={name}"
    environment = {
        **os.environ,
        "RAPT_HIP_LIBRARY": os.path.abspath(f"{build}/tests/libamdhip64.so"),
        "RAPT_EMULATE": arch,
        "RAPT_EMULATE_STATS": "loop",
    }
    command = [f"{build}/rapt", "bench", "--seconds", "0.001", "--device", "hip:0", problem]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = re.search(
        r"matrix loop code\+0x(\w+)\.\.0x(\w+), \d+ passes: ([\d.]+) instructions \(([\d.]+) matrix\), "
        r"([\d.]+) issue cycles, ([\d.]+)% of them matrix \(([\d.]+)% of [\d.]+ when units overlap in order\); "
        r"LDS conflicts ([\d.]+)%",
        done.stderr,
    )
    if not found:
        sys.exit(f"report.py: {' '.join(command)}\n{done.stdout}{done.stderr}")
    lines = re.findall(r"^loop: ((?!s_c?branch|s_endpgm).*)$", done.stderr, re.M)
    return lines, [float(found[i]) for i in (4, 6, 7, 8)]


def analyse(arch, lines):
    """Clocks of a pass and those of its matrix unit by llvm-mca; None where LLVM has no such unit."""
    passes = 20
    command = ["llvm-mca-22", "-mtriple=amdgcn-amd-amdhsa", f"-mcpu={arch}", f"-iterations={passes}"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True)
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    unit = re.search(r"^\[([\d.]+)\]\s+- HWXDL$", done.stdout, re.M)
    if not total or not unit:
        return None
    head, values = re.search(
        r"Resource pressure per iteration:\n(.*)\n(.*)\n", done.stdout
    ).groups()
    pressure = dict(zip(head.split(), values.split()))
    busy = pressure.get(f"[{unit[1]}]", "-")
    return int(total[1]) / passes, 0.0 if busy == "-" else float(busy)


def main():
    build, patterns = sys.argv[1], sys.argv[2:] or ["*"]
    known = dict(resources(build))
    print(
        "| row | target | VGPRs | SGPRs | LDS KiB | waves/SIMD | matrix instructions | share, one by one | "
        "share, overlapping | share, llvm-mca | LDS conflicts |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, arch, dtype, d in rows(build):
        if not any(fnmatch.fnmatch(f"{name}_{arch}", pattern) for pattern in patterns):
            continue
        lines, (matrix, share, ordered, conflicts) = emulate(build, name, arch, dtype, d)
        mca = analyse(arch, lines)
        busy = f"{100 * mca[1] / mca[0]:.1f} %" if mca and mca[1] else "-"
        r = known[name, arch]
        print(
            f"| {name} | {arch} | {r['registers']} | {r['scalars']} | {int(r['shared']) / 1024:.0f} | {r['waves']} | "
            f"{matrix:.0f} | {share:.1f} % | {ordered:.1f} % | {busy} | {conflicts:.1f} % |",
            flush=True,
        )


main()
