"""tables_gpu.py: the tables about NVIDIA GPUs, for tables.py, and their plots.

usage: python3 bench/tables_gpu.py     draws docs/images/h100-*.png and h200-*.png (matplotlib)

Of rows with the same protocol, group, case, type and candidate the last one in the file counts; a ratio is of two rows of one run."""
import os
import re

from tables import ROOT, load, mean

LENGTHS = ("512", "1024", "2048", "4096", "8192", "16384", "32768")
PEERS = {"cudnn": "cuDNN", "flash3": "FlashAttention-3", "flash2": "FlashAttention-2", "efficient": "memory-efficient"}
DECODERS = ("cudnn", "flash3", "flash2")
PROTOCOLS = {"graph": "interleaved", "sustained": "sustained"}
COLOURS = {"rapt": "tab:red", "cudnn": "tab:blue", "flash3": "tab:purple", "flash2": "tab:orange", "efficient": "tab:green"}


def run_of(row):
    return row["date"], row["commit"]


def pick(rows, protocol, group, dtype=None):
    """(case, dtype) -> candidate -> row, of the run that rapt's row is of."""
    found = {}
    for r in rows:
        if r["protocol"] == protocol and r["group"] == group and dtype in (None, r["dtype"]):
            found.setdefault((r["case"], r["dtype"]), {})[r["candidate"]] = r
    return {case: {c: r for c, r in each.items() if run_of(r) == run_of(each.get("rapt", r))} for case, each in found.items()}


def pairs(rows, protocol, group, dtype, peer):
    """case -> rows of rapt and of the peer, of the last run that has both."""
    runs, found = {}, {}
    for r in rows:
        runs.setdefault(run_of(r), []).append(r)
    for run in runs.values():
        found.update({case: (f["rapt"], f[peer]) for (case, _), f in pick(run, protocol, group, dtype).items() if "rapt" in f and peer in f})
    return found


def short(length):
    return length if int(length) < 1024 else f"{int(length) // 1024}k"


def head_name(panel):
    return panel.replace("d", "D", 1) if re.match(r"d\d", panel) else panel


def table(cells, row_title):
    """cells: (row, length) -> text."""
    rows = list(dict.fromkeys(r for r, _ in cells))
    lengths = [x for x in LENGTHS if any((r, x) in cells for r in rows)]
    lines = [f"| {row_title} | " + " | ".join(map(short, lengths)) + " |", "|---" * (len(lengths) + 1) + "|"]
    return lines + [f"| {head_name(r)} | " + " | ".join(cells.get((r, x), "-") for x in lengths) + " |" for r in rows]


def summary(ratios, least_below=1.0):
    lost = [f"{head_name(case)} ({ratio:.2f})" for case, ratio in ratios.items() if round(ratio, 2) < least_below]
    text = f"Geometric mean {mean(ratios.values()):.3f}, least {min(ratios.values()):.2f}, {len(lost)} of {len(ratios)} below {least_below:g}"
    return text + (": " + ", ".join(lost) + "." if lost else ".")


def rates(rows, protocol, group, dtype, peer, limit=1.0, absolute=True):
    """TFLOP/s of rapt and its ratio to a peer, by panel and length; then a line about all of them."""
    cells, ratios = {}, {}
    for case, (ours, theirs) in pairs(rows, protocol, group, dtype, peer).items():
        ratio = float(theirs["us"]) / float(ours["us"])
        panel, length = case.rsplit(" ", 1)
        ratios[case] = ratio
        cells[panel, length] = f"{float(ours['tflops']):.0f} ({ratio:.2f})" if absolute else f"{ratio:.2f}"
    if not cells:
        return ["Not measured."]
    order = sorted(cells, key=lambda key: (int(re.sub(r"\D", "", key[0]) or 0), "full" in key[0]) if group in ("grid", "f32") else (0, 0))
    return [summary(ratios, limit), ""] + table({key: cells[key] for key in order}, "heads" if group == "models" else "head size, mask")


