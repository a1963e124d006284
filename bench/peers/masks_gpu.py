"""masks_gpu.py: the group masks of pytorch_gpu.py: attention with a tensor [batch, head, query, key] that is added to the scores, or hides keys."""
import torch
import torch.nn.functional as F
from torch.nn.attention import sdpa_kernel

from candidates_gpu import BACKENDS, DTYPES, attention_flops

KINDS = ("bias", "bias f32", "mask")


def masked(backend, q, k, v, tensor, out):
    qt, kt, vt = (x.transpose(1, 2) for x in (q, k, v))

    def run():
        with sdpa_kernel(backend):
            out[0] = F.scaled_dot_product_attention(qt, kt, vt, attn_mask=tensor)
    return run


def masks(bench):
    """8k tokens, heads x channels = 1024, so that the tensors fit. bias: of q's type; bias f32: peers have it in q's type, for they take no
    other; mask: bytes, 7 of 10 keys visible."""
    o = bench.options
    for dtype in o.dtype.split(","):
        for d in (int(x) for x in o.channels.split(",") if int(x) <= 128):
            for s in map(int, o.lengths.split(",")):
                if s > 4096 or s < 1024:
                    continue
                for kind in KINDS:
                    if kind == "bias f32" and dtype == "f32":
                        continue
                    torch.manual_seed(s + d)
                    b, h, t = 8192 // s, 1024 // d, DTYPES[dtype]
                    q, k, v = (torch.randn(b, s, h, d, device="cuda").to(t) for _ in range(3))
                    if kind == "mask":
                        own = other = torch.rand(b, h, s, s, device="cuda") < 0.7
                    else:
                        other = torch.randn(b, h, s, s, device="cuda").to(t)
                        own = other.float() if kind == "bias f32" else other
                    outs = {}

                    def make(kernel):
                        out = torch.empty_like(q)
                        tensors = {"mask": own.view(torch.uint8)} if kind == "mask" else {"bias": own}
                        run = bench.rapt.forward(q, k, v, out, kernel=kernel, **tensors)
                        outs[run] = out
                        return run
                    ours = {n: (run, outs[run]) for n, run in bench.kernels_for(make).items()}
                    peers = {}
                    for peer in ("efficient",) if dtype == "f32" else ("cudnn", "efficient"):
                        result = [None]
                        peers[peer] = (masked(BACKENDS[peer], q, k, v, other, result), result)
                    bench.case("masks", f"{kind} d{d} {s}", dtype, attention_flops(b, h, s, s, d, d, 0), ours, peers, tolerance={"f32": 1e-5}.get(dtype))
                    del q, k, v, own, other, ours, outs, peers
                    torch.cuda.empty_cache()
