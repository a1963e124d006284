"""operations_gpu.py: rapt's memory-bound operations on one GPU, as a share of a device copy of as many bytes measured between them.

usage: python3 bench/peers/operations_gpu.py [--lib build/librapt.so] [--only softmax,rope] [--csv bench/results/h100-operations.csv]

Arrays of --mib MiB (256) of the operation's own type each, outputs beside inputs, random normal data made on the device. Every output is
compared with PyTorch's before it is timed. Medians of --rounds, each --launches launches between two events, and one ahead of them, so that
the GPU does not wait for the host in between; bytes are those read and written once, and the ceiling is cudaMemcpyAsync of 256 MiB, read
and written, timed alike."""
import argparse
import ctypes
import datetime
import subprocess
import sys

import torch

from rapt import Tensor, append_rows
from rapt_torch import DTYPES, Rapt

NAMES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
COLUMNS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
ODD_COLUMNS = (100, 1000, 1001, 4095)
FIELDS = "date commit hardware problem time_ms gbytes_per_s copy_gbytes_per_s percent_of_copy".split()


def struct(name, tensors, rest=()):
    fields = [("struct_size", ctypes.c_uint64)] + [(n, Tensor) for n in tensors.split()] + list(rest)
    return type(name, (ctypes.Structure,), {"_fields_": fields})


