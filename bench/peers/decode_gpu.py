"""decode_gpu.py: the groups decode, chunk and pages of pytorch_gpu.py: one or few queries of each sequence over many keys, chunks of 32 ... 512
queries, and chunks and prefill over keys in pages; rapt against PyTorch's backends, FlashAttention-3 and FlashInfer (flashinfer_gpu.py).

Each launch of a graph takes the next of enough copies of K and V that the caches have forgotten the first when it comes round again: a decode
step meets keys that have not been read since the last one. 32 query and 8 KV heads, 128 channels, [batch, token, head, channel], bf16. Paged:
lengths in device memory, pages in random order; FlashInfer reads the same pages (and pages in order where rapt reads one piece), the other peers the
same keys unpaged. i8: keys and values of 8 bits, a scale for each token and head [batch, token, head]; block32: a scale for each 32 channels
[batch, token, head, 4], also by the row that takes any; the peers, and rapt beside itself, read the same as bf16, and FlashInfer is left out."""
import random

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import flashinfer_gpu
from candidates_gpu import flash3_forward, installed

HEADS, KV_HEADS, CHANNELS = 32, 8, 128
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash2": SDPBackend.FLASH_ATTENTION}
PEERS = installed((*BACKENDS, "flash3"))
ROTATED = 260_000_000  # bytes of K and V that a graph reads before it reads the first again; caches: 50 MB
ONE_QUERY = "1x1k 1x2k 1x4k 1x8k 1x32k 1x128k 4x1k 4x8k 16x1k 16x8k 64x8k 16x128k".split()
FOUR_QUERIES = "1x1k 1x8k 4x1k 16x1k 16x8k".split()
PAGED = "1x1k 1x8k 4x1k 4x8k 16x1k 16x8k 64x8k".split()
I8 = "1x1k 1x2k 1x4k 1x8k 1x32k 1x128k 4x1k 4x8k 16x1k 16x8k 64x8k".split()
I8_PAGED = "1x8k 16x8k".split()
BLOCK32 = "1x1k 1x8k 1x32k 4x8k 16x1k 16x8k".split()
BLOCK32_FOUR = "1x8k 16x8k".split()
PAGE = 16
IN_ORDER = 64  # tokens of FlashInfer's pages where rapt reads one piece
CHUNKS = [f"{batch}x{keys}" for batch in (1, 4) for keys in "2k 8k 32k 128k".split()]
CHUNK_QUERIES = (32, 64, 128, 256, 512)
CHUNKS_I8 = "1x2k 1x8k 1x32k 4x8k".split()
CHUNK_QUERIES_I8 = (16, 64, 256, 512)
PROMPT = ("1x2k", 2048)
CHUNKS_BLOCK32 = "1x2k 1x8k 4x8k".split()
PAGE_SIZES = (16, 64, 128, 256)
IN_PAGES = [("1x8k", 32), ("1x8k", 128), ("1x32k", 128), ("1x128k", 128), ("4x8k", 128), ("4x32k", 32), ("1x32k", 512), ("4x8k", 512), ("1x8k", 2048),
            ("1x32k", 2048), ("4x8k", 2048), ("1x8k", 8192), ("4x4k", 4096)]
MMA = "sm80_bf16_d128_features"  # the row for pages of any size
ANY = "decode_d128"  # the row for any scales


WORDS = {0: "", CHANNELS: " i8", 32: " i8 block32"}


