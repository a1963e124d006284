"""check_gpu.py: rapt on a GPU against attention in float64, on shapes and options where a tiled kernel can go wrong.

usage: python3 bench/peers/check_gpu.py [--lib build/librapt.so] [--dtype bf16,f16,f32] [--match TEXT] [--random 10000 [--seed 1]] [--jobs 8]
--random N: N problems of random sizes and options in place of the listed ones.
Each element of the output and of the log-sum-exp is held against the bound that tests/bound.c derives (--plant: and a fault is found).
Every output starts as NaN; keys past a length and whole neighbouring sequences hold NaN. One line per case that fails, and a count.
The library's own conformance suite is the real test; this one needs nothing but the shared library and PyTorch."""
import argparse
import math
import multiprocessing
import random
import sys

import torch

from rapt_torch import Rapt

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
U, TINY = 2.0 ** -24, 2.0 ** -126  # of f32: last bit, smallest normal number
# What each type computes with, as tests/bound.c has it: error of one step of a sum, of a weight before p v, of a small weight, of the output.
ROUNDING = {torch.float32: (U, 0, TINY, U, TINY), torch.float16: (1.25 * 2 ** -23, 2 ** -11, 2 ** -25, 2 ** -11, 2 ** -25),
            torch.bfloat16: (1.25 * 2 ** -23, 2 ** -8, TINY, 2 ** -8, TINY)}
OUTPUT = {t: x[3:] for t, x in ROUNDING.items()}


def gamma(n, unit):
    """Relative error of n roundings (Higham 2002, lemma 3.1)."""
    return torch.where(n * unit < 0.5, n * unit / (1 - n * unit), 1.0)


