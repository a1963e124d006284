"""plot_cpu.py: draws percent of the ceiling from the CSV of `rapt bench --csv`: against length, and against threads.

usage: python3 bench/plot_cpu.py [--out FOLDER] CSV...
The lines that are drawn are those of bench/lengths.txt: forward, 8 query heads over 2 KV heads, 128 channels."""
import argparse
import csv
import os
import re

COLOURS = {"f32": "#30638e", "f16": "#8a9a5b", "bf16": "#d1495b"}
LINE = re.compile(r"forward (f32|f16|bf16) b1 h8/2 q(\d+) kv\2 d128( causal)?$")


def read(paths):
    """{(dtype, causal, threads): {length: percent}}"""
    curves = {}
    for path in paths:
        with open(path, newline="", encoding="ascii") as f:
            for row in csv.DictReader(f):
                match = LINE.match(row["problem"])
                if match and row["percent_of_ceiling"]:
                    key = match[1], bool(match[3]), int(row["threads"])
                    curves.setdefault(key, {})[int(match[2])] = float(row["percent_of_ceiling"])
    return curves


def axis(axes, title, label, names):
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(label)
    axes.set_ylim(0, 100)
    axes.set_xticks(range(len(names)), names)
    axes.grid(axis="y", linewidth=0.4)


def against_length(plt, curves, path):
    threads = sorted({key[2] for key in curves})
    lengths = sorted({length for curve in curves.values() for length in curve})
    figure, panels = plt.subplots(1, len(threads), figsize=(5 * len(threads), 4), sharey=True, squeeze=False)
    for panel, count in zip(panels[0], threads):
        axis(panel, f"{count} thread{'s' if count > 1 else ''}", "tokens (queries = keys)", lengths)
        for (dtype, causal, of), curve in sorted(curves.items()):
            if of == count:
                panel.plot([lengths.index(n) for n in sorted(curve)], [curve[n] for n in sorted(curve)], "o--" if causal else "o-",
                           color=COLOURS[dtype], markersize=3, label=f"{dtype} {'causal' if causal else 'full'}")
    panels[0][0].set_ylabel("percent of the multiply-add peak of the type")
    panels[0][0].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def against_threads(plt, curves, path):
    """The share at two lengths against the number of threads: a level line scales without loss."""
    threads = sorted({key[2] for key in curves})
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for panel, length in zip(panels, (512, 2048)):
        axis(panel, f"{length} tokens", "threads", threads)
        for dtype, causal in sorted({key[:2] for key in curves}):
            points = [(threads.index(n), curves[dtype, causal, n].get(length)) for n in threads if (dtype, causal, n) in curves]
            panel.plot([x for x, y in points if y], [y for _, y in points if y], "o--" if causal else "o-", color=COLOURS[dtype],
                       markersize=4, label=f"{dtype} {'causal' if causal else 'full'}")
    panels[0].set_ylabel("percent of the peak of as many threads")
    panels[0].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="docs/images")
    parser.add_argument("csv", nargs="+")
    options = parser.parse_args()
    curves = read(options.csv)
    if not curves:
        raise SystemExit("no line of these files is one of bench/lengths.txt")
    against_length(plt, curves, os.path.join(options.out, "cpu-length.png"))
    against_threads(plt, curves, os.path.join(options.out, "cpu-threads.png"))


if __name__ == "__main__":
    main()