def few(rows):
    lines = ["| tokens x heads, 128 channels | rapt us | " + " | ".join(f"{p} us" for p in PEERS.values()) + " | rapt ahead of the best by |",
             "|---" * (len(PEERS) + 3) + "|"]
    for (case, dtype), found in pick(rows, "graph", "tiny").items():
        peers = {p: float(found[p]["us"]) for p in PEERS if p in found}
        us = float(found["rapt"]["us"])
        lines.append(f"| {case}, {dtype} | {us:.2f} | " + " | ".join(f"{peers[p]:.2f}" if p in peers else "-" for p in PEERS) +
                     f" | {min(peers.values()) / us:.2f}x |")
    return lines


def keys_of(case):
    batch, length = case.split()[0].split("x")
    return int(batch) * (int(length[:-1]) * 1024 if length.endswith("k") else int(length))


def over(found, us, peers, digits):
    """Each peer's microseconds, and in brackets over rapt's."""
    return [f"{float(found[p]['us']):.{digits}f} ({float(found[p]['us']) / us:.2f})" if p in found else "-" for p in peers]


def decode(rows):
    """A step of 32 query and 8 KV heads, 128 channels, bf16: K and V are batch * keys * 4096 bytes."""
    lines = ["| batch x keys | rapt us | GB/s of K and V | cuDNN us | FlashAttention-3 us | FlashAttention-2 us |", "|---|---|---|---|---|---|"]
    for (case, _), found in pick(rows, "graph", "decode", "bf16").items():
        us = float(found["rapt"]["us"])
        cells = over(found, us, DECODERS, 1)
        name = case.replace(" q4", ", 4 queries").replace(" paged16", ", pages of 16")
        lines.append(f"| {name} | {us:.1f} | {keys_of(case) * 4096 / us / 1e3:.0f} | " + " | ".join(cells) + " |")
    return lines


def decode_i8(rows, dtype="i8", size=2112, others={"rapt bf16": "rapt, bf16 us", "cudnn": "cuDNN, bf16 us"}):
    """The same with K and V of i8: 2048 bytes a token, and 64 of scales, or 256 (block32)."""
    lines = ["| batch x keys | rapt us | GB/s of K, V and scales | " + " | ".join(others.values()) + " |", "|---" * (3 + len(others)) + "|"]
    for (case, _), found in pick(rows, "graph", "decode", dtype).items():
        us = float(found["rapt"]["us"])
        cells = [f"{float(found[p]['us']):.1f} ({float(found[p]['us']) / us:.2f})" if p in found else "-" for p in others]
        name = case.replace(" " + dtype, "").replace(" q4", ", 4 queries").replace(" paged16", ", pages of 16")
        lines.append(f"| {name} | {us:.1f} | {keys_of(case) * size / us / 1e3:.0f} | " + " | ".join(cells) + " |")
    return lines


def decode_block32(rows):
    return decode_i8(rows, "i8 block32", 2304, {"rapt any": "portable kernel us", "rapt bf16": "rapt, bf16 us", "cudnn": "cuDNN, bf16 us"})


def even(count):
    """A power of two."""
    return int(count) & int(count) - 1 == 0


def chunk_uneven(rows):
    """Other numbers of queries: us, and each peer's in brackets over it; then over i8."""
    lines = ["| batch x keys, queries | rapt us | TFLOP/s | cuDNN us | FlashAttention-3 us | FlashAttention-2 us | rapt over i8, us |", "|---" * 7 + "|"]
    integers = pick(rows, "graph", "chunk", "i8")
    for (case, _), found in pick(rows, "graph", "chunk", "bf16").items():
        if not even(case.split(" q")[1]):
            us, i8 = float(found["rapt"]["us"]), integers.get((case + " i8", "i8"), {})
            cells = over(found, us, DECODERS, 1) + [f"{float(i8['rapt']['us']):.1f}" if "rapt" in i8 else "-"]
            lines.append(f"| {case.replace(' q', ', ')} | {us:.1f} | {float(found['rapt']['tflops']):.0f} | " + " | ".join(cells) + " |")
    return lines