class Row:
    """One sequence in float64 and how far a result may lie from it, tests/bound.c's bound without its i8: q [Sq, H, D], k [Sk, Hkv, D],
    v [Sk, Hkv, Dv]."""

    def __init__(self, q, k, v, causal=0, align=0, left=0, right=0, softcap=0.0, scale=0.0, slope=None, sink=None):
        sq, heads, d = q.shape
        sk, group = k.shape[0], heads // max(1, k.shape[1])
        q, k, self.v = q.double(), k.double().repeat_interleave(group, 1), v.double().repeat_interleave(group, 1)
        scale = scale or d ** -0.5
        s = torch.einsum("qhd,khd->hqk", q, k) * scale
        self.product, self.channels, self.softcap = s.abs(), d, softcap
        self.magnitude, self.smallest = torch.einsum("qhd,khd->hqk", q.abs(), k.abs()) * abs(scale), abs(scale) * d * 2.0 ** -120
        if softcap:
            s = softcap * torch.tanh(s / softcap)
        offset = 0 if align else sk - sq
        distance = torch.arange(sk, device=q.device)[None, :] - torch.arange(sq, device=q.device)[:, None] - offset
        self.added = torch.zeros((), device=q.device, dtype=torch.float64)
        if slope is not None:
            self.added = (slope.double()[:, None, None] * distance.abs()).abs()
            s = s - slope.double()[:, None, None] * distance.abs()
        hidden = torch.zeros_like(distance, dtype=torch.bool)
        if causal:
            hidden |= distance > 0
        if left:
            hidden |= distance < -(left - 1)
        if right:
            hidden |= distance > right - 1
        self.score, self.seen = s.masked_fill(hidden, -math.inf), ~hidden
        self.sink = None if sink is None else sink.double()[:, None].expand(heads, sq)
        both = self.score if sink is None else torch.cat([self.score, self.sink[:, :, None]], 2)
        self.lse = both.logsumexp(2)
        self.maximum = both.amax(2) if both.shape[2] else torch.full_like(self.lse, -math.inf)
        self.p = torch.exp(self.score - torch.where(self.lse.isinf(), 0, self.lse)[:, :, None])
        self.out = torch.einsum("hqk,khd->qhd", self.p, self.v)

    def records(self):
        """How often the largest score so far changes, from either end: no more than longest_rise()."""
        most = torch.zeros_like(self.lse)
        for x in (self.score, self.score.flip(2)):
            if x.shape[2]:
                top = torch.cummax(x, 2)[0]
                most = torch.maximum(most, (top[:, :, 1:] > top[:, :, :-1]).sum(2).double() + (x[:, :, 0] > -math.inf))
        return most

    def longest_rise(self):
        """Of the visible scores, from either end: the maxima of an engine in any order of blocks cannot rise more often."""
        most, seen = torch.zeros_like(self.lse), torch.where(self.score > -math.inf, self.score, math.inf)
        for x in (seen, seen.flip(2)):
            piles = torch.full((*x.shape[:2], x.shape[2] + 1), math.inf, device=x.device, dtype=x.dtype)
            for j in range(x.shape[2]):
                at = torch.searchsorted(piles, x[:, :, j:j + 1].contiguous())
                piles.scatter_(2, at, x[:, :, j:j + 1])
            most = torch.maximum(most, piles.isfinite().sum(2).double())
        return most

    def bounds(self, dtype, out_dtype, rises):
        """Of each element of out and lse; rises: [H, Sq]."""
        step, weight, floor, _, _ = ROUNDING[dtype]
        finite = torch.where(self.seen, self.score, 0)
        top = torch.where(self.maximum.isinf(), 0, self.maximum)
        visible = self.seen.sum(1).double().expand_as(self.lse)
        rises = rises + 2
        sums = gamma(visible + rises, step)
        fixed = (8 + 10 * rises) * U
        e = (gamma(torch.tensor(self.channels + 2.0, device=top.device), step) * self.magnitude + 4 * U * self.product + 2 * U * finite.abs() +
             3 * U * self.added + 8 * U * self.softcap + self.smallest + 4 * U * (finite - top[:, :, None]).abs() + fixed[:, :, None])
        largest = torch.where(self.p > 0, e, 0).amax(2) if e.shape[2] else torch.zeros_like(top)
        e = torch.where(self.p > 0, torch.expm1(e.clamp(max=700)), 0)
        total = torch.exp(self.lse - top)  # of exp(score - maximum)
        s = (self.p * e).sum(2) + sums + visible * TINY / total
        if self.sink is not None:
            of_sink = 2 * U * self.sink.abs() + 4 * U * (self.sink - top).abs() + fixed
            s = s + torch.exp(self.sink - self.lse) * torch.expm1(of_sink)
            largest = torch.maximum(largest, of_sink)
        size, seen, turned = self.v.abs(), self.seen.double(), lambda x: x.transpose(0, 1)[:, :, None]
        by_weight = lambda w: torch.einsum("hqk,khd->qhd", w, size)
        numerator = by_weight(self.p * (e * (1 + weight) + weight)) + turned(sums) * by_weight(self.p)
        numerator += floor / turned(total) * torch.einsum("qk,khd->qhd", seen, size)
        most = size.amax(0)[None] if size.shape[0] else 0
        out, s = self.out.abs(), turned(s)
        bound = torch.where(s < 0.5, (numerator + out * s) / (1 - s) + 3 * U * out, math.inf)
        bound = torch.minimum(bound, most + out)
        unit, smallest = OUTPUT[out_dtype]
        bound = bound + unit * (out + bound) + smallest + (2 + turned(visible / total)) * TINY
        empty = turned(self.lse.isinf() | (visible == 0))
        s = s[:, :, 0].transpose(0, 1)
        lse = torch.minimum(torch.where(s < 0.5, -torch.log1p(-s.clamp(max=0.5)), math.inf), largest + sums)
        return torch.where(empty, 0, bound), lse + U * (4 + 2 * self.lse.abs() + 2 * top.abs())


def fraction(got, want, bound):
    """Of the bound, at the worst element; infinities must be where they belong."""
    off = (got - want).abs()
    worst = torch.where((got == want) | (off == 0), 0, off / bound)
    return torch.where(worst.isnan(), math.inf, worst).amax().item() if worst.numel() else 0


def without_heaviest(row, out):
    """A planted fault: the heaviest key of the last row that sees one is not there."""
    if not row.p.numel():
        return out
    p, j = row.p[0].max(1)
    some = (p > 0).nonzero()
    if not some.numel():
        return out
    i = some[-1].item()
    out = out.clone()
    out[i, 0] = ((out[i, 0].double() - p[i] * row.v[j[i], 0]) / (1 - p[i]).clamp(min=1e-3)).to(out.dtype)
    return out


