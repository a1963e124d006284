"""pytorch_gpu.py: rapt against PyTorch's attention backends on one GPU: cuDNN, FlashAttention-2, memory-efficient; and against FlashAttention-3
where its package fa3-fwd is installed, and FlashInfer where flashinfer-python is (decode, chunk, pages, ragged: flashinfer_gpu.py); ratios and a
CSV, of which bench/tables.py and tables_gpu.py make the tables and plots of docs/PERFORMANCE.md and docs/performance.

usage: python3 bench/peers/pytorch_gpu.py --only grid,models [--lib build/librapt.so] [--csv rows.csv] [--protocol graph,sustained]

Groups (--only, comma separated):
  grid     16k tokens, heads x channels = 2048, channels 64/128/256, S 512 ... 16k, causal and full
  heads    as the grid, 1k and 4k tokens, channels that fill a part of a tile or have one of their own: 32 ... 224, an even number of heads
  vision   16k tokens in images of 256 ... 4k, 16 heads of 72 channels, full, as vision encoders have them
  models   LLaMA-3-8B 32/8, Qwen2-7B 28/4, LLaMA-2-13B 40/40, MQA 32/1, 128 channels, causal, batch 1, S 512 ... 32k
  ragged   64 sequences of 100 ... 4,000 tokens, 32/8 heads, against the same tokens as 64 equal sequences; and shorter mixtures
  options  window 1024 at 16k, softcap 50, sink, ALiBi, also against rapt's own plain causal rate
  types    bf16 and f16 in turn, of the same problems
  errors   relative error of rapt and of the peers against float64, two heads, normal scores, and scores that grow towards the first
           key or the last; f32: nine kinds of data
  repeat   1,000 launches of each shape: how many outputs differ in a bit from the first (4k tokens)
  decode   one and four queries over 1k ... 128k keys, batches of 1 ... 64, 32/8 heads, 128 channels, also in pages of 16: decode_gpu.py
  mla      absorbed MLA: one KV head of 576 channels, 16 and 128 query heads, one and two queries, keys in pages: mla_gpu.py
  chunk    32 ... 512 queries over 2k ... 128k keys, batches of 1 and 4, heads and channels as in decode
  masks    a bias (of q's type, or f32) and a boolean mask for each score, 8k tokens, channels 64/128, S 1k and 4k; --dtype bf16,f32
  pages    32 ... 8192 queries over keys in one piece, in pages of 16, 64, 128 and 256, and by the row that takes pages of any size
  tiny     16 tokens x 32 heads; 8 x 40; 4 x 16 x 8, 128 channels, bf16 and f32: 64 launches in one graph
  f32      16k tokens, heads x channels = 2048, channels 64/128
  f32-large f32 with 160, 192 and 256 channels, and 8/2 heads of 256
  f32-more f32 with other head sizes (32, 80, 96, 112), shared KV heads, a window of 1024, ragged batches, sinks, softcap, ALiBi
  small    f32, causal, 4k: data with weights so small that they want products of their own
Protocols: graph: launches of every candidate in a CUDA graph of its own, replayed in turn, in an order drawn anew for each round (seeded:
the same in every run), medians; in a fixed order whoever comes behind a cooler kernel gains. sustained: each alone, --warm s to warm up and
--timed s timed, forward then backward order: long kernels sit at the power limit there; of the peers those of --sustained-peers. A ratio is
rapt's rate / the peer's: above 1 rapt is faster; where both do the same work, that is peer time / rapt time. Same tensors for all; every
output is compared with cuDNN's (f32: memory-efficient) before it is timed.
--rows NAME,... times these kernels of the table against each other as well (--rows all: every one that serves)."""
import argparse
import datetime
import math
import os
import random
import subprocess
import sys
import time

import torch

import flashinfer_gpu
from candidates_gpu import DTYPES, attention_flops, backend, efficient_raw, flash3, flash_dense, flash_varlen, flex, installed, sdpa
from decode_gpu import chunk, decode, pages
from mla_gpu import mla
from masks_gpu import masks
from rapt import append_rows
from rapt_torch import Rapt

