"""trace_gpu.py: where the clocks of one multiprocessor go in the forward kernels of sm_90a, and a picture of it.

usage: python3 bench/trace_gpu.py [--plain build/librapt.so] [--traced build/trace/librapt.so] [--csv rows.csv]
       python3 bench/trace_gpu.py --draw [--csv rows.csv] [--out docs/images/h200-timeline.png]

`make trace-gpu` builds the traced library, whose kernels write a clock where each part of a step begins (sm90_trace.h). The first form runs
both libraries in turn on the same tensors and leaves the stamps of one block of threads, with the time of a launch without and with
stamps; it needs PyTorch. The second draws them (matplotlib)."""
import argparse
import csv
import datetime
import os
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "bench", "peers"))
FIELDS = "date commit gpu driver case kernel us traced_us actor block point clock".split()
CASES = (("D128 causal", 16, 128, True), ("D128 full", 16, 128, False), ("D64 full", 32, 64, False), ("D256 full", 8, 256, False))
BATCH, TOKENS, ACTORS, STEPS = 8, 2048, 4, 64  # the last two as in sm90_trace.h
AROUND = 15000  # clocks before and behind the second change of tiles, of which the stamps are kept
LOADS = ("q", "k", "v")


def points():
    """What begins at the stamps of a step, in their order."""
    with open(os.path.join(ROOT, "src", "gpu", "kernels", "nvidia", "sm90_trace.h"), encoding="ascii") as f:
        return [name.lower() for name in re.findall(r"^    TRACE_(\w+)", f.read(), re.M)][1:-1]


def run(options):
    import torch
    from pytorch_gpu import by_graph
    from rapt import append_rows
    from rapt_torch import Rapt
    plain, traced = Rapt(options.plain), Rapt(options.traced)
    out = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.strip()
    head = {"date": datetime.date.today().isoformat(), "commit": options.commit or out("git", "rev-parse", "--short", "HEAD"),
            "gpu": torch.cuda.get_device_name(), "driver": out("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")}
    names, rows = points(), []
    words = STEPS * (len(names) + 1)  # of an actor
    for case, heads, channels, causal in CASES:
        q, k, v, o = (torch.randn(BATCH, TOKENS, heads, channels, device="cuda", dtype=torch.bfloat16) for _ in range(4))
        results = BATCH * heads * TOKENS
        memory = torch.zeros(max(results, 2 * torch.cuda.get_device_properties(0).multi_processor_count * ACTORS * words), device="cuda")
        lse = memory[:results].view(BATCH, heads, TOKENS)
        calls = {"plain": plain.forward(q, k, v, o, lse, causal=int(causal)), "traced": traced.forward(q, k, v, o, lse, causal=int(causal))}
        us = by_graph(calls, 24)
        memory.zero_()
        calls["traced"]()
        torch.cuda.synchronize()
        found = (memory.view(torch.int32)[:ACTORS * words].to(torch.int64) & 0xffffffff).view(ACTORS, words).cpu().tolist()
        print(f"{case}: {calls['traced'].kernel}, {us['plain']:.1f} us, with stamps {us['traced']:.1f}", flush=True)
        stamps = [(0, what >> 8, LOADS[what & 255], clock) for clock, what in zip(found[0][::2], found[0][1::2]) if clock]
        for actor in range(1, ACTORS):
            for block, *clocks in zip(*(found[actor][i::len(names) + 1] for i in range(len(names) + 1))):
                stamps += [(actor, block, name, clock) for name, clock in zip(names, clocks) if clock]
        middle = sorted(clock for actor, _, point, clock in stamps if actor == 1 and point == "output")[1]
        first = middle - AROUND
        stamps = [stamp for stamp in stamps if 0 <= stamp[3] - first < 2 * AROUND]
        rows += [dict(head, case=case, kernel=calls["traced"].kernel, us=f"{us['plain']:.1f}", traced_us=f"{us['traced']:.1f}", actor=actor,
                      block=block, point=point, clock=clock - first) for actor, block, point, clock in stamps]
    append_rows(options.csv, FIELDS, rows)
    print(f"{len(rows)} lines in {options.csv}")