def errors(out, lse, row, dtype, plant=False):
    """Fraction of the bound, the worse of out and lse, and relative error of out."""
    if plant:
        out = without_heaviest(row, out)
    got, got_lse, worst = out.double(), lse.double(), math.inf
    for rises in (row.records, row.longest_rise):  # the bound of fewer rises is the lower one, and quick to have
        bound, lse_bound = row.bounds(dtype, out.dtype, rises())
        worst = max(fraction(got, row.out, bound), fraction(got_lse, row.lse, lse_bound))
        if worst <= 1:
            break
    size = row.out.norm().item()
    return worst, (got - row.out).norm().item() / size if size else 0


def randn(*shape, dtype):
    return torch.randn(*shape, device="cuda").to(dtype)


def dense(rapt, dtype, b, sq, sk, h, hk, d, dv, kernel=None, grow=0, **options):
    q, k, v = randn(b, sq, h, d, dtype=dtype), randn(b, sk, hk, d, dtype=dtype), randn(b, sk, hk, dv, dtype=dtype)
    if grow:  # scores that grow towards the first key, the last one worked on: the running maximum moves all the time
        k *= torch.linspace(grow, 0.1, sk, device="cuda").to(dtype)[None, :, None, None]
    lengths = options.pop("lengths", None)
    out_dtype = options.pop("out_dtype", dtype)
    ref = {"causal": options.get("causal", 0), "align": options.get("align", 0), "left": options.get("window_left", 0),
           "right": options.get("window_right", 0), "softcap": options.get("softcap", 0.0), "scale": options.get("scale", 0.0)}
    if options.pop("alibi", 0):
        options["alibi_slope"] = torch.exp2(-torch.arange(1, h + 1, device="cuda").float() * 8 / h)
    if options.pop("sinks", 0):
        options["sink"] = torch.randn(h, device="cuda") * 2
    if lengths:
        options["kv_length"] = torch.tensor(lengths, device="cuda", dtype=torch.int32)
        for i, n in enumerate(lengths):
            k[i, n:] = math.nan
            v[i, n:] = math.nan
    out = torch.full((b, sq, h, dv), math.nan, device="cuda", dtype=out_dtype)
    lse = torch.full((b, h, sq), math.nan, device="cuda")
    run = rapt.forward(q, k, v, out, lse, kernel, **options)
    run()
    torch.cuda.synchronize()
    first, first_lse = out.clone(), lse.clone()
    run()
    torch.cuda.synchronize()
    if not (torch.equal(first.isnan(), out.isnan()) and torch.equal(first.nan_to_num(), out.nan_to_num()) and torch.equal(first_lse, lse)):
        return run.kernel, math.inf, math.inf
    worst = [0, 0]
    for i in range(b):
        n = lengths[i] if lengths else sk
        e = errors(out[i], lse[i], Row(q[i], k[i, :n], v[i, :n], slope=options.get("alibi_slope"), sink=options.get("sink"), **ref), dtype, rapt.plant)
        worst = [max(worst[0], e[0]), max(worst[1], e[1])]
    return run.kernel, *worst


def ragged(rapt, dtype, q_lengths, kv_lengths, h, hk, d, poison=None, **options):
    starts = [torch.tensor([0] + list(x), device="cuda").cumsum(0).to(torch.int32) for x in (q_lengths, kv_lengths)]
    q, k, v = randn(sum(q_lengths), h, d, dtype=dtype), randn(sum(kv_lengths), hk, d, dtype=dtype), randn(sum(kv_lengths), hk, d, dtype=dtype)
    q0, k0 = starts[0].tolist(), starts[1].tolist()
    if poison is not None:
        for x, at in ((q, q0), (k, k0), (v, k0)):
            x[at[poison]:at[poison + 1]] = math.nan
    out, lse = torch.full_like(q, math.nan), torch.full((h, q.shape[0]), math.nan, device="cuda")
    run = rapt.forward(q, k, v, out, lse, ragged=True, q_start=starts[0], kv_start=starts[1], **options)
    run()
    torch.cuda.synchronize()
    worst = [0, 0]
    for i in range(len(q_lengths)):
        if i == poison:
            continue
        s, t = slice(q0[i], q0[i + 1]), slice(k0[i], k0[i + 1])
        e = errors(out[s], lse[:, s], Row(q[s], k[t], v[t], options.get("causal", 0), options.get("align", 0), options.get("window_left", 0),
                                          options.get("window_right", 0)), dtype, rapt.plant)
        worst = [max(worst[0], e[0]), max(worst[1], e[1])]
    return run.kernel, *worst


