"""mla_gpu.py: the group mla of pytorch_gpu.py: decode of absorbed MLA (DeepSeek-V2, V3 and R1, Kimi): one KV head of 576 channels, whose first 512
are the values, 16 or 128 query heads, one or two queries of each sequence, keys in pages of 64, bf16.

Each launch of a graph takes the next of enough caches that the GPU's have forgotten the first when it comes round again. Peers: FlashInfer's MLA
where it is installed (flashinfer_gpu.py); PyTorch's memory-efficient SDPA, which alone of its fused kernels takes such heads, and its matmul, softmax
and matmul, both on keys in one piece, with a head's queries as rows of one head and, where there are two, no mask. Ceilings of the same run, as shares
of which rapt's rates are given: a copy's bytes, read and written, and cuBLAS on 8192 x 8192 x 8192 in bf16."""
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import flashinfer_gpu
from decode_gpu import ROTATED, sizes, time_in_graphs

CHANNELS, VALUES, PAGE = 576, 512, 64
SCALE = (128 + 64) ** -0.5  # as the models have it before absorption
CASES = [(shape, heads, queries) for heads, queries, shapes in (
    (16, 1, "1x8k 16x2k 16x8k 64x8k"), (16, 2, "16x8k"), (128, 1, "1x8k 16x2k 16x8k 64x4k 128x8k"), (128, 2, "1x8k 64x4k"))
    for shape in shapes.split()]
PORTABLE = "flash"  # the row that served before there was one for such heads


def exact(q, keys):
    """Of one sequence, in float64: q [query, head, channel], keys [key, channel]; query i of n sees the keys up to the last but n - 1 - i."""
    n = q.shape[0]
    s = torch.einsum("qhc,kc->hqk", q.double(), keys.double()) * SCALE
    hidden = torch.arange(keys.shape[0], device=q.device)[None] > torch.arange(n, device=q.device)[:, None] + keys.shape[0] - n
    return torch.einsum("hqk,kc->qhc", s.masked_fill(hidden, float("-inf")).softmax(-1), keys[:, :VALUES].double())


def ours(rapt, q, pools, table, out, kernel=None):
    """One plan for each pool. q, out: [batch, query, head, channel]; pools: [page, token, 1, channel]."""
    batch, pages = table.shape
    lengths = torch.full((batch,), pages * PAGE, device="cuda", dtype=torch.int32)
    options = dict(causal=int(q.shape[1] > 1), scale=SCALE, kernel=kernel, kv_length=lengths, page_table=table.view(batch, 1, pages, 1))
    runs = [rapt.forward(q, pool, pool[..., :VALUES], out, **options) for pool in pools]
    run = lambda i: runs[i]()
    run.kernel = runs[0].kernel
    return run


def by_sdpa(q, pools, batch):
    """A sequence's queries and heads as rows of one head."""
    rows = q.transpose(1, 2).reshape(batch, 1, -1, CHANNELS)
    caches = [pool.view(batch, 1, -1, CHANNELS) for pool in pools]
    def run(i):
        with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
            return F.scaled_dot_product_attention(rows, caches[i], caches[i][..., :VALUES], scale=SCALE)
    return run


def by_matmul(q, pools, batch):
    rows = q.transpose(1, 2).reshape(batch, -1, CHANNELS)
    caches = [pool.view(batch, -1, CHANNELS) for pool in pools]
    return lambda i: torch.bmm(torch.softmax(torch.bmm(rows, caches[i].transpose(1, 2)) * SCALE, -1), caches[i][..., :VALUES])


def ceilings(graph_of):
    """Bytes of a copy and operations of a product, per microsecond."""
    a, b = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in "ab")
    c, x = torch.empty_like(a), torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
    y = torch.empty_like(x)
    us = time_in_graphs({"copy": lambda i: y.copy_(x), "matmul": lambda i: torch.matmul(a, b, out=c)}, 1, 4, 2, graph_of, rounds=5)
    return 2 * x.numel() / us["copy"], 2 * 8192 ** 3 / us["matmul"]