def chunk(rows):
    """Chunks of queries over many keys: us, and in brackets the times of cuDNN, FlashAttention-3 and FlashAttention-2 over rapt's."""
    found, shapes, queries = pick(rows, "graph", "chunk", "bf16"), {}, {}
    for (case, _), candidates in found.items():
        shape, count = case.split(" q")
        if not even(count):
            continue
        us = float(candidates["rapt"]["us"])
        ratios = ", ".join(f"{float(candidates[p]['us']) / us:.2f}" if p in candidates else "-" for p in DECODERS)
        shapes.setdefault(shape, {})[count] = f"{us:.1f} ({ratios})" if us < 1000 else f"{us:.0f} ({ratios})"
        queries[count] = None
    lines = ["| batch x keys | " + " | ".join(f"{q} queries" for q in queries) + " |", "|---" * (len(queries) + 1) + "|"]
    return lines + [f"| {shape} | " + " | ".join(cells.get(q, "-") for q in queries) + " |" for shape, cells in shapes.items()]


def chunk_i8(rows, dtype="i8"):
    """Chunks over i8 keys and values: us, and in brackets rapt's own time over bf16 and cuDNN's over it."""
    shapes, queries = {}, {}
    for (case, _), found in pick(rows, "graph", "chunk", dtype).items():
        shape, count = case.replace(" " + dtype, "").split(" q")
        if not even(count):
            continue
        us = float(found["rapt"]["us"])
        ratios = ", ".join(f"{float(found[p]['us']) / us:.2f}" if p in found else "-" for p in ("rapt bf16", "cudnn"))
        shapes.setdefault(shape, {})[count] = f"{us:.1f} ({ratios})"
        queries[count] = None
    queries = sorted(queries, key=int)
    lines = ["| batch x keys | " + " | ".join(f"{q} queries" for q in queries) + " |", "|---" * (len(queries) + 1) + "|"]
    return lines + [f"| {shape} | " + " | ".join(cells.get(q, "-") for q in queries) + " |" for shape, cells in shapes.items()]


