"""tables_cpu.py: the tables about CPUs, for tables.py.

Of the rows of one problem, kernel and number of threads those of the last commit in the file count; a table shows the one with the median
time, or for the separate operations the median of the shares."""
import statistics

from tables import load

PREFILL = ("f32 b1 h32/8 q512 kv512 d128 causal", "f32 b1 h32/8 q2048 kv2048 d128 causal", "f32 b1 h32/8 q2048 kv2048 d128",
           "f16 b1 h32/8 q512 kv512 d128 causal", "f16 b1 h32/8 q2048 kv2048 d128 causal", "f16 b1 h32/8 q2048 kv2048 d128",
           "bf16 b1 h32/8 q512 kv512 d128 causal", "bf16 b1 h32/8 q2048 kv2048 d128 causal", "bf16 b1 h32/8 q2048 kv2048 d128",
           "bf16 b1 h32/8 q512 kv512 d128 causal kv-i8", "bf16 b1 h32/8 q2048 kv2048 d128 causal kv-i8",
           "bf16 b1 h32/8 q2048 kv2048 d128 kv-i8", "bf16 b1 h32/8 q512 kv8192 d128 causal kv-i8 block32",
           "f32 b4 h12 q512 kv512 d64", "bf16 b4 h12 q512 kv512 d64", "f32 b1 h16 q2048 kv2048 d256 causal",
           "f32 b1 h16 q2048 kv2048 d96 causal", "f32 b1 h32 q16 kv16 d128", "bf16 b1 h32 q16 kv16 d128")
DECODE = "b1 h32/8 q1 kv32768 d128"
FEW = "b1 h32 q16 kv16 d128"
PACKED = "f47670e"  # the last commit that packed K and V of few tokens
OPERATIONS = (  # title, problems by type; a list of several per cell stands for their forms
    ("rope f32, half-split / interleaved", [["rope f32 b1 h32 q8192 d128", "rope f32 b1 h32 q8192 d128 interleaved"]]),
    ("rope f16", [["rope f16 b1 h32 q8192 d128", "rope f16 b1 h32 q8192 d128 interleaved"]]),
    ("rope bf16", [["rope bf16 b1 h32 q8192 d128", "rope bf16 b1 h32 q8192 d128 interleaved"]]),
    ("softmax of 2048 columns f32, f16, bf16", [[f"softmax {t} b1 h32 q1024 kv2048"] for t in ("f32", "f16", "bf16")]),
    ("kv_append f32, f16, bf16", [[f"kv_append {t} b1 h8 q16384 kv16384 d128"] for t in ("f32", "f16", "bf16")]),
    ("kv_append with RoPE f32, f16, bf16", [[f"kv_append {t} b1 h8 q16384 kv16384 d128 rope"] for t in ("f32", "f16", "bf16")]),
    ("kv_replicate 8 to 32 heads f32, f16, bf16",
     [[f"kv_replicate {t} b1 h32/8 q{n} kv{n} d128"] for t, n in (("f32", 4096), ("f16", 8192), ("bf16", 8192))]),
    ("causal_mask f32, f16, bf16", [[f"causal_mask {t} b1 h32 q{n} kv{n}"] for t, n in (("f32", 1024), ("f16", 1536), ("bf16", 2048))]))
PEERS = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "ggml": "ggml"}


def last(rows, problem, threads, kernel=None, but=()):
    """The rows of the last commit; kernel: the beginning of a name that must match, and with None the fastest kernels'."""
    found = [r for r in rows if r["problem"] == problem and int(r["threads"]) == threads and
             (r["kernel"] == kernel if kernel else r["kernel"] != "cpu_avx2")]
    return [r for r in found if r["commit"] == found[-1]["commit"]]