def cases():
    """(name, function of (rapt, dtype))."""
    def add(name, function, *args, **options):
        listed.append((name, lambda r, t: function(r, t, *args, **options)))
    listed = []
    for d, dv in ((64, 64), (128, 128), (256, 256), (96, 96), (192, 192), (192, 128), (80, 80), (40, 40), (160, 160), (112, 112), (72, 40)):
        for causal in (0, 1):
            for b, sq, sk, h, hk in ((2, 512, 512, 4, 2), (1, 1000, 1000, 3, 1), (1, 77, 333, 2, 2), (3, 200, 1025, 4, 4), (2, 1, 129, 2, 1),
                                     (1, 333, 77, 2, 2)):
                add(f"d{d}/{dv} causal{causal} {b}x{sq}x{sk} h{h}/{hk}", dense, b, sq, sk, h, hk, d, dv, causal=causal)
    for d in (64, 128, 256):
        for causal in (0, 1):
            add(f"d{d} causal{causal} many tiles", dense, 4, 640, 640, 40, 8, d, d, causal=causal)
            add(f"d{d} causal{causal} long", dense, 1, 4224, 4224, 2, 2, d, d, causal=causal)
            add(f"d{d} causal{causal} growing scores", dense, 1, 1500, 1500, 2, 2, d, d, causal=causal, grow=8)
            add(f"d{d} causal{causal} kv_length", dense, 5, 300, 700, 4, 2, d, d, causal=causal, lengths=[700, 0, 1, 129, 400])
            add(f"d{d} causal{causal} window", dense, 2, 900, 900, 2, 2, d, d, causal=causal, window_left=101)
            add(f"d{d} causal{causal} window both", dense, 2, 700, 900, 2, 2, d, d, causal=causal, window_left=1, window_right=301)
            add(f"d{d} causal{causal} softcap", dense, 1, 500, 600, 2, 2, d, d, causal=causal, softcap=5.0)
            add(f"d{d} causal{causal} sink", dense, 1, 500, 400, 4, 2, d, d, causal=causal, sinks=1)
            add(f"d{d} causal{causal} alibi", dense, 1, 500, 600, 8, 2, d, d, causal=causal, alibi=1)
            add(f"d{d} causal{causal} f32 out", dense, 1, 300, 300, 2, 2, d, d, causal=causal, out_dtype=torch.float32)
            add(f"d{d} causal{causal} negative scale", dense, 1, 300, 300, 2, 2, d, d, causal=causal, scale=-0.1)
            add(f"d{d} causal{causal} everything", dense, 3, 400, 600, 4, 2, d, d, causal=causal, softcap=20.0, sinks=1, alibi=1, window_left=257,
                lengths=[600, 350, 17])
            add(f"d{d} causal{causal} ragged", ragged, (300, 0, 1, 129, 700, 64), (300, 50, 77, 129, 900, 0), 4, 2, d, causal=causal)
            add(f"d{d} causal{causal} ragged, NaN neighbour", ragged, (300, 130, 200), (300, 130, 333), 4, 2, d, poison=1, causal=causal)
            add(f"d{d} causal{causal} ragged window", ragged, (300, 513, 200), (400, 513, 200), 2, 1, d, causal=causal, window_left=65)
            add(f"d{d} causal{causal} 64 ragged", ragged, tuple(range(1, 641, 10)), tuple(range(1, 641, 10)), 2, 1, d, causal=causal)
        add(f"d{d} top-left", dense, 2, 300, 700, 2, 2, d, d, causal=1, align=1)
        add(f"d{d} top-left tall", dense, 2, 700, 300, 2, 2, d, d, causal=1, align=1)
        add(f"d{d} rows without keys", dense, 2, 700, 300, 2, 2, d, d, causal=1)
        add(f"d{d} window without keys", dense, 1, 900, 200, 2, 2, d, d, causal=1, align=1, window_left=51)
    return listed