def pages(rows):
    """Many queries over keys in pages: us, and in brackets the time over that of the same keys in one piece."""
    columns = {"pages 16": "pages of 16", "pages 64": "64", "pages 128": "128", "pages 256": "256", "pages 16 mma": "16, mma kernel", "cudnn": "cuDNN, one piece"}
    lines = ["| batch x keys, queries | one piece | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 2) + "|"]
    short_us = lambda us: f"{us:.1f}" if us < 1000 else f"{us:.0f}"
    for (case, _), found in pick(rows, "graph", "pages").items():
        us = {c: float(r["us"]) for c, r in found.items()}
        cells = [f"{short_us(us[c])} ({us[c] / us['rapt']:.2f})" if c in us else "-" for c in columns]
        lines.append(f"| {case.replace(' q', ', ')} | {short_us(us['rapt'])} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else ["Not measured."]


def peers(name):
    rows = load(name)
    commits = ", ".join(dict.fromkeys(r["commit"] for r in rows if r["group"] in ("grid", "models", "tiny", "f32")))
    lines = [f"`bench/results/{name}`, commits {commits}.", "", "| problems | protocol | " + " | ".join(PEERS.values()) + " |", "|---" * (len(PEERS) + 2) + "|"]
    for group, dtype, title in (("grid", "bf16", "grid, bf16"), ("models", "bf16", "models, bf16"), ("tiny", "bf16", "few tokens, bf16"),
                                ("tiny", "f32", "few tokens, f32"), ("f32", "f32", "grid, f32")):
        for protocol in PROTOCOLS:
            cells = []
            for peer in PEERS:
                ratios = [float(theirs["us"]) / float(ours["us"]) for ours, theirs in pairs(rows, protocol, group, dtype, peer).values()]
                cells.append(f"{mean(ratios):.2f} ({min(ratios):.2f}), {len(ratios)}" if ratios else "-")
            if set(cells) != {"-"}:
                lines.append(f"| {title} | {PROTOCOLS[protocol]} | " + " | ".join(cells) + " |")
    return lines


def ragged(rows):
    lines = ["| lengths, heads | rapt | cuDNN, equal lengths | FlashAttention-3, ragged | FlashAttention-2, ragged |", "|---|---|---|---|---|"]
    for (case, _), found in pick(rows, "graph", "ragged").items():
        mine = float(found["rapt"]["tflops"])
        cell = lambda p: f"{float(found[p]['tflops']):.0f} ({mine / float(found[p]['tflops']):.2f})" if p in found else "-"
        name = re.sub(r" (\d+/\d+)$", r", \1", case)
        lines.append(f"| {name} | {mine:.0f} | {cell('cudnn, equal lengths')} | {cell('flash3')} | {cell('flash2')} |")
    return lines


FLASHINFER = {"decode": ("fa2", "cores", "xqa", "fa3"), "chunk": ("fa2", "fa3"), "pages": ("fa2", "fa3"), "ragged": ("fa3", "fa2")}


def with_flashinfer(rows, group):
    """(case, us of rapt over the same pages, kernel of FlashInfer -> us) of those that have one."""
    ours = "pages 16" if group == "pages" else "rapt"
    for (case, _), found in pick(rows, "graph", group, "bf16").items():
        theirs = {k: float(found["flashinfer " + k]["us"]) for k in FLASHINFER[group] if "flashinfer " + k in found}
        if theirs and ours in found:
            yield case, float(found[ours]["us"]), theirs


def mla(rows):
    """Decode of absorbed MLA: keys of 1152 bytes, 2176 operations for each query row and key."""
    others = {"flashinfer fa3": "FlashInfer fa3", "flashinfer fa2": "fa2", "matmul": "PyTorch's matmuls", "efficient": "memory-efficient", "portable": "portable kernel"}
    lines = ["| batch x keys, heads | rapt us | TB/s of keys | TFLOP/s | " + " | ".join(others.values()) + " |", "|---" * (4 + len(others)) + "|"]
    for (case, _), found in pick(rows, "graph", "mla", "bf16").items():
        us = float(found["rapt"]["us"])
        cells = over(found, us, others, 0)
        name = case.replace(" h", ", ").replace(" q2", ", two queries")
        lines.append(f"| {name} | {us:.1f} | {keys_of(case) * 1152 / us / 1e6:.2f} | {float(found['rapt']['tflops']):.0f} | " + " | ".join(cells) + " |")
    return lines


def case_name(case):
    return re.sub(r" (\d+/\d+)$", r", \1", re.sub(r" q(\d+)", r", \1 queries", case).replace(" paged16", ", pages of 16"))


def flashinfer(rows, group):
    """A line against the fastest of its kernels in each row, then us and in brackets the time over rapt's."""
    found = list(with_flashinfer(rows, group))
    if not found:
        return ["Not measured."]
    best = {case_name(case): min(theirs.values()) / us for case, us, theirs in found}
    us_of = lambda us: f"{us:.1f}" if us < 1000 else f"{us:.0f}"
    lines = ["Against the fastest of its kernels in each row: " + summary(best)[0].lower() + summary(best)[1:], ""]
    if group == "chunk":
        shapes, queries = {}, {}
        for case, us, theirs in found:
            shape, count = case.split(" q")
            shapes.setdefault(shape, {})[count] = f"{us_of(us)} (" + ", ".join(f"{theirs[k] / us:.2f}" if k in theirs else "-" for k in FLASHINFER[group]) + ")"
            queries[count] = None
        lines += ["| batch x keys | " + " | ".join(f"{q} queries" for q in queries) + " |", "|---" * (len(queries) + 1) + "|"]
        return lines + [f"| {shape} | " + " | ".join(cells.get(q, "-") for q in queries) + " |" for shape, cells in shapes.items()]
    lines += [f"| {'lengths, heads' if group == 'ragged' else 'batch x keys'} | rapt us | " + " | ".join(FLASHINFER[group]) + " |",
              "|---" * (len(FLASHINFER[group]) + 2) + "|"]
    return lines + [f"| {case_name(case)} | {us_of(us)} | " +
                    " | ".join(f"{us_of(theirs[k])} ({theirs[k] / us:.2f})" if k in theirs else "-" for k in FLASHINFER[group]) + " |"
                    for case, us, theirs in found]


MASKS = {"bias": "bias {}", "bias f32": "bias f32", "mask": "mask of bytes"}
MASK_ROWS = {"none": "none", "padding": "padding, mask", "padding bias": "padding, bias {}", "bias of keys": "bias of keys, {}",
             "bias odd": "odd, bias {}"}


def masks(rows, names):
    """Bias and mask tensors of these kinds: TFLOP/s of rapt and its ratio to each peer, which has a bias of f32 in q's type."""
    lines = ["| q, tensor, head size, length | rapt | cuDNN | memory-efficient |", "|---|---|---|---|"]
    for (case, dtype), found in pick(rows, "graph", "masks").items():
        if "rapt" not in found or case.rsplit(" ", 2)[0] not in names:
            continue
        us = float(found["rapt"]["us"])
        cells = [f"{float(found[p]['us']) / us:.2f}" if p in found else "-" for p in ("cudnn", "efficient")]
        name, length = case.rsplit(" ", 1)
        name, d = name.rsplit(" ", 1)
        lines.append(f"| {dtype}, {names[name].format(dtype)}, {head_name(d)}, {short(length)} | {float(found['rapt']['tflops']):.0f} | " + " | ".join(cells) + " |")
    return lines if len(lines) > 2 else ["Not measured."]


def vision(rows):
    found = {case.rsplit(" ", 1)[1]: each for (case, _), each in pick(rows, "graph", "vision", "bf16").items()}
    if not found:
        return ["Not measured."]
    ratio = lambda each: float(each["cudnn"]["us"]) / float(each["rapt"]["us"])
    return ["| tokens of an image | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|",
            "| TFLOP/s (and ratio) | " + " | ".join(f"{float(x['rapt']['tflops']):.0f} ({ratio(x):.2f})" for x in found.values()) + " |"]


def options(rows):
    cells = {}
    for (case, _), found in pick(rows, "graph", "options").items():
        if "rapt, plain" not in found:
            continue
        rate, plain = (float(found[c]["tflops"]) for c in ("rapt", "rapt, plain"))
        name, length = case.rsplit(" ", 1)
        cells[name, length] = f"{rate:.0f} TFLOP/s, {rate / plain:.2f}"
    return table(cells, "option")


def errors(rows):
    ratios = [float(r["error"]) / float(found["cudnn"]["error"]) for found in pick(rows, "errors", "errors", "bf16").values()
              for r in (found["rapt"],) if "cudnn" in found]
    if not ratios:
        return ["Not measured."]
    return [f"Relative error against float64, bf16, normal and growing scores: {min(ratios):.2f} to {max(ratios):.2f} of cuDNN's, {len(ratios)} problems."]


def f32_more(rows):
    """TFLOP/s of rapt, its ratio to memory-efficient attention, and to the fastest of rapt's portable kernels, by case without its length."""
    cells, ratios, portable = {}, [], []
    for (case, _), found in pick(rows, "graph", "f32-more", "f32").items():
        if case.startswith("d256"):  # f32-large
            continue
        us = float(found["rapt"]["us"])
        rate = f"{float(found['rapt']['tflops']):.0f}"
        if "efficient" in found:
            ratio = float(found["efficient"]["us"]) / us
            rate += f" ({ratio:.2f})"
            ratios.append(ratio)
        elif "efficient, without" in found:
            rate += f" ({float(found['efficient, without']['us']) / us:.2f} against its time without)"
        old = [float(r["us"]) / us for name, r in found.items() if name.startswith("rapt:")]
        if old:
            portable.append(min(old))
        name, length = case.rsplit(" ", 1) if case.rsplit(" ", 1)[1].isdigit() else (case, "")
        cells.setdefault(name, {})[length] = rate
    if not ratios:
        return ["Not measured."]
    lines = [f"Up to 128 channels: geometric mean {mean(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}; against rapt's portable kernels, which served "
             f"before, {min(portable):.1f} to {max(portable):.1f}.", "", "| problem | 1k | 4k |", "|---|---|---|"]
    for name, found in cells.items():
        if "" in found:
            lines.append(f"| {head_name(name)} | {found['']} | |")
        else:
            lines.append(f"| {head_name(name)} | {found.get('1024', '')} | {found.get('4096', '')} |")
    return lines


def f32_errors(rows):
    """rapt's error over the peer's, the worst of the lengths, by kind of data."""
    worst, lengths = {}, set()
    for (case, _), found in pick(rows, "errors", "errors", "f32").items():
        if "rapt" not in found or "efficient" not in found:
            continue
        d, mask, length, *kind = case.split(" ", 3)
        lengths.add(int(length))
        ratio = float(found["rapt"]["error"]) / float(found["efficient"]["error"])
        key = (kind or ["normal"])[0], f"{head_name(d)} {mask}"
        worst[key] = max(worst.get(key, 0), ratio)
    if not worst:
        return ["Not measured."]
    columns = sorted({c for _, c in worst}, key=lambda c: (int(re.sub(r"\D", "", c)), "full" in c))
    lines = [f"Worst of the lengths measured, of {', '.join(str(n) for n in sorted(lengths))} tokens: {min(worst.values()):.2f} to {max(worst.values()):.2f}.", "",
             "| data | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for kind in dict.fromkeys(k for k, _ in worst):
        lines.append(f"| {kind} | " + " | ".join(f"{worst[kind, c]:.2f}" if (kind, c) in worst else "-" for c in columns) + " |")
    return lines


def operations(rows):
    """Softmax by columns and type, then the others; parenthesised rows are none of rapt's."""
    rows = [r for r in rows if not r["problem"].startswith("(")]
    share = {r["problem"]: float(r["percent_of_copy"]) for r in rows}
    types, softmax, others = ("f32", "f16", "bf16"), {}, []
    for problem, percent in share.items():
        op, dtype = problem.split()[:2]
        if op == "softmax":
            softmax.setdefault(int(problem.rsplit("kv", 1)[1]), {})[dtype] = percent
        else:
            others.append((problem, percent))
    below = sum(p < 85 for p in share.values())
    lines = [f"{len(share)} rows, {below} below 85 %.", "", "| columns of softmax | " + " | ".join(types) + " |", "|---|---|---|---|"]
    for columns in sorted(softmax):
        lines.append(f"| {columns} | " + " | ".join(f"{softmax[columns][t]:.0f} %" if t in softmax[columns] else "-" for t in types) + " |")
    lines += ["", "| operation | share |", "|---|---|"]
    return lines + [f"| {problem} | {percent:.0f} % |" for problem, percent in others]


def tables():
    return {**tables_h100(), **tables_h200()}


def tables_h100():
    main, old, memory, paged = (load(f"h100-{name}.csv") for name in ("pytorch", "sm80", "operations", "flashinfer"))
    return {"grid-graph": rates(main, "graph", "grid", "bf16", "cudnn"), "grid-sustained": rates(main, "sustained", "grid", "bf16", "cudnn"),
            "grid-sustained-flash3": rates(main, "sustained", "grid", "bf16", "flash3", absolute=False),
            "grid-flash3": rates(main, "graph", "grid", "bf16", "flash3", absolute=False),
            "models-flash3": rates(main, "graph", "models", "bf16", "flash3", absolute=False), "models-graph": rates(main, "graph", "models", "bf16", "cudnn", absolute=False),
            "models-sustained": rates(main, "sustained", "models", "bf16", "cudnn", absolute=False),
            "f32": rates(main, "graph", "f32", "f32", "efficient"), "sm80": rates(old, "graph", "grid", "bf16", "flash2", 0.95),
            "few": few(main), "decode": decode(main), "decode-i8": decode_i8(main), "decode-block32": decode_block32(main), "chunk": chunk(main), "chunk-i8": chunk_i8(main),
            "chunk-block32": chunk_i8(main, "i8 block32"), "chunk-uneven": chunk_uneven(main), "pages": pages(main), "peers": peers("h100-pytorch.csv"), "ragged": ragged(main), "options": options(main), "masks": masks(main, MASKS), "mask-rows": masks(main, MASK_ROWS),
            "heads": rates(main, "graph", "heads", "bf16", "cudnn"), "heads-flash3": rates(main, "graph", "heads", "bf16", "flash3", absolute=False),
            "vision": vision(main), "errors": errors(main), "f32-errors": f32_errors(main), "f32-more": f32_more(main),
            "f32-large": rates(main, "graph", "f32-large", "f32", "efficient"),
            "mla": mla(paged), "operations": operations(memory), **{f"flashinfer-{group}": flashinfer(paged, group) for group in FLASHINFER}}


def trace(rows):
    """Medians of clocks, of bench/trace_gpu.py's stamps: steps inside a tile, and a tile's first one."""
    middle = lambda values: sorted(values)[len(values) // 2]
    lines = ["| kernel | launch, us | with stamps | a step, clocks | waits for K and its turn | asks | waits for q k | first weights | waits for p v | "
             "other weights | a tile's first step | of it output |", "|---" * 12 + "|"]
    for case in dict.fromkeys(row["case"] for row in rows):
        found = [row for row in rows if row["case"] == case]
        inside, first = [], []
        for actor in sorted({row["actor"] for row in found} - {"0"}):
            stamps = sorted((int(row["clock"]), row["point"]) for row in found if row["actor"] == actor)
            begins = [i for i, (_, point) in enumerate(stamps) if point == "step"]
            for i, j in zip(begins, begins[1:]):
                spent = {point: end - clock for (clock, point), (end, _) in zip(stamps[i:j], stamps[i + 1:j + 1])}
                (first if "output" in spent else inside).append({**spent, "all": stamps[j][0] - stamps[i][0]})
        cells = [middle([step[point] for step in inside]) for point in ("all", "step", "ask", "scores", "early", "values", "weights")]
        cells += [middle([step[point] for step in first]) for point in ("all", "output")]
        lines.append(f"| `{found[0]['kernel']}` | {found[0]['us']} | {found[0]['traced_us']} | " + " | ".join(map(str, cells)) + " |")
    return lines


def tables_h200():
    rows = load("h200-pytorch.csv")
    of = lambda protocol, group, peer, dtype="bf16", absolute=False: rates(rows, protocol, group, dtype, peer, absolute=absolute)
    return {f"h200-{name}": lines for name, lines in {
        "peers": peers("h200-pytorch.csv"), "grid": of("graph", "grid", "cudnn", absolute=True), "grid-flash3": of("graph", "grid", "flash3"),
        "grid-sustained": of("sustained", "grid", "cudnn", absolute=True), "grid-sustained-flash3": of("sustained", "grid", "flash3"),
        "models": of("graph", "models", "cudnn"), "models-flash3": of("graph", "models", "flash3"), "heads": of("graph", "heads", "cudnn", absolute=True),
        "options": options(rows), "ragged": ragged(rows), "errors": errors(rows), "few": few(rows), "decode": decode(rows), "decode-i8": decode_i8(rows),
        "decode-block32": decode_block32(rows), "chunk": chunk(rows), "pages": pages(rows), "masks": masks(rows, MASKS),
        "f32": of("graph", "f32", "efficient", "f32", True), "f32-large": of("graph", "f32-large", "efficient", "f32", True),
        "operations": operations(load("h200-operations.csv")), "trace": trace(load("h200-trace.csv"))}.items()}


def plot(rows, protocol, group, dtype, name):
    """A panel for each head size and mask: TFLOP/s over length."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    lines = {}
    for (case, _), found in pick(rows, protocol, group, dtype).items():
        panel, length = case.rsplit(" ", 1)
        for candidate, r in found.items():
            lines.setdefault(panel, {}).setdefault(candidate, []).append((int(length), float(r["tflops"])))
    if not lines:
        return
    columns = 2 if len(lines) == 4 else 3
    figure, axes = plt.subplots(-(-len(lines) // columns), columns, figsize=(3.6 * columns, 2.8 * -(-len(lines) // columns)), squeeze=False)
    for axis, (panel, candidates) in zip(axes.flat, lines.items()):
        for candidate, points in sorted(candidates.items(), key=lambda item: list(COLOURS).index(item[0])):
            axis.plot(*zip(*sorted(points)), marker="o", label=PEERS.get(candidate, candidate), color=COLOURS.get(candidate))
        axis.set(title=head_name(panel), xlabel="tokens")
        axis.set_xscale("log", base=2)
        ticks = sorted({length for points in candidates.values() for length, _ in points})
        axis.set_xticks(ticks, [short(str(length)) for length in ticks], fontsize=7)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
    for axis in axes[:, 0]:
        axis.set_ylabel("TFLOP/s")
    save(figure, rows, protocol, group, name)


def save(figure, rows, protocol, group, name, w_pad=None):
    last = [r for r in rows if r["protocol"] == protocol and r["group"] == group][-1]
    figure.suptitle(f"{last['gpu']}, {PROTOCOLS[protocol]}, {last['date']}, {last['commit']}", fontsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.06 if figure.get_figheight() > 4 else 0.09, 1, 1), w_pad=w_pad)
    figure.savefig(os.path.join(ROOT, "docs", "images", name), dpi=120)


def plot_few(rows, name):
    """A panel for each type: microseconds per launch of every candidate, by problem."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    types = ("bf16", "f32")
    figure, axes = plt.subplots(1, len(types), figsize=(11, 3))
    for axis, dtype in zip(axes, types):
        found = pick(rows, "graph", "tiny", dtype)
        candidates = [c for c in ("rapt", *PEERS) if any(c in f for f in found.values())]
        for i, candidate in enumerate(candidates):
            heights = [float(f[candidate]["us"]) if candidate in f else 0 for f in found.values()]
            axis.bar([x + (i - len(candidates) / 2 + 0.5) * 0.16 for x in range(len(found))], heights, 0.16,
                     label=PEERS.get(candidate, candidate), color=COLOURS.get(candidate))
        axis.set_xticks(range(len(found)), [case.replace(" ", ",\n", 1) for case, _ in found], fontsize=7)
        axis.set(title=dtype, ylabel="us per launch")
    save(figure, rows, "graph", "tiny", name, 3)  # the right panel has a label of its own


def main():
    rows = load("h100-pytorch.csv")
    plot(rows, "graph", "grid", "bf16", "h100-grid-graph.png")
    plot(rows, "sustained", "grid", "bf16", "h100-grid-sustained.png")
    plot(rows, "graph", "models", "bf16", "h100-models-graph.png")
    plot(rows, "sustained", "models", "bf16", "h100-models-sustained.png")
    plot(rows, "graph", "f32", "f32", "h100-f32.png")
    plot_few(rows, "h100-few.png")
    plot(load("h200-pytorch.csv"), "graph", "grid", "bf16", "h200-grid-graph.png")


if __name__ == "__main__":
    main()