Softmax = struct("Softmax", "x out")
Mask = struct("Mask", "x", [("align", ctypes.c_int64)])
Replicate = struct("Replicate", "k v k_out v_out")
Rope = struct("Rope", "x out position cos sin", [("theta", ctypes.c_double)] + [(n, ctypes.c_int64) for n in (
    "rotary_channels", "interleaved", "scaling")] + [(n, ctypes.c_double) for n in (
        "factor", "original_context", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor")]
              + [("untruncated", ctypes.c_int64)])
Append = struct("Append", "k_new v_new k v kv_length q_start page_table k_scale v_scale",
                [("rope", ctypes.c_void_p), ("kv_layout", ctypes.c_int64)])


def view(x, axes=(0, 1, 2, 3)):
    """x as [batch, head, token, channel]; axes: which axis of x each of them is."""
    t = Tensor()
    t.data, t.dtype = x.data_ptr(), DTYPES[x.dtype]
    for i, axis in enumerate(axes):
        t.size[i], t.stride[i] = x.shape[axis], x.stride(axis)
    return t


TOKEN_MAJOR = (0, 2, 1, 3)


class Bench:
    def __init__(self, options):
        self.options, self.rapt, self.rows, self.wrong = options, Rapt(options.lib), [], 0
        git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True).stdout.strip()
        self.head = {"date": datetime.date.today().isoformat(), "commit": options.commit or git,
                     "hardware": f"{torch.cuda.get_device_name()}, driver {driver}"}
        source = torch.empty(256 << 20, dtype=torch.uint8, device="cuda").random_()
        target = torch.empty_like(source)
        self.copy = lambda: target.copy_(source)
        self.copy_bytes = 2 * source.numel()
        self.copies = self.repeated(self.copy)

    def run(self, function, args):
        args.struct_size = ctypes.sizeof(args)
        call = getattr(self.rapt.lib, function)
        return lambda: self.rapt.must(call(self.rapt.device, ctypes.byref(args), ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)))

    def repeated(self, run):
        """So many launches: a graph of them with --graph."""
        if not self.options.graph:
            return lambda: [run() for _ in range(self.options.launches)]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(self.options.launches):
                run()
        return graph.replay

    def time(self, run, launches):
        a, b = torch.cuda.Event(True), torch.cuda.Event(True)
        run()
        a.record()
        launches()
        b.record()
        b.synchronize()
        return a.elapsed_time(b) / self.options.launches

    def case(self, name, run, bytes_moved, out=None, want=None, tolerance=0.0):
        """want: what out holds after one run, where it is known; tolerance: of the norm."""
        run()
        if want is not None:
            w = want.float()
            error = ((out.float() - w).norm() / w.norm()).item()
            if not error <= tolerance:
                print(f"WRONG {name}: {error:.1e} of the norm from PyTorch's", flush=True)
                self.wrong += 1
        times, copies, launches = [], [], self.repeated(run)
        for _ in range(self.options.rounds):
            times.append(self.time(run, launches))
            copies.append(self.time(self.copy, self.copies))
        ms, copy = (sorted(t)[len(t) // 2] for t in (times, copies))
        rate, ceiling = bytes_moved / ms / 1e6, self.copy_bytes / copy / 1e6
        self.rows.append(dict(self.head, problem=name, time_ms=f"{ms:.4f}", gbytes_per_s=f"{rate:.0f}", copy_gbytes_per_s=f"{ceiling:.0f}",
                              percent_of_copy=f"{100 * rate / ceiling:.1f}"))
        print(f"{name:52s} {ms:8.4f} ms  {rate:5.0f} GB/s  {100 * rate / ceiling:5.1f} % of {ceiling:.0f}", flush=True)


def softmax(bench, dtype):
    t = NAMES[dtype]
    for columns in COLUMNS + ODD_COLUMNS:
        rows = bench.options.mib * (1 << 20) // t.itemsize // columns
        heads = 32 if rows % 32 == 0 else 1
        x = torch.randn(1, heads, rows // heads, columns, device="cuda", dtype=t)
        out = torch.empty_like(x)
        args = Softmax(x=view(x), out=view(out))
        bench.case(f"softmax {dtype} b1 h{heads} q{rows // heads} kv{columns}", bench.run("rapt_softmax", args), 2 * x.nbytes, out,
                   torch.softmax(x, 3), {"f32": 1e-6, "f16": 1e-3, "bf16": 6e-3}[dtype])


def rope(bench, dtype):
    t = NAMES[dtype]
    tokens = bench.options.mib * (1 << 20) // t.itemsize // 4096
    x = torch.randn(1, tokens, 32, 128, device="cuda", dtype=t)
    out = torch.empty_like(x)
    for interleaved in (0, 1):
        args = Rope(x=view(x, TOKEN_MAJOR), out=view(out, TOKEN_MAJOR), interleaved=interleaved)
        bench.case(f"rope {dtype} b1 h32 q{tokens} d128{' interleaved' if interleaved else ''}", bench.run("rapt_rope", args), 2 * x.nbytes)


def kv_append(bench, dtype):
    t = NAMES[dtype]
    tokens = bench.options.mib * (1 << 20) // t.itemsize // 2048
    new = [torch.randn(1, tokens, 8, 128, device="cuda", dtype=t) for _ in range(2)]
    for heads_first in (0, 1):
        shape, axes = ((1, 8, tokens, 128), (0, 1, 2, 3)) if heads_first else ((1, tokens, 8, 128), TOKEN_MAJOR)
        cache = [torch.zeros(shape, device="cuda", dtype=t) for _ in range(2)]
        where = "h8 q{0} kv{0} d128{1}".format(tokens, " bhtd" if heads_first else "")
        for turned in (0, 1):
            turn = Rope(struct_size=ctypes.sizeof(Rope))
            args = Append(k_new=view(new[0], TOKEN_MAJOR), v_new=view(new[1], TOKEN_MAJOR), k=view(cache[0], axes), v=view(cache[1], axes),
                          rope=ctypes.cast(ctypes.pointer(turn), ctypes.c_void_p) if turned else None)
            want = new[1].transpose(1, 2) if heads_first else new[1]
            bench.case(f"kv_append {dtype} b1 {where}{' rope' if turned else ''}", bench.run("rapt_kv_append", args),
                       4 * new[0].nbytes, cache[1], want)
            if not turned:
                want = new[0].transpose(1, 2) if heads_first else new[0]
                bench.wrong += not torch.equal(cache[0], want)


def kv_replicate(bench, dtype):
    t = NAMES[dtype]
    tokens = bench.options.mib * (1 << 20) // t.itemsize // 8192
    k, v = (torch.randn(1, tokens, 8, 128, device="cuda", dtype=t) for _ in range(2))
    k_out, v_out = (torch.empty(1, tokens, 32, 128, device="cuda", dtype=t) for _ in range(2))
    args = Replicate(0, *(view(x, TOKEN_MAJOR) for x in (k, v, k_out, v_out)))
    bench.case(f"kv_replicate {dtype} b1 h32/8 q{tokens} kv{tokens} d128", bench.run("rapt_kv_replicate", args), 10 * k.nbytes, v_out,
               v.repeat_interleave(4, 2))


def causal_mask(bench, dtype):
    """Writes half of an array of twice --mib MiB and reads nothing; filling as much of memory is beside it."""
    t = NAMES[dtype]
    for columns in (1024, 2048, 8192):
        heads = 2 * bench.options.mib * (1 << 20) // t.itemsize // columns // columns
        x = torch.randn(1, heads, columns, columns, device="cuda", dtype=t)
        hidden = torch.ones(columns, columns, device="cuda", dtype=torch.bool).triu(1)
        want = x.masked_fill(hidden, -float("inf"))
        run = bench.run("rapt_causal_mask", Mask(x=view(x)))
        run()
        bench.wrong += not torch.equal(x, want)
        bench.case(f"causal_mask {dtype} b1 h{heads} q{columns} kv{columns}", run, x.nbytes // 2 * (columns - 1) // columns)
        del want
    part = x.view(-1)[:x.numel() // 2]
    bench.case(f"(memset {part.nbytes >> 20} MiB)", part.zero_, part.nbytes)


GROUPS = {f.__name__: f for f in (softmax, rope, kv_append, kv_replicate, causal_mask)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", default="build/librapt.so")
    parser.add_argument("--only", default=",".join(GROUPS))
    parser.add_argument("--dtypes", default="f32,f16,bf16")
    parser.add_argument("--mib", type=int, default=256, help="MiB of an array")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--launches", type=int, default=6)
    parser.add_argument("--graph", action="store_true", help="launches in a CUDA graph, for arrays so small that the host would be timed")
    parser.add_argument("--commit", default="", help="for the CSV, where git cannot tell")
    parser.add_argument("--csv", default="", help="the file that the rows are appended to")
    options = parser.parse_args()
    bench = Bench(options)
    for group in options.only.split(","):
        for dtype in options.dtypes.split(","):
            GROUPS[group](bench, dtype)
    if options.csv:
        append_rows(options.csv, FIELDS, bench.rows)
    low = [r for r in bench.rows if float(r["percent_of_copy"]) < 85]
    print(f"{len(bench.rows)} rows, {len(low)} below 85 %, {bench.wrong} wrong")
    sys.exit(bench.wrong > 0)


if __name__ == "__main__":
    main()