def random_case(seed):
    """(name, function) of a random problem: sizes around tile edges and small ones, any options together."""
    r = random.Random(seed)
    tokens = lambda: r.choice((1, r.randint(1, 40), r.randint(41, 300), r.randint(1, 5) * 64 + r.randint(-1, 1), r.randint(301, 700)))
    d, dv = r.choice(((64, 64), (64, 64), (128, 128), (128, 128), (256, 256), (96, 96), (192, 128), (80, 80), (32, 32), (8, 24), (72, 40)))
    hk = r.choice((1, 1, 2, 3))
    h, causal = hk * r.choice((1, 1, 2, 4)), r.randint(0, 1)
    options = {"causal": causal}
    if r.random() < 0.2:
        options["align"] = 1
    if r.random() < 0.25:
        options["window_left"] = r.randint(1, 300)
    if r.random() < 0.15 and not causal:
        options["window_right"] = r.randint(1, 300)
    if r.random() < 0.3 and d == dv:
        count = r.randint(1, 5)
        lengths = [[r.choice((0, 1, tokens(), tokens())) for _ in range(count)] for _ in range(2)]
        if not sum(lengths[0]) or not sum(lengths[1]):
            lengths[0][0] = lengths[1][0] = 77
        return f"ragged {lengths} h{h}/{hk} d{d} {options}", lambda rapt, t: ragged(rapt, t, *lengths, h, hk, d, **options)
    b, sq, sk = r.randint(1, 3), tokens(), tokens()
    for name, value, share in (("softcap", r.uniform(2, 50), 0.15), ("scale", r.uniform(0.02, 0.3), 0.15), ("alibi", 1, 0.1), ("sinks", 1, 0.1),
                               ("grow", 8, 0.1), ("lengths", [r.randint(0, sk) for _ in range(b)], 0.15)):
        if r.random() < share:
            options[name] = value
    name = f"{b}x{sq}x{sk} h{h}/{hk} d{d}/{dv} {options}"
    return name, lambda rapt, t: dense(rapt, t, b, sq, sk, h, hk, d, dv, **options)


def check(options, part=0, parts=1):
    """Every parts-th case from `part` on: how many, failed, served by no kernel, and the worst fraction by kernel; None: the device stopped."""
    rapt = Rapt(options.lib)
    rapt.plant = options.plant
    failed = count = refused = 0
    worst = {}
    names = options.dtype.split(",")
    listed = [(name, *case) for name in names for case in cases() if options.match in case[0]]
    if options.random:
        listed = ((names[i % len(names)], *random_case(options.seed * 1000003 + i)) for i in range(options.random))
    for i, (name, case, function) in enumerate(listed):
        if i % parts != part:
            continue
        torch.manual_seed(i)
        count += 1
        try:
            kernel, part_of_bound, error = function(rapt, DTYPES[name])
        except RuntimeError as problem:
            kernel, part_of_bound, error = str(problem).splitlines()[0][:200], math.inf, math.inf
            if options.random and "no kernel of" in str(problem):
                refused += 1
                continue
            if "CUDA" in str(problem):
                print("stopped:", name, case, problem, flush=True)
                return None
        worst[kernel] = max(worst.get(kernel, 0), part_of_bound if part_of_bound < math.inf else 0)
        if not part_of_bound <= 1:
            failed += 1
            if not options.plant:
                print(f"FAILED {name} {case}: {kernel} {part_of_bound:.2f} of the bound, relative error {error:.1e}", flush=True)
    return count, failed, refused, worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", default="build/librapt.so")
    parser.add_argument("--dtype", default="bf16,f16,f32")
    parser.add_argument("--match", default="")
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the cases")
    parser.add_argument("--plant", action="store_true", help="leaves the heaviest key out of one row of each outcome")
    options = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        results = pool.starmap(check, [(options, i, options.jobs) for i in range(options.jobs)])
    if None in results:
        sys.exit(1)
    count, failed, refused = (sum(r[i] for r in results) for i in range(3))
    worst = {kernel: max(r[3].get(kernel, 0) for r in results) for kernel in sorted(set().union(*(r[3] for r in results)))}
    print(f"{count - failed - refused} of {count} within their bounds, {refused} served by no kernel; worst fraction of the bound by kernel: " +
          ", ".join(f"{kernel} {part:.3f}" for kernel, part in worst.items()))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
