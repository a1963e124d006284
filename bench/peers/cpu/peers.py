"""peers.py: times rapt and its CPU peers on the same tensors, in turn, and checks every result against f64.

One round runs each engine once (or often enough to fill 20 ms) and waits between engines until this process rests, so that no engine's
waiting threads run into the next one's time; the figure is the median of the rounds. An engine whose call takes over SLOW seconds has three rounds. Writes a
CSV and a plot; --append keeps the rows of other problems, so that a comparison can be made in pieces, on one kind of hardware, and --plot
only draws."""
import argparse
import csv
import datetime
import os
import platform
import statistics
import subprocess
import sys
import time

import numpy as np

import engines
import problems


SLOW, PAUSE, PATIENCE = 1.0, 0.003, 1.0  # seconds


def hardware():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        fields = dict(line.split(":", 1) for line in f.read().split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    return f"{fields.get('model name', platform.machine())} family {fields.get('cpu family')} model {fields.get('model')}"


def commit():
    try:
        return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def rest():
    """Waits until no thread of this process runs: PyTorch's look for work for 5 to 20 ms after a call, by the CPU."""
    end = time.perf_counter() + PATIENCE
    while time.perf_counter() < end:
        spent, start = time.process_time(), time.perf_counter()
        time.sleep(PAUSE)
        if time.process_time() - spent < 0.1 * (time.perf_counter() - start):
            return


def measure(problem, threads, names, rounds):
    q, k, v = problems.tensors(problem)
    where, rows = problems.reference_rows(problem, q, k, v)
    prepared = {}
    for name in names:
        engine = engines.ENGINES[name](problem, q, k, v, threads)
        if engine:
            prepared[name] = engine
    calls, times, errors = {}, {name: [] for name in prepared}, {}
    slow = set()
    for name, (run, result, _) in prepared.items():
        start = time.perf_counter()
        run()
        if time.perf_counter() - start > SLOW:
            slow.add(name)
        else:
            start = time.perf_counter()
            run()
        calls[name] = max(1, min(50, int(0.02 / max(time.perf_counter() - start, 1e-7))))
        got = result()
        errors[name] = float(np.abs(np.array([got[b, i, h] for b, i, h in where]) - rows).max() / np.abs(rows).max())
    for number in range(rounds):
        for name, (run, _, _) in prepared.items():
            if name in slow and number >= 3:
                continue
            rest()
            start = time.perf_counter()
            for _ in range(calls[name]):
                run()
            times[name].append((time.perf_counter() - start) / calls[name])
    for run, _, _ in prepared.values():
        getattr(run, "free", lambda: None)()
    return {name: (statistics.median(times[name]), errors[name], prepared[name][2]) for name in prepared}


def plot(rows, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    names = [n for n in engines.ENGINES if any(r["engine"] == n for r in rows)]
    shown = [str(p) for p in problems.PROBLEMS if any(r["problem"] == str(p) for r in rows)]
    counts = sorted({r["threads"] for r in rows})
    figure, panels = plt.subplots(1, len(counts), figsize=(5 * len(counts) + 2, 0.4 * len(shown) + 1.3), sharey=True, squeeze=False)
    colours = dict(zip(engines.ENGINES, ("#d1495b", "#30638e", "#8a9a5b", "#edae49")))
    height = 0.8 / len(names)
    for axes, threads in zip(panels[0], counts):
        for n, name in enumerate(names):
            values = []
            for problem in shown:
                found = {r["engine"]: r["median_ms"] for r in rows if (r["problem"], r["threads"]) == (problem, threads)}
                values.append(found["rapt"] / found[name] if name in found else 0)
            axes.barh([i + (n + 0.5 - len(names) / 2) * height for i in range(len(shown))], values, height, label=name, color=colours[name])
        axes.set_title(f"{threads} thread{'s' if threads > 1 else ''}", fontsize=10)
        axes.set_yticks(range(len(shown)), [problem.replace("forward ", "") for problem in shown], fontsize=7)
        axes.set_xlabel("speed relative to rapt (longer is faster)")
        axes.axvline(1, color="black", linewidth=0.6)
    panels[0][0].set_ylim(len(shown) - 0.4, -0.6)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="lower center", ncols=len(names), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.3 / figure.get_figheight(), 1, 1))
    figure.savefig(path, dpi=120, bbox_inches="tight")


def stored(path):
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="ascii") as f:
        return [row | {"threads": int(row["threads"]), "median_ms": float(row["median_ms"])} for row in csv.DictReader(f)]


def kept(path, here):
    """The rows that --append keeps, which must be of this hardware: a table compares all rows of a file."""
    rows = stored(path)
    others = sorted({r["hardware"] for r in rows} - {here})
    if others:
        sys.exit(f"{path} has rows of {', '.join(others)}, and this machine is {here}: name another folder with --out, or leave out --append")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--engines", default=",".join(engines.ENGINES))
    parser.add_argument("--filter", default="", help="only problems whose line contains one of these, with commas between")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", default="bench/results", help="folder of cpu-peers.csv and cpu-peers.png")
    parser.add_argument("--append", action="store_true", help="keep the rows of problems that are not measured now")
    parser.add_argument("--plot", action="store_true", help="measure nothing: plot the stored rows")
    options = parser.parse_args()
    names, rows, path = options.engines.split(","), [], os.path.join(options.out, "cpu-peers.csv")
    if options.plot:
        plot(stored(path), os.path.join(options.out, "cpu-peers.png"))
        return
    os.makedirs(options.out, exist_ok=True)
    here = hardware()
    before = kept(path, here) if options.append else []
    for threads in map(int, options.threads.split(",")):
        for problem in problems.PROBLEMS:
            if not any(part in str(problem) for part in options.filter.split(",")):
                continue
            found = measure(problem, threads, names, options.rounds)
            best = min((t for n, (t, _, _) in found.items() if n != "rapt"), default=None)
            for name, (seconds, error, kernel) in found.items():
                rows.append({
                    "date": datetime.date.today().isoformat(), "commit": commit(), "hardware": here, "threads": threads,
                    "problem": str(problem), "engine": name, "kernel": kernel, "median_ms": round(seconds * 1e3, 4),
                    "gflops": round(problem.flops / seconds / 1e9, 1), "kv_gbytes_per_s": round(problem.kv_bytes / seconds / 1e9, 2),
                    "error": f"{error:.2e}"})
            times = "  ".join(f"{n} {t * 1e3:.3f} ms (error {e:.0e})" for n, (t, e, _) in found.items())
            ratio = f"  ahead of the best peer: {best / found['rapt'][0]:.2f}x" if best and "rapt" in found else ""
            print(f"T{threads} {problem}: {times}{ratio}", flush=True)
    if not rows:
        sys.exit("no problem matches")
    done = {(r["problem"], r["threads"]) for r in rows}
    rows = [r for r in before if (r["problem"], r["threads"]) not in done] + rows
    with open(path, "w", newline="", encoding="ascii") as f:
        writer = csv.DictWriter(f, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, os.path.join(options.out, "cpu-peers.png"))


if __name__ == "__main__":
    main()