# What a warpgroup does from such a stamp to the next one.
PHASES = {"step": ("waits for K and its turn", "#d9d9d9"), "ask": ("asks for q k\u1d40 and p v", "#30638e"), "scores": ("waits for a product", "#9ecae1"),
          "early": ("mask, first weights", "#f4a259"), "values": ("waits for a product", "#9ecae1"), "weights": ("other weights, rounding", "#d1495b"),
          "output": ("output of the tile before", "#8a9a5b")}
DRAWN = 9000  # clocks before and behind the change of tiles


def lanes(rows):
    """{actor: [(clock, point, block)]} of one case, in the order of the clock."""
    found = {}
    for row in rows:
        found.setdefault(int(row["actor"]), []).append((int(row["clock"]), row["point"], int(row["block"])))
    return {actor: sorted(stamps) for actor, stamps in found.items()}


def draw_case(axis, rows):
    producer, *groups = (stamps for _, stamps in sorted(lanes(rows).items()))
    for clock, point, block in producer:
        y = {"q": 0.1, "k": 0.15, "v": -0.25}[point]
        axis.plot([clock, clock], [-0.35, 0.35] if point == "q" else [y - 0.1, y + 0.2], color="#444444", linewidth=2.5 if point == "q" else 1)
        if -DRAWN < clock - AROUND < DRAWN:
            axis.text(clock + 40, y, point.upper() if point == "q" else f"{point.upper()}{block}", fontsize=6, va="center", clip_on=True)
    for lane, stamps in enumerate(groups, 1):
        for (clock, point, block), (end, _, _) in zip(stamps, stamps[1:]):
            axis.barh(-lane, end - clock, left=clock, height=0.55, color=PHASES[point][1])
            if point == "ask":
                axis.text((clock + end) / 2, -lane, str(block), fontsize=6, color="white", ha="center", va="center", clip_on=True)
    axis.set_yticks([-lane for lane in range(len(groups) + 1)], ["producer", *(f"warpgroup {i}" for i in range(1, len(groups) + 1))], fontsize=7)
    axis.set_xlim(AROUND - DRAWN, AROUND + DRAWN)
    axis.set_ylim(-len(groups) - 0.5, 0.5)
    axis.set_title(f"{rows[0]['case']} ({rows[0]['kernel']})", fontsize=8, loc="left")
    axis.tick_params(axis="x", labelsize=7)


def draw(options):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    with open(options.csv, newline="", encoding="ascii") as f:
        rows = list(csv.DictReader(f))
    cases = {case: [row for row in rows if row["case"] == case] for case in ("D128 full", "D64 full")}
    figure, axes = plt.subplots(len(cases), 1, figsize=(11, 4.6), sharex=True)
    for axis, found in zip(axes, cases.values()):
        draw_case(axis, found)
    axes[-1].set_xlabel("clocks of the multiprocessor", fontsize=8)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for label, colour in dict(PHASES.values()).items()]
    figure.legend(handles, dict(PHASES.values()), loc="lower center", ncols=len(handles), fontsize=7, frameon=False)
    figure.suptitle(f"One block of threads, bf16, 2048 tokens: {rows[0]['gpu']}, {rows[0]['date']}, {rows[0]['commit']}", fontsize=9)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(options.out, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", default="build/librapt.so")
    parser.add_argument("--traced", default="build/trace/librapt.so")
    parser.add_argument("--csv", default="bench/results/h200-trace.csv")
    parser.add_argument("--commit", default="", help="for the CSV, where git cannot tell")
    parser.add_argument("--draw", action="store_true", help="draw the rows of the CSV")
    parser.add_argument("--out", default="docs/images/h200-timeline.png")
    options = parser.parse_args()
    (draw if options.draw else run)(options)


if __name__ == "__main__":
    main()