def bytes_of(batch, keys, i8):
    """Of K and V and their scales."""
    return batch * keys * KV_HEADS * 2 * (CHANNELS + CHANNELS // i8 * 4 if i8 else 2 * CHANNELS)


def sizes(shape):
    batch, keys = shape.split("x")
    return int(batch), int(keys[:-1]) * 1024 if keys[-1] == "k" else int(keys)


def cases(shapes=None):
    """(name, batch, keys, queries, page or 0, channels of a scale where K and V are i8, or 0)"""
    for names, queries, page, i8 in ((ONE_QUERY, 1, 0, 0), (FOUR_QUERIES, 4, 0, 0), (PAGED, 1, PAGE, 0), (I8, 1, 0, CHANNELS),
                                     (FOUR_QUERIES, 4, 0, CHANNELS), (I8_PAGED, 1, PAGE, CHANNELS), (BLOCK32, 1, 0, 32), (BLOCK32_FOUR, 4, 0, 32),
                                     (I8_PAGED, 1, PAGE, 32)):
        for shape in names:
            if not shapes or shape in shapes:
                yield (shape + (f" q{queries}" if queries > 1 else "") + (f" paged{page}" if page else "") + WORDS[i8], *sizes(shape),
                       queries, page, i8)


def chunk_cases(shapes=None, queries=None):
    """queries: of these shapes, whatever they are."""
    if queries:
        for i8 in (0, CHANNELS, 32):
            for shape in shapes:
                for count in queries:
                    yield (f"{shape} q{count}" + WORDS[i8], *sizes(shape), count, 0, i8)
        return
    for names, counts, i8 in ((CHUNKS, CHUNK_QUERIES, 0), (CHUNKS_I8, CHUNK_QUERIES_I8, CHANNELS), ([PROMPT[0]], PROMPT[1:], CHANNELS),
                              (CHUNKS_BLOCK32, CHUNK_QUERIES_I8, 32), ([PROMPT[0]], PROMPT[1:], 32)):
        for shape in names:
            for queries in counts:
                if not shapes or shape in shapes:
                    yield (f"{shape} q{queries}" + WORDS[i8], *sizes(shape), queries, 0, i8)


def peer(backend, q, ks, vs, outs):
    square = q.shape[1] == ks[0].shape[1]
    def run(i):
        if backend == "flash3":
            outs[0] = flash3_forward(q, ks[i], vs[i], q.shape[1] > 1, splits=0)
            return
        with sdpa_kernel(BACKENDS[backend]):
            outs[0] = F.scaled_dot_product_attention(q.transpose(1, 2), ks[i].transpose(1, 2), vs[i].transpose(1, 2), is_causal=square, enable_gqa=True)
    return run


def ours(rapt, q, ks, vs, out, page, kernel=None):
    """One plan for each copy, as each has its own memory, and one workspace, as an engine's layers have. ks, vs: tensors, or i8 ones with their
    scales. run.table: of the pages."""
    batch, keys = (ks[0][0] if isinstance(ks[0], tuple) else ks[0]).shape[:2]
    options, paged = {"causal": int(q.shape[1] > 1), "kernel": kernel}, lambda x: x
    if page:
        options["kv_length"] = torch.full((batch,), keys, device="cuda", dtype=torch.int32)
        options["page_table"] = torch.randperm(batch * keys // page, device="cuda").int().view(batch, 1, keys // page, 1)
        paged = lambda x: x.view(-1, page, KV_HEADS, x.shape[-1])
    runs = []
    for k, v in zip(ks, vs):
        if isinstance(k, tuple):
            (k, options["k_scale"]), (v, options["v_scale"]) = ((x, paged(scale).transpose(1, 2)) for x, scale in (k, v))
        runs.append(rapt.forward(q, paged(k), paged(v), out, work=runs[0].work if runs else None, **options))
    run = lambda i: runs[i]()
    run.kernel, run.table = runs[0].kernel, options.get("page_table")
    return run


def time_in_graphs(runs, copies, launches, repeats, graph_of, rounds=9):
    """Median microseconds per launch, all candidates in turn, in an order drawn anew for each round."""
    draw, graphs, times = random.Random(rounds), {}, {name: [] for name in runs}
    for name, run in runs.items():
        turn = iter([i % copies for i in range(launches)])
        graphs[name] = graph_of(lambda: run(next(turn)), launches)
        graphs[name].replay()
    torch.cuda.synchronize()
    for _ in range(rounds):
        for name in draw.sample(list(graphs), len(graphs)):
            begin, end = torch.cuda.Event(True), torch.cuda.Event(True)
            graphs[name].replay()
            begin.record()
            for _ in range(repeats):
                graphs[name].replay()
            end.record()
            end.synchronize()
            times[name].append(begin.elapsed_time(end) * 1e3 / launches / repeats)
    return {name: sorted(t)[rounds // 2] for name, t in times.items()}


def quantised(x, channels):
    """i8 and a scale for so many channels of each token and head."""
    x = x.float().unflatten(-1, (-1, channels))
    scale = x.abs().amax(-1, keepdim=True) / 127
    return (x / scale).round().to(torch.int8).flatten(-2), scale.squeeze(-1)


def numbers(x):
    """In float64."""
    if not isinstance(x, tuple):
        return x.double()
    return (x[0].double().unflatten(-1, (x[1].shape[-1], -1)) * x[1].double()[..., None]).flatten(-2)


def measure(rapts, batch, keys, queries, page, i8, graph_of, peers=PEERS, rows=()):
    """us, error against the first peer, kernels: by candidate. rapts: name -> library; rows: kernels of the first one to time as well."""
    torch.manual_seed(keys + batch)
    size = bytes_of(batch, keys, i8)
    copies = max(1, min(128, -(-ROTATED // size)))
    launches = max(copies, min(64, int(4.5e9 / size) + 1))
    ks, vs = ([torch.randn(batch, keys, KV_HEADS, CHANNELS, device="cuda").bfloat16() for _ in range(copies)] for _ in "kv")
    small = [[quantised(x, i8) for x in xs] for xs in (ks, vs)] if i8 else None
    q = torch.randn(batch, queries, HEADS, CHANNELS, device="cuda").bfloat16()
    result, runs, error, kernel = [None], {}, {}, {}
    for backend in peers:
        run = peer(backend, q, ks, vs, result)
        try:
            run(0)
            torch.cuda.synchronize()
            runs[backend] = run
        except RuntimeError as problem:
            print(f"   {backend} left out: {str(problem).splitlines()[0][:110]}")
    # The peers have no mask aligned to the end, and no pages: the measure of right is float64.
    mine = [(name, rapt, *(small or (ks, vs)), None) for name, rapt in rapts.items()]
    if i8 == 32 and queries == 1:
        mine.append((mine[0][0] + " any", *mine[0][1:4], ANY))
    if i8:
        mine.append((mine[0][0] + " bf16", mine[0][1], ks, vs, None))
    mine += [("rapt:" + row, *mine[0][1:4], row) for row in rows]
    for name, rapt, k, v, named in mine:
        out = torch.full_like(q, float("nan"))
        try:
            run = ours(rapt, q, k, v, out, page, named)
        except RuntimeError as problem:
            print(f"   {name} left out: {str(problem).splitlines()[0][:110]}")
            continue
        if not page and size < 1e9:
            run(0)
            want = exact(q, numbers(k[0]), numbers(v[0]))
            error[name] = ((out.double() - want).norm() / want.norm()).item()
            if not error[name] < 1e-2:
                print(f"WRONG decode {batch}x{keys} q{queries} {name} {run.kernel}: {error[name]:.1e}", flush=True)
                continue
        runs[name], kernel[name] = run, run.kernel
    if not i8:
        if size >= 1e9:
            run(0)
            want = out
        elif page:
            want = exact(q, *(numbers(in_order(x[0], run.table)) for x in (ks, vs)))
        found = flashinfer_gpu.over_pages(q, ks, vs, page or IN_ORDER, run.table if page else None, want)
        runs.update(found)
        error.update({name: each.error for name, each in found.items()})
    us = time_in_graphs(runs, copies, launches, max(1, min(8, int(6e9 / size / launches) + 1)), graph_of)
    return us, error, kernel


def exact(q, k, v):
    """In float64, query i of n seeing the keys up to the last but n - 1 - i."""
    out = torch.empty(q.shape, device="cuda", dtype=torch.float64)
    group, n, keys = HEADS // KV_HEADS, q.shape[1], k.shape[1]
    hidden = torch.arange(keys, device="cuda")[None] > torch.arange(n, device="cuda")[:, None] + keys - n
    for b in range(q.shape[0]):
        for h in range(HEADS):
            s = q[b, :, h].double() @ k[b, :, h // group].T * CHANNELS ** -0.5
            out[b, :, h] = s.masked_fill(hidden, float("-inf")).softmax(-1) @ v[b, :, h // group]
    return out


def in_order(x, table):
    """The keys that a table of pages says, in one piece."""
    return x.view(table.numel(), -1, *x.shape[2:])[table.flatten().long()].view(x.shape)


def pages(bench, graph_of):
    """The same keys in one piece and in pages, also by the row that takes pages of any size."""
    shapes = bench.options.decode.split(",") if bench.options.decode else None
    for shape, queries in IN_PAGES:
        if shapes and shape not in shapes:
            continue
        batch, keys = sizes(shape)
        torch.manual_seed(keys + batch)
        size = batch * keys * KV_HEADS * 4 * CHANNELS
        copies = max(1, min(32, -(-ROTATED // size)))
        flops = 4 * batch * HEADS * queries * (keys - (queries - 1) / 2) * CHANNELS
        ks, vs = ([torch.randn(batch, keys, KV_HEADS, CHANNELS, device="cuda").bfloat16() for _ in range(copies)] for _ in "kv")
        q = torch.randn(batch, queries, HEADS, CHANNELS, device="cuda").bfloat16()
        out, want, result = torch.empty_like(q), torch.empty_like(q), [None]
        runs = {backend: peer(backend, q, ks, vs, result) for backend in PEERS}
        for run in runs.values():
            run(0)
        runs["rapt"] = ours(bench.rapt, q, ks, vs, torch.empty_like(q), 0)
        for page, kernel in [(page, None) for page in PAGE_SIZES] + [(16, MMA), (128, MMA)]:
            name, run = f"pages {page}" + (" mma" if kernel else ""), ours(bench.rapt, q, ks, vs, out.fill_(float("nan")), page, kernel)
            run(0)
            bench.rapt.forward(q, in_order(ks[0], run.table), in_order(vs[0], run.table), want, causal=1)()
            error = ((out.double() - want.double()).norm() / want.double().norm()).item()
            if error < 1e-2:
                runs[name] = run
                if page == PAGE and not kernel:
                    runs.update(flashinfer_gpu.over_pages(q, ks, vs, page, run.table, want))
            else:
                print(f"WRONG pages {shape} q{queries} {name} {run.kernel}: {error:.1e}", flush=True)
        us = time_in_graphs(runs, copies, max(copies, min(32, int(2e12 / flops) + 1)), max(1, min(4, int(4e12 / flops / copies))), graph_of, rounds=5)
        for candidate, t in us.items():
            bench.rows.append(dict(bench.head, protocol="graph", group="pages", case=f"{shape} q{queries}", dtype="bf16", candidate=candidate, us=f"{t:.2f}",
                                   tflops=f"{flops / t / 1e6:.1f}", ratio=f"{t / us['rapt']:.3f}"))
        print(f"g {shape} q{queries:<6d} {runs['rapt'].kernel} rapt {us['rapt']:.2f} us {flops / us['rapt'] / 1e6:.0f} TFLOP/s | " +
              " | ".join(f"{c} {t:.2f} ({t / us['rapt']:.3f})" for c, t in us.items() if c != "rapt"), flush=True)
        torch.cuda.empty_cache()


def run_cases(bench, graph_of, group, chosen):
    kinds, rows = ([x for x in text.split(",") if x] for text in (bench.options.kv, bench.options.rows))
    for name, batch, keys, queries, page, i8 in chosen:
        kind = WORDS[i8].strip() or "bf16"
        if kinds and kind not in kinds:
            continue
        us, error, kernel = measure({"rapt": bench.rapt}, batch, keys, queries, page, i8, graph_of, rows=rows)
        size, line = bytes_of(batch, keys, i8), []
        flops = 4 * batch * HEADS * queries * keys * CHANNELS
        for candidate, t in us.items():
            ratio = t / us["rapt"]
            bench.rows.append(dict(bench.head, protocol="graph", group=group, case=name, dtype=kind, candidate=candidate, us=f"{t:.2f}",
                                   tflops=f"{flops / t / 1e6:.1f}", ratio=f"{ratio:.3f}", error=f"{error.get(candidate, 0):.1e}"))
            line.append(f"{candidate} {t:.2f} us" + (f" ({ratio:.2f})" if candidate != "rapt" else f" {size / t / 1e3:.0f} GB/s {flops / t / 1e6:.0f} TFLOP/s"))
        print(f"g {name:16s} {kernel.get('rapt', '-'):20s} " + " | ".join(line), flush=True)
        torch.cuda.empty_cache()


def decode(bench, graph_of):
    shapes = bench.options.decode.split(",") if bench.options.decode else None
    run_cases(bench, graph_of, "decode", cases(shapes))


def chunk(bench, graph_of):
    shapes = bench.options.decode.split(",") if bench.options.decode else None
    run_cases(bench, graph_of, "chunk", chunk_cases(shapes, [int(x) for x in bench.options.queries.split(",") if x]))