def mla(bench, graph_of):
    shapes = bench.options.decode.split(",") if bench.options.decode else None
    copy_rate, matmul_rate = ceilings(graph_of)
    print(f"   ceilings: copy {copy_rate / 1e6:.2f} TB/s, matmul {matmul_rate / 1e6:.0f} TFLOP/s", flush=True)
    for shape, heads, queries in CASES:
        if shapes and shape not in shapes:
            continue
        batch, keys = sizes(shape)
        torch.manual_seed(keys + batch)
        size, flops = batch * keys * CHANNELS * 2, 2 * batch * heads * queries * keys * (CHANNELS + VALUES)
        copies = max(1, min(64, -(-ROTATED // size)))
        launches = max(copies, min(64, int(1e9 / size) + 1))
        pools = [torch.randn(batch * keys // PAGE, PAGE, 1, CHANNELS, device="cuda").bfloat16() for _ in range(copies)]
        q = torch.randn(batch, queries, heads, CHANNELS, device="cuda").bfloat16()
        table = torch.randperm(batch * keys // PAGE, device="cuda").int().view(batch, -1)
        out = torch.full((batch, queries, heads, VALUES), float("nan"), device="cuda").bfloat16()
        run, errors = ours(bench.rapt, q, pools, table, out), {}
        run(0)
        some = sorted({0, batch - 1})
        want = torch.stack([exact(q[b], pools[0][table[b].long()].view(-1, CHANNELS)) for b in some])
        error = errors["rapt"] = ((out[some].double() - want).norm() / want.norm()).item()
        if not error < 1e-2:
            print(f"WRONG mla {shape} h{heads} q{queries} {run.kernel}: {error:.1e}", flush=True)
        runs = {"rapt": run}
        for kernel in bench.options.rows.split(",") if bench.options.rows else ():
            try:
                runs[kernel] = ours(bench.rapt, q, pools, table, torch.empty_like(out), kernel)
            except RuntimeError as problem:
                print(f"   {kernel} left out: {str(problem).splitlines()[0][:110]}", flush=True)
        found = flashinfer_gpu.absorbed_mla(q, pools, table, VALUES, SCALE, want, some)
        runs.update(found)
        errors.update({name: each.error for name, each in found.items()})
        for name, peer in ("efficient", by_sdpa), ("matmul", by_matmul):
            try:
                candidate = peer(q, pools, batch)
                candidate(0)
                torch.cuda.synchronize()
                runs[name] = candidate
            except RuntimeError as problem:
                print(f"   {name} left out: {str(problem).splitlines()[0][:110]}", flush=True)
        slow = {"portable": ours(bench.rapt, q, pools, table, torch.empty_like(out), PORTABLE)} if shape == "1x8k" else {}
        us = time_in_graphs(runs, copies, launches, max(1, min(8, int(2e9 / size / launches) + 1)), graph_of, rounds=bench.options.rounds)
        us.update(time_in_graphs(slow, copies, 2, 1, graph_of, rounds=3))
        for candidate, t in us.items():
            bench.rows.append(dict(bench.head, protocol="graph", group="mla", case=f"{shape} h{heads}" + (f" q{queries}" if queries > 1 else ""), dtype="bf16",
                                   candidate=candidate, us=f"{t:.2f}", tflops=f"{flops / t / 1e6:.1f}", ratio=f"{t / us['rapt']:.3f}",
                                   share=f"{max(size / t / copy_rate, flops / t / matmul_rate):.3f}", error=f"{errors.get(candidate, 0):.1e}"))
        t = us["rapt"]
        print(f"g {shape:8s} h{heads:<4d} q{queries} {run.kernel:16s} rapt {t:.2f} us {size / t / 1e6:.2f} TB/s ({size / t / copy_rate:.2f}) "
              f"{flops / t / 1e6:.0f} TFLOP/s ({flops / t / matmul_rate:.2f}) error {error:.1e} | " +
              " | ".join(f"{c} {x:.2f} ({x / t:.2f})" for c, x in us.items() if c != "rapt"), flush=True)
        del pools, runs
        torch.cuda.empty_cache()