def middle(rows):
    return sorted(rows, key=lambda r: float(r["time_ms_median"]))[(len(rows) - 1) // 2] if rows else None


def of_peak(r):
    return f"{float(r['percent_of_ceiling']):.0f} % of {float(r['ceiling']):.0f} {r['ceiling_unit']}"


def prefill(rows, avx2_too=True):
    lines = ["| problem | 1 thread | 2 threads | 2 against 1 |" + avx2_too * " 1 thread, AVX2 |", "|---|---|---|---|" + avx2_too * "---|"]
    for problem in PREFILL:
        one, two, avx2 = (middle(last(rows, "forward " + problem, n, kernel)) for n, kernel in ((1, None), (2, None), (1, "cpu_avx2")))
        if not one or not two:
            continue
        ratio = float(one["time_ms_median"]) / float(two["time_ms_median"])
        level = f" {float(avx2['percent_of_ceiling']):.0f} % |" if avx2 else avx2_too * " |"
        lines.append(f"| {problem} | {of_peak(one)} | {of_peak(two)} | {ratio:.2f}x |{level}")
    return lines


def few(rows):
    """16 tokens on one thread: medians and least times."""
    def cell(found):
        median = statistics.median(float(r["time_ms_median"]) for r in found)
        return f"{1e3 * median:.0f}, {1e3 * min(float(r['time_ms_min']) for r in found):.0f}"
    lines = ["| 32 heads, 16 tokens, 128 channels, one thread | packed, us: median, least | in place, us: median, least |", "|---|---|---|"]
    for dtype in ("f32", "bf16"):
        for causal in ("", " causal"):
            found = [r for r in rows if r["problem"] == f"forward {dtype} {FEW}{causal}" and r["threads"] == "1"]
            packed = [r for r in found if r["commit"] == PACKED]
            lines.append(f"| {dtype}{causal} | {cell(packed)} | {cell(last(rows, found[0]['problem'], 1))} |")
    return lines


def decode(rows):
    problems = dict.fromkeys(r["problem"] for r in rows if DECODE in r["problem"])
    lines = ["| problem | 1 thread | 2 threads |", "|---|---|---|"]
    for problem in problems:
        cells = [middle(last(rows, problem, n)) for n in (1, 2)]
        lines.append(f"| {problem.removeprefix('forward ')} | " + " | ".join(
            f"{float(r['time_ms_median']):.2f} ms, {of_peak(r)}" for r in cells) + " |")
    return lines


def operations(rows):
    shares, lines = [], ["| operation, arrays beyond the caches | 1 thread | 2 threads |", "|---|---|---|"]
    for title, cells in OPERATIONS:
        columns = []
        for threads in (1, 2):
            found = [[last(rows, problem, threads) for problem in forms] for forms in cells]
            found = [[runs for runs in forms if runs] for forms in found]
            values = [[statistics.median(float(r["percent_of_ceiling"]) for r in runs) for runs in forms] for forms in found]
            ceilings = [float(r["ceiling"]) for forms in found for runs in forms for r in runs]
            shares += [v for forms in values for v in forms]
            columns.append(", ".join(" / ".join(f"{v:.0f} %" for v in forms) or "-" for forms in values) +
                           (f" of {min(ceilings):.0f} to {max(ceilings):.0f} GB/s" if ceilings else ""))
        lines.append(f"| {title} | " + " | ".join(columns) + " |")
    reached = sum(round(v) >= 80 for v in shares)
    return [f"{reached} of the {len(shares)} shares reach 80 %.", ""] + lines


def peers(rows):
    """Two threads in full, one by its lead; prefill before decode."""
    found = {}
    for r in rows:
        found.setdefault(r["problem"], {}).setdefault(int(r["threads"]), {})[r["engine"]] = float(r["median_ms"])
    lines = ["| problem, 2 threads | rapt ms | " + " | ".join(f"{name} ms" for name in PEERS.values()) +
             " | rapt ahead of the best by | 1 thread: ahead by |", "|---|---|" + "---|" * (len(PEERS) + 2)]
    lead = lambda times: f"{min(t for n, t in times.items() if n != 'rapt') / times['rapt']:.2f}x" if times else "-"
    for problem in sorted(found, key=lambda p: (" q1 " in p, ("f32", "f16", "bf16").index(p.split()[1]))):
        one, two = found[problem].get(1), found[problem][2]
        lines.append(f"| {problem.removeprefix('forward ')} | {two['rapt']:.2f} | " +
                     " | ".join(f"{two[p]:.2f}" if p in two else "-" for p in PEERS) + f" | {lead(two)} | {lead(one)} |")
    return lines


def amx_peers(rows):
    """Against PyTorch alone, by threads."""
    found = {}
    for r in rows:
        found.setdefault(r["problem"], {}).setdefault(int(r["threads"]), {})[r["engine"]] = float(r["median_ms"])
    counts = sorted({int(r["threads"]) for r in rows})
    lines = ["| rapt and PyTorch, ms | " + " | ".join(f"{n} thread{'s' if n > 1 else ''}" for n in counts) + " |", "|---|" + "---|" * len(counts)]
    for problem, by in found.items():
        cells = [f"{by[n]['rapt']:.2f}, {by[n]['torch']:.2f} ({by[n]['torch'] / by[n]['rapt']:.2f}x)" for n in counts]
        lines.append(f"| {problem.removeprefix('forward ')} | " + " | ".join(cells) + " |")
    return lines


OPTIONS = [f"forward {t} b1 h32/8 q2048 kv2048 d128{o}" for t in ("bf16", "f16", "f32")
           for o in (" softcap50", " mask", " bias", " alibi causal")]


def options(rows):
    """Prefill with score options, one thread: the first commit in the file and the last."""
    lines = ["| problem, ms | before | in the pipeline | gain |", "|---|---|---|---|"]
    for problem in OPTIONS:
        found = [r for r in rows if r["problem"] == problem and r["threads"] == "1"]
        before, now = (statistics.median(float(r["time_ms_median"]) for r in found if r["commit"] == found[i]["commit"]) for i in (0, -1))
        lines.append(f"| {problem.removeprefix('forward ')} | {before:.0f} | {now:.0f} | {before / now:.2f}x |")
    return lines


LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)