FIELDS = "date commit gpu driver torch cudnn protocol group case dtype candidate us tflops ratio share error".split()


# ---- Protocols ---------------------------------------------------------------------------------------------------------------


def once(run):
    """Microseconds of one launch, roughly."""
    a, b = torch.cuda.Event(True), torch.cuda.Event(True)
    run()
    a.record()
    run()
    b.record()
    b.synchronize()
    return a.elapsed_time(b) * 1e3


def graph_of(run, launches):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(launches):
            run()
    return graph


def by_graph(runs, rounds, launches=0):
    """Median microseconds per launch, all candidates in turn, in an order drawn anew for each round."""
    graphs, draw = {}, random.Random(rounds)
    for name, run in runs.items():
        n = launches or max(1, min(64, int(1500 / once(run))))
        try:
            graphs[name] = (graph_of(run, n), n)
        except RuntimeError as problem:
            print(f"   {name} cannot be captured: {str(problem).splitlines()[0][:110]}")
            torch.cuda.synchronize()
    times = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, (graph, n) in draw.sample(list(graphs.items()), len(graphs)):
            a, b = torch.cuda.Event(True), torch.cuda.Event(True)
            a.record()
            graph.replay()
            b.record()
            b.synchronize()
            if i:
                times[name].append(a.elapsed_time(b) * 1e3 / n)
    return {name: sorted(t)[len(t) // 2] for name, t in times.items()}


def by_power(runs, warm=0.2, timed=0.3):
    """Microseconds per launch, each alone, forward then backward order, mean of the two."""
    times = {name: [] for name in runs}
    for name in list(runs) + list(runs)[::-1]:
        run, t = runs[name], once(runs[name]) / 1e6
        for _ in range(int(warm / t) + 1):
            run()
        n = max(4, int(timed / t))
        a, b = torch.cuda.Event(True), torch.cuda.Event(True)
        a.record()
        for _ in range(n):
            run()
        b.record()
        b.synchronize()
        times[name].append(a.elapsed_time(b) * 1e3 / n)
    return {name: sum(t) / len(t) for name, t in times.items()}


# ---- One case ----------------------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, options):
        self.options, self.rapt, self.rows = options, Rapt(options.lib), []
        run = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.strip()
        self.head = {"date": datetime.date.today().isoformat(), "commit": options.commit or run("git", "rev-parse", "--short", "HEAD"),
                     "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cudnn": torch.backends.cudnn.version(),
                     "driver": run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")}
        self.matmul = self.matmul_rate()

    def matmul_rate(self):
        x, y = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        us = by_power({"matmul": lambda: x @ y})["matmul"]
        rate = 2 * 8192 ** 3 / us / 1e6
        print(f"{self.head['gpu']}: bf16 matmul 8192 cubed {rate:.0f} TFLOP/s sustained (the share below is of this)", flush=True)
        return rate

    def kernels_for(self, make):
        """The default kernel, then those of --rows that serve."""
        found = {"rapt": make(None)}
        names = self.options.rows.split(",") if self.options.rows else []
        if names == ["all"]:
            names = self.options.known
        for name in names:
            if name == found["rapt"].kernel:
                continue
            try:
                found["rapt:" + name] = make(name)
            except RuntimeError:
                pass
        return found

    def case(self, group, name, dtype, flops, ours, peers, launches=0, tolerance=None):
        """ours: name -> (run, out tensor); peers: name -> (run, out list, and where it does other work: its operations). The first
        peer that does the same work is the measure of right."""
        tolerance = tolerance or {"bf16": 1e-2, "f16": 2e-3, "f32": 5e-6}[dtype]
        usable, want, work = {}, None, {}
        for peer, (run, out, *other) in peers.items():
            try:
                run()
                torch.cuda.synchronize()
                usable[peer] = run
                if other:
                    work[peer] = other[0]
                elif want is None and ", no " not in peer:
                    want = out[0]
            except (RuntimeError, TypeError, ImportError) as problem:
                print(f"   {name}: {peer} left out: {str(problem).splitlines()[0][:110]}")
        error = {}
        for candidate, (run, out) in list(ours.items()):
            out.fill_(math.nan)
            run()
            torch.cuda.synchronize()
            if want is not None:
                w = want.float() if want.shape == out.shape else want.transpose(1, 2).float()
                error[candidate] = ((out.float() - w).norm() / w.norm()).item()
                if not error[candidate] < tolerance:
                    print(f"WRONG {group} {name} {dtype} {candidate} {run.kernel}: {error[candidate]:.1e} from {list(usable)[0]}", flush=True)
                    continue
            usable[candidate] = run
        for protocol in self.options.protocol.split(","):
            if protocol == "sustained" and launches:
                continue
            if protocol == "graph":
                us = by_graph(usable, self.options.rounds, launches)
            else:
                alone = self.options.sustained_peers.split(",")
                us = by_power({n: run for n, run in usable.items() if n in ours or n in alone}, self.options.warm, self.options.timed)
            self.report(protocol, group, name, dtype, flops, us, ours, error, work)

    def report(self, protocol, group, name, dtype, flops, us, ours, error, work):
        """work: operations of the candidates that do not do `flops`."""
        line = []
        mine = flops / us["rapt"] / 1e6 if "rapt" in us else math.nan
        for candidate, t in us.items():
            tf = work.get(candidate, flops) / t / 1e6
            ratio = mine / tf
            self.rows.append(dict(self.head, protocol=protocol, group=group, case=name, dtype=dtype, candidate=candidate, us=f"{t:.2f}",
                                  tflops=f"{tf:.1f}", ratio=f"{ratio:.3f}", share=f"{tf / self.matmul:.3f}",
                                  error=f"{error.get(candidate, 0):.1e}"))
            unit = f"{tf:.0f} TF" if flops > 2e9 else f"{t:.2f} us"
            line.append(unit if candidate == "rapt" else f"{candidate} {unit} ({ratio:.2f})")
            if candidate == "rapt":
                line.insert(0, line.pop())
        kernel = ours["rapt"][0].kernel if "rapt" in ours else "-"
        print(f"{protocol[0]} {name:24s} {kernel:26s} " + " | ".join(line), flush=True)

    def dense(self, group, name, dtype, b, sq, sk, h, hk, d, causal, peers=("cudnn", "flash2"), launches=0, extra=None, **settings):
        torch.manual_seed(sq + d)
        t = DTYPES[dtype]
        q = torch.randn(b, sq, h, d, device="cuda").to(t)
        k, v = (torch.randn(b, sk, hk, d, device="cuda").to(t) for _ in range(2))
        outs = {}

        def make(kernel):
            out = torch.empty_like(q)
            run = self.rapt.forward(q, k, v, out, kernel=kernel, causal=int(causal), **settings)
            outs[run] = out
            return run
        ours = {n: (run, outs[run]) for n, run in self.kernels_for(make).items()}
        others = {}
        for peer in peers:
            result = [None]
            kv = (k, v) if peer != "efficient" or h == hk else (x.repeat_interleave(h // hk, 2) for x in (k, v))
            others[peer] = (backend(peer, q, *kv, bool(causal), result), result)
        if extra:
            others = extra(q, k, v)
        window = settings.get("window_left", 0)
        self.case(group, name, dtype, attention_flops(b, h, sq, sk, d, d, causal, window), ours, others, launches)


# ---- Groups ------------------------------------------------------------------------------------------------------------------


def grid(bench):
    o = bench.options
    for d in map(int, o.channels.split(",")):
        for causal in map(int, o.masks.split(",")):
            for s in map(int, o.lengths.split(",")):
                bench.dense("grid", f"d{d} {'causal' if causal else 'full'} {s}", o.dtype, 16384 // s, s, s, 2048 // d, 2048 // d, d, causal,
                            o.peers.split(","))


def heads(bench):
    o = bench.options
    for d in (32, 40, 56, 72, 80, 88, 96, 104, 112, 120, 160, 192, 224):
        h = 2048 // d // 2 * 2
        for causal in (1, 0):
            for s in (1024, 4096):
                bench.dense("heads", f"d{d} {'causal' if causal else 'full'} {s}", o.dtype, 16384 // s, s, s, h, h, d, causal, o.peers.split(","))


def vision(bench):
    for s in (256, 576, 729, 1024, 4096):
        bench.dense("vision", f"h16 d72 {s}", bench.options.dtype, 16384 // s, s, s, 16, 16, 72, 0, bench.options.peers.split(","))


def types(bench):
    o = bench.options
    for d in map(int, o.channels.split(",")):
        for causal in map(int, o.masks.split(",")):
            for s in map(int, o.lengths.split(",")):
                torch.manual_seed(s + d)
                h, ours = 2048 // d, {}
                tensors = [torch.randn(16384 // s, s, h, d, device="cuda").to(torch.bfloat16) for _ in range(3)]
                for name, t in (("rapt", torch.bfloat16), ("rapt f16", torch.float16)):
                    x, out = [y.to(t) for y in tensors], torch.empty_like(tensors[0], dtype=t)
                    ours[name] = (bench.rapt.forward(*x, out, causal=causal), out)
                result = [None]
                bench.case("types", f"d{d} {'causal' if causal else 'full'} {s}", "bf16", attention_flops(16384 // s, h, s, s, d, d, causal), ours,
                           {"cudnn": (sdpa("cudnn", *tensors, bool(causal), result), result)})


def models(bench):
    for model, h, hk in (("llama3-8b", 32, 8), ("qwen2-7b", 28, 4), ("llama2-13b", 40, 40), ("mqa", 32, 1)):
        for s in map(int, (bench.options.lengths + ",32768").split(",")):
            bench.dense("models", f"{model} {s}", bench.options.dtype, 1, s, s, h, hk, 128, 1, bench.options.peers.split(","))


def ragged(bench):
    t = DTYPES[bench.options.dtype]
    # Multiplied by 37 modulo 64: all lengths, in no order.
    spread = [100 + (i * 37 % 64) * 3900 // 63 for i in range(64)]
    for name, lengths in (("64 of 100..4000", spread), ("64 of 16..512", [16 + (i * 97) % 497 for i in range(64)]),
                          ("63 short, one of 16k", [256] * 63 + [16384])):
        for h, hk in ((32, 8), (16, 16)):
            starts = torch.tensor([0] + lengths, device="cuda").cumsum(0).to(torch.int32)
            q = torch.randn(sum(lengths), h, 128, device="cuda").to(t)
            k, v = (torch.randn(sum(lengths), hk, 128, device="cuda").to(t) for _ in range(2))
            out, r1, r2, r3 = torch.empty_like(q), [None], [None], [None]
            run = bench.rapt.forward(q, k, v, out, ragged=True, causal=1, q_start=starts, kv_start=starts)
            flops = sum(attention_flops(1, h, n, n, 128, 128, 1) for n in lengths)
            mean = sum(lengths) // 64
            equal = [x[:64 * mean].view(64, mean, -1, 128) for x in (q, k, v)]
            peers = {"flash2": (flash_varlen(q, k, v, starts, max(lengths), True, r1), r1),
                     "flash3": (flash3(q, k, v, True, r3, starts=starts, longest=max(lengths)), r3),
                     "cudnn, equal lengths": (sdpa("cudnn", *equal, True, r2), r2, attention_flops(64, h, mean, mean, 128, 128, 1))}
            peers["flash2"][0]()
            peers.update(flashinfer_gpu.ragged(q, k, v, starts, r1[0]))
            bench.case("ragged", f"{name} {h}/{hk}", bench.options.dtype, flops, {"rapt": (run, out)}, peers)


def options_group(bench):
    dtype, heads = bench.options.dtype, 16
    results = [[None] for _ in range(8)]
    slopes = torch.exp2(-torch.arange(1, heads + 1, device="cuda").float() / 2)
    sinks = torch.randn(heads, device="cuda")
    def plain(q, k, v):
        """rapt's own plain causal run over the same tensors."""
        out, (b, s, h, d) = [torch.empty_like(q)], q.shape
        run = bench.rapt.forward(q, k, v, out[0], causal=1)
        return {"rapt, plain": (run, out, attention_flops(b, h, s, s, d, d, 1))}
    for s in (4096, 16384):
        b = 16384 // s
        bench.dense("options", f"window 1024 {s}", dtype, b, s, s, heads, heads, 128, 1, window_left=1025,
                    extra=lambda q, k, v: {"flash2": (flash_dense(q, k, v, True, results[0], 1024), results[0]), **plain(q, k, v),
                                           "cudnn, no window": (sdpa("cudnn", q, k, v, True, results[6]), results[6])})
        def capped(q, k, v):
            other = {"flash3": (flash3(q, k, v, True, results[7], softcap=50.0), results[7])} if dtype == "bf16" else {}
            return {**other, "flex": (flex(q, k, v, results[1], lambda x, b, h, i, j: 50 * torch.tanh(x / 50), lambda b, h, i, j: i >= j),
                             results[1])} if bench.options.flex else other
        bench.dense("options", f"softcap 50 {s}", dtype, b, s, s, heads, heads, 128, 1, softcap=50.0,
                    extra=lambda q, k, v: {**capped(q, k, v), **plain(q, k, v),
                                           "cudnn, no softcap": (sdpa("cudnn", q, k, v, True, results[2]), results[2])})
        bench.dense("options", f"alibi {s}", dtype, b, s, s, heads, heads, 128, 1, alibi_slope=slopes,
                    extra=lambda q, k, v: {"flash2": (flash_dense(q, k, v, True, results[3], slopes=slopes), results[3]), **plain(q, k, v)})

        def with_sink(q, k, v):
            """The same values from cuDNN: its output and log-sum-exp, then the sink's share, as PyTorch users do it; and without."""
            qt, kt, vt = (x.transpose(1, 2) for x in (q, k, v))

            def run():
                o, lse = torch.ops.aten._scaled_dot_product_cudnn_attention(qt, kt, vt, None, True, 0.0, True)[:2]
                share = torch.sigmoid(lse.reshape(o.shape[:3]) - sinks[None, :, None])
                results[4][0] = (o * share[..., None].to(o.dtype)).transpose(1, 2)
            return {"cudnn + rescale": (run, results[4]), **plain(q, k, v), "cudnn, no sink": (sdpa("cudnn", q, k, v, True, results[5]), results[5])}
        bench.dense("options", f"sink {s}", dtype, b, s, s, heads, heads, 128, 1, sink=sinks, extra=with_sink)


def tiny(bench):
    for dtype in ("bf16", "f32"):
        peers = bench.options.peers.split(",") if dtype == "bf16" else ("efficient",)
        for b, s, h in ((1, 16, 32), (1, 8, 40), (4, 16, 8)):
            for causal in (0, 1):
                bench.dense("tiny", f"{b}x{s} {h} heads{' causal' if causal else ''}", dtype, b, s, s, h, h, 128, causal, peers, launches=64)


def f32(bench):
    for d in (64, 128):
        for causal in (1, 0):
            for s in map(int, bench.options.lengths.split(",")):
                bench.dense("f32", f"d{d} {'causal' if causal else 'full'} {s}", "f32", 16384 // s, s, s, 2048 // d, 2048 // d, d, causal,
                            ("efficient",))


def f32_large(bench):
    lengths = list(map(int, bench.options.lengths.split(",")))
    for d in (256, 192, 160):
        for causal in (1, 0):
            for s in lengths:
                bench.dense("f32-large", f"d{d} {'causal' if causal else 'full'} {s}", "f32", 16384 // s, s, s, 2048 // d, 2048 // d, d, causal,
                            ("efficient",))
    for s in lengths:
        bench.dense("f32-large", f"d256 8/2 causal {s}", "f32", 16384 // s, s, s, 8, 2, 256, 1, ("efficient",))


def f32_more(bench):
    lengths = list(map(int, bench.options.lengths.split(",")))
    for d in (32, 80, 96, 112):
        for causal in (1, 0):
            for s in lengths:
                bench.dense("f32-more", f"d{d} {'causal' if causal else 'full'} {s}", "f32", 16384 // s, s, s, 2048 // d, 2048 // d, d, causal,
                            ("efficient",))
    for s in lengths:
        bench.dense("f32-more", f"d96 32/8 causal {s}", "f32", 1, s, s, 32, 8, 96, 1, ("efficient",))
    for d in (64, 128):
        for s in (length for length in lengths if length > 1024):
            out = [None]
            bench.dense("f32-more", f"d{d} window 1024 {s}", "f32", 16384 // s, s, s, 2048 // d, 2048 // d, d, 1, window_left=1024,
                        extra=lambda q, k, v: {"efficient": (efficient_raw(q, k, v, out, window=1024), out)})
    f32_ragged(bench)
    s = lengths[-1]
    slopes = torch.exp2(-torch.arange(1, 17, device="cuda").float() / 2)
    flops = attention_flops(16384 // s, 16, s, s, 128, 128, 1)
    for name, settings in (("sink", {"sink": torch.randn(16, device="cuda")}), ("softcap 50", {"softcap": 50.0}), ("alibi", {"alibi_slope": slopes})):
        out = [None]
        bench.dense("f32-more", f"{name} {s}", "f32", 16384 // s, s, s, 16, 16, 128, 1, **settings,
                    extra=lambda q, k, v: {"efficient, without": (sdpa("efficient", q, k, v, True, out), out, flops)})


def f32_ragged(bench):
    spread = [100 + (i * 37 % 16) * 1900 // 15 for i in range(16)]
    for name, lengths in (("16 of 100..2000", spread), ("15 short, one of 8k", [256] * 15 + [8192])):
        for d in (64, 128):
            h, starts = 2048 // d, torch.tensor([0] + lengths, device="cuda").cumsum(0).to(torch.int32)
            q, k, v = (torch.randn(sum(lengths), h, d, device="cuda") for _ in range(3))
            outs, result = {}, [None]

            def make(kernel):
                out = torch.empty_like(q)
                run = bench.rapt.forward(q, k, v, out, kernel=kernel, ragged=True, causal=1, q_start=starts, kv_start=starts)
                outs[run] = out
                return run
            ours = {n: (run, outs[run].unsqueeze(0)) for n, run in bench.kernels_for(make).items()}
            packed = [x.unsqueeze(0) for x in (q, k, v)]
            bench.case("f32-more", f"d{d} ragged {name}", "f32", sum(attention_flops(1, h, n, n, d, d, 1) for n in lengths), ours,
                       {"efficient": (efficient_raw(*packed, result, starts, max(lengths)), result)})


def head_in_f64(q, k, v, causal, b, h):
    """One head of one sequence; bottom-right mask."""
    x, y, z = (t[b, :, h].double() for t in (q, k, v))
    s = x @ y.T * x.shape[1] ** -0.5
    if causal:
        s.masked_fill_(torch.ones_like(s, dtype=torch.bool).triu(1 + s.shape[1] - s.shape[0]), -math.inf)
    return s.softmax(1) @ z


def error_data(kind, s, d, heads=2):
    """q, k, v in f32: two sequences. Rows are scaled by powers of two; where keys or queries are, scores stay below a few."""
    q, k, v = (torch.randn(2, s, heads, d, device="cuda") for _ in range(3))
    powers = lambda low, high: torch.exp2(torch.randint(low, high + 1, (2, s, heads, 1), device="cuda").float())
    if kind.startswith("growing"):  # towards the key that a kernel works on last, its reference is raised all the time
        slope = torch.linspace(0, 1, s, device="cuda") if kind == "growing to the last" else torch.linspace(1, 0, s, device="cuda")
        return q.abs(), 0.5 * k + 4 * slope[None, :, None, None], v
    if kind == "wide values":
        return q, k, v * powers(-20, 20)
    if kind == "wide keys":
        return q, k * powers(-38, 2), v
    if kind == "wide queries":
        return q * powers(-38, 2), k, v
    if kind == "cancelling":  # neighbours of opposite sign, the sum a thousandth of them
        return q, k, torch.where(torch.arange(s, device="cuda")[None, :, None, None] % 2 == 0, 64.0, -64.0) * (1 + 1e-3 * v)
    if kind == "peaked":
        return 8 * q, k, v
    if kind.endswith("strong key"):  # the first one: with q times 2 each other weighs 2^-23 of it or so
        q[..., 0], k[..., 0], k[:, 0] = 1, 0, 0
        k[:, 0, :, 0] = 8 * d ** 0.5
    if kind.startswith("q times"):
        return q * float(kind.split()[2].rstrip(",")), k, v
    if kind == "tiny":
        return q, k, v * 1e-30
    if kind == "huge":
        return q * 1e10, k * 1e-10, v * 1e30
    return q, k, v


ERROR_KINDS = {"f32": ("", "wide values", "wide keys", "wide queries", "cancelling", "peaked", "growing", "tiny", "huge")}


def worst_errors(outs, q, k, v, causal):
    """By name, relative, of the first head and another one."""
    worst = dict.fromkeys(outs, 0.0)
    for b, h in ((0, 0), (1, 1)):
        want = head_in_f64(q, k, v, causal, b, h)
        for name, x in outs.items():
            worst[name] = max(worst[name], ((x[b, :, h].double() - want).norm() / want.norm()).item())
    return worst


def small_weights(bench, s=4096):
    """f32, causal: time and error on data with weights so small that they want a product of their own."""
    for d in (64, 128):
        for kind in ("q times 1", "q times 2", "q times 4", "q times 8", "q times 2, strong key"):
            torch.manual_seed(s + d)
            q, k, v = error_data(kind, s, d, 2048 // d)
            out, result = torch.empty_like(q), [None]
            runs = {"rapt": bench.rapt.forward(q, k, v, out, causal=1), "efficient": sdpa("efficient", q, k, v, True, result)}
            us = by_graph(runs, bench.options.rounds)
            worst = worst_errors({"rapt": out, "efficient": result[0].transpose(1, 2)}, q, k, v, 1)
            flops = attention_flops(2, 2048 // d, s, s, d, d, 1)
            print(f"small d{d} {kind:24s} " + " | ".join(f"{n} {flops / us[n] / 1e6:.0f} TFLOP/s ({us[n] / us['rapt']:.3f}) {e:.2e} "
                                                         f"({worst['rapt'] / e:.3f})" for n, e in worst.items()), flush=True)
            for n, e in worst.items():
                bench.rows.append(dict(bench.head, protocol="graph", group="small", case=f"d{d} causal {s} {kind}", dtype="f32", candidate=n,
                                       us=f"{us[n]:.2f}", tflops=f"{flops / us[n] / 1e6:.1f}", ratio=f"{us[n] / us['rapt']:.3f}", error=f"{e:.2e}"))


def errors(bench):
    o = bench.options
    for d in map(int, o.channels.split(",")):
        for causal in map(int, o.masks.split(",")):
            for s in map(int, o.lengths.split(",")):
                for kind in ERROR_KINDS.get(o.dtype, ("", "growing", "growing to the last")):
                    torch.manual_seed(s + d)
                    q, k, v = (x.to(DTYPES[o.dtype]) for x in error_data(kind, s, d))
                    out, result = torch.empty_like(q), [None]
                    bench.rapt.forward(q, k, v, out, causal=causal)()
                    runs = {"rapt": out}
                    for peer in ("efficient",) if o.dtype == "f32" else [p for p in o.peers.split(",") if p != "flash3" or o.dtype == "bf16"]:
                        backend(peer, q, k, v, bool(causal), result)()
                        runs[peer] = result[0].transpose(1, 2)
                    worst = worst_errors(runs, q, k, v, causal)
                    name = f"d{d} {'causal' if causal else 'full'} {s}{' ' + kind if kind else ''}"
                    print(f"errors {name:32s} {o.dtype} " + " | ".join(f"{n} {e:.2e} ({worst['rapt'] / e:.3f})" for n, e in worst.items()), flush=True)
                    for candidate, e in worst.items():
                        bench.rows.append(dict(bench.head, protocol="errors", group="errors", case=name, dtype=o.dtype, candidate=candidate,
                                               ratio=f"{worst['rapt'] / e:.3f}", error=f"{e:.2e}"))


def repeat(bench, launches=1000):
    o = bench.options
    for d in map(int, o.channels.split(",")):
        for causal in map(int, o.masks.split(",")):
            for s in map(int, o.lengths.split(",")):
                torch.manual_seed(s + d)
                q, k, v = (torch.randn(max(1, 4096 // s), s, 2048 // d, d, device="cuda").to(DTYPES[o.dtype]) for _ in range(3))
                out, differing = torch.full_like(q, math.nan), torch.zeros((), device="cuda", dtype=torch.int64)
                run = bench.rapt.forward(q, k, v, out, causal=causal)
                run()
                first = out.clone()
                for _ in range(launches):
                    run()
                    differing += (out.view(torch.int16) != first.view(torch.int16)).any()
                print(f"repeat d{d} {'causal' if causal else 'full'} {s} {o.dtype} {run.kernel}: {differing.item()} of {launches} differ", flush=True)
                bench.rows.append(dict(bench.head, protocol="repeat", group="repeat", case=f"d{d} {'causal' if causal else 'full'} {s}",
                                       dtype=o.dtype, candidate="rapt", error=f"{differing.item()} of {launches} differ"))


GROUPS = {"grid": grid, "heads": heads, "vision": vision, "types": types, "models": models, "ragged": ragged, "options": options_group, "tiny": tiny, "f32": f32,
          "f32-large": f32_large, "f32-more": f32_more, "errors": errors, "repeat": repeat, "small": small_weights, "decode": lambda bench: decode(bench, graph_of),
          "chunk": lambda bench: chunk(bench, graph_of), "pages": lambda bench: pages(bench, graph_of), "mla": lambda bench: mla(bench, graph_of),
          "masks": masks}


# ---- Results -----------------------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", default="build/librapt.so")
    parser.add_argument("--out", default="bench/results", help="folder of the rows, pytorch_gpu.csv")
    parser.add_argument("--csv", default="", help="another file that the rows are appended to")
    parser.add_argument("--commit", default="", help="for the CSV, where git cannot tell")
    parser.add_argument("--only", default="grid")
    parser.add_argument("--protocol", default="graph")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--channels", default="64,128,256")
    parser.add_argument("--masks", default="1,0", help="1 causal, 0 full")
    parser.add_argument("--lengths", default="512,1024,2048,4096,8192,16384")
    parser.add_argument("--peers", default="cudnn,flash2,efficient,flash3")
    parser.add_argument("--sustained-peers", default="cudnn,flash2,efficient,flash3")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warm", type=float, default=0.2, help="seconds before each sustained measurement")
    parser.add_argument("--timed", type=float, default=0.3, help="seconds of each sustained measurement")
    parser.add_argument("--flex", action="store_true", help="FlexAttention as well, compiled first (half a minute)")
    parser.add_argument("--decode", default="", help="batch x keys of the groups decode, chunk and pages, as 1x8k,16x1k; all")
    parser.add_argument("--queries", default="", help="of the group chunk, with --decode, as 160,320")
    parser.add_argument("--kv", default="", help="K and V of the groups decode and chunk: bf16,i8,i8 block32; all")
    parser.add_argument("--rows", default="", help="kernels of the table to time as well, or all")
    options = parser.parse_args()
    for name in ("peers", "sustained_peers"):
        setattr(options, name, ",".join(installed(getattr(options, name).split(","))))
    torch.backends.cuda.matmul.allow_tf32 = False
    bench = Bench(options)
    options.known = bench.rapt.kernels()
    for group in options.only.split(","):
        begin = time.time()
        try:
            GROUPS[group](bench)
            print(f"{group}: {time.time() - begin:.0f} s", flush=True)
        except RuntimeError as problem:
            print(f"{group} stopped: {str(problem)[:300]}")
            if "CUDA" in str(problem):
                break
    os.makedirs(options.out, exist_ok=True)
    options.csv = options.csv or os.path.join(options.out, "pytorch_gpu.csv")
    append_rows(options.csv, FIELDS, bench.rows)
    print(f"{len(bench.rows)} lines in {options.csv}")
    sys.exit(not bench.rows)


if __name__ == "__main__":
    main()
