"""masks_gpu.py: the group masks of pytorch_gpu.py: attention with a tensor [batch, head, query, key] that is added to the scores, or hides keys."""
import torch
import torch.nn.functional as F
from torch.nn.attention import sdpa_kernel

from candidates_gpu import BACKENDS, DTYPES, attention_flops

KINDS = ("none", "padding", "padding bias", "bias of keys", "bias", "bias odd", "bias f32", "mask")


def masked(backend, q, k, v, tensor, out):
    qt, kt, vt = (x.transpose(1, 2) for x in (q, k, v))

    def run():
        with sdpa_kernel(backend):
            out[0] = F.scaled_dot_product_attention(qt, kt, vt, attn_mask=tensor)
    return run


def tensor_of(kind, b, h, queries, keys, t):
    """rapt's tensor and the peers'; in padding a sequence's last keys are hidden, the first sequence's none."""
    if kind == "none":
        return None, None
    if kind == "mask":
        shown = torch.rand(b, h, queries, keys, device="cuda") < 0.7
        return shown, shown
    if kind.startswith("padding"):
        lengths = keys - torch.arange(b, device="cuda") * keys // (3 * b)
        shown = (torch.arange(keys, device="cuda") < lengths[:, None])[:, None, None, :].contiguous()
        if kind == "padding":
            return shown, shown
        bias = torch.zeros(shown.shape, device="cuda", dtype=t).masked_fill_(~shown, -1e30 if t == torch.bfloat16 else -6e4)
        return bias, bias
    bias = torch.randn(b, 1 if kind == "bias of keys" else h, 1 if kind == "bias of keys" else queries, keys, device="cuda").to(t)
    return bias.float() if kind == "bias f32" else bias, bias


def masks(bench):
    """8k tokens, heads x channels = 1024, so that the tensors fit. bias: of q's type; bias f32: peers have it in q's type, for they take no
    other; mask: bytes, 7 of 10 keys visible; padding: a mask, or a bias of -1e30 (f16: -6e4), of one row for all heads and queries; bias of
    keys: such a row of random numbers; bias odd: one key more, so that rows begin anywhere; none: no such tensor."""
    o = bench.options
    for dtype in o.dtype.split(","):
        for d in (int(x) for x in o.channels.split(",") if int(x) <= 128):
            for s in map(int, o.lengths.split(",")):
                if s > 4096 or s < 1024:
                    continue
                for kind in KINDS:
                    if dtype == "f32" and kind not in ("bias", "mask"):
                        continue
                    torch.manual_seed(s + d)
                    b, h, t, keys = 8192 // s, 1024 // d, DTYPES[dtype], s + (kind == "bias odd")
                    q = torch.randn(b, s, h, d, device="cuda").to(t)
                    k, v = (torch.randn(b, keys, h, d, device="cuda").to(t) for _ in range(2))
                    own, other = tensor_of(kind, b, h, s, keys, t)
                    outs = {}

                    def make(kernel):
                        out = torch.empty_like(q)
                        tensors = {} if own is None else {"mask": own.view(torch.uint8)} if own.dtype == torch.bool else {"bias": own}
                        run = bench.rapt.forward(q, k, v, out, kernel=kernel, **tensors)
                        outs[run] = out
                        return run
                    ours = {n: (run, outs[run]) for n, run in bench.kernels_for(make).items()}
                    peers = {}
                    for peer in ("efficient",) if dtype == "f32" else ("cudnn", "efficient"):
                        result = [None]
                        peers[peer] = (masked(BACKENDS[peer], q, k, v, other, result), result)
                    bench.case("masks", f"{kind} d{d} {s}", dtype, attention_flops(b, h, s, keys, d, d, 0), ours, peers,
                               tolerance={"f32": 1e-5}.get(dtype))
                    del q, k, v, own, other, ours, outs, peers
                    torch.cuda.empty_cache()