def lengths(rows):
    """Percent of the ceiling on one and two threads, 8 query heads over 2 KV heads."""
    kinds = [(t, m) for t in ("f32", "f16", "bf16") for m in (" causal", "")]
    lines = ["| percent, 1 and 2 threads | " + " | ".join(t + (m or " full") for t, m in kinds) + " |", "|---|" + "---|" * len(kinds)]
    for n in LENGTHS:
        found = [[middle(last(rows, f"forward {t} b1 h8/2 q{n} kv{n} d128{m}", c)) for c in (1, 2)] for t, m in kinds]
        lines.append(f"| {n} tokens | " + " | ".join(", ".join(f"{float(r['percent_of_ceiling']):.0f}" for r in pair) for pair in found) + " |")
    return lines


def tables():
    rows, lake, zen5 = load("cpu.csv"), load("cpu-cascade-lake.csv"), load("cpu-zen5.csv")
    return {"cpu-prefill": prefill(rows), "cpu-few": few(rows), "cpu-decode": decode(rows),
            "cpu-operations": operations(load("cpu-operations.csv")), "cpu-peers": peers(load("cpu-peers.csv")),
            "lake-prefill": prefill(lake, avx2_too=False), "lake-decode": decode(lake),
            "lake-operations": operations(load("cpu-cascade-lake-operations.csv")), "lake-peers": peers(load("cpu-cascade-lake-peers.csv")),
            "zen5-prefill": prefill(zen5, avx2_too=False), "zen5-decode": decode(zen5),
            "zen5-operations": operations(load("cpu-zen5-operations.csv")), "zen5-peers": peers(load("cpu-zen5-peers.csv")),
            "amx-prefill": prefill(load("cpu-amx.csv"), avx2_too=False), "amx-decode": decode(load("cpu-amx.csv")), "amx-options": options(load("cpu-amx.csv")),
            "amx-lengths": lengths(load("cpu-amx-lengths.csv")), "amx-operations": operations(load("cpu-amx-operations.csv")),
            "amx-peers": peers(load("cpu-amx-peers.csv")), "emerald-peers": amx_peers(load("cpu-emerald-rapids-peers.csv"))}
