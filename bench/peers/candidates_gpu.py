"""candidates_gpu.py: PyTorch's attention backends, and FlashAttention-3, as functions that launch once on the current stream, for pytorch_gpu.py,
masks_gpu.py and decode_gpu.py. FlashAttention-3 is the package fa3-fwd (pip install fa3-fwd), built for bf16, without windows and small pages."""
import importlib.util
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash2": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}
PACKAGES = {"flash3": "fa3_fwd_interface"}  # peers that are not PyTorch's own
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def installed(peers):
    """Those of the names that are there."""
    return [p for p in peers if p not in PACKAGES or importlib.util.find_spec(PACKAGES[p])]


def attention_flops(b, h, sq, sk, d, dv, causal, window=0):
    """Multiplies and adds of both products over the pairs that are visible (bottom-right, window keys to the left)."""
    pairs = 0
    if causal or window:
        full, limit = sk - sq, window if window else sk
        low = max(0, min(sq, limit - 1 - full))
        pairs = low * (full + 1) + low * (low - 1) // 2 + (sq - low) * limit
    else:
        pairs = sq * sk
    return 2 * b * h * pairs * (d + dv)


def sdpa(backend, q, k, v, causal, out):
    """out[0] keeps the result. Heads second, a view; grouped heads natively, or repeated where the backend cannot (timed as used)."""
    qt, kt, vt = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[2] != k.shape[2]

    def run():
        with sdpa_kernel(BACKENDS[backend]):
            out[0] = F.scaled_dot_product_attention(qt, kt, vt, is_causal=causal, enable_gqa=grouped)
    return run


def flash3_forward(q, k, v, causal, starts=None, longest=None, softcap=0.0, splits=1):
    """[batch, token, head, channel], or packed tokens with starts. Causal from the end. splits: parts of the keys, 0 for its own choice."""
    import fa3_fwd_interface  # noqa: F401 (registers torch.ops.fa3_fwd)
    no = None
    return torch.ops.fa3_fwd.fwd(q, k, v, no, no, no, no, starts, starts, no, no, no, longest, longest, no, no, no, no, no, no, no, no, no, no,
                                 causal, -1, -1, 0, softcap, True, no, splits, no, 0)[0]


def flash3(q, k, v, causal, out, **settings):
    def run():
        out[0] = flash3_forward(q, k, v, causal, **settings)
        if "starts" not in settings:
            out[0] = out[0].transpose(1, 2)
    return run


def backend(name, q, k, v, causal, out):
    """A peer by its name: of PyTorch, or flash3. Heads second in what out[0] keeps."""
    return (flash3 if name == "flash3" else partial(sdpa, name))(q, k, v, causal, out)


def flash_varlen(q, k, v, starts, longest, causal, out):
    def run():
        out[0] = torch.ops.aten._flash_attention_forward(q, k, v, starts, starts, longest, longest, 0.0, causal, False)[0]
    return run


def flash_dense(q, k, v, causal, out, left=None, slopes=None):
    s = q.shape[1]

    def run():
        out[0] = torch.ops.aten._flash_attention_forward(q, k, v, None, None, s, s, 0.0, causal, False, window_size_left=left,
                                                         window_size_right=0 if left is not None else None, alibi_slopes=slopes)[0]
    return run


def flex(q, k, v, out, score=None, block=None):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    compiled = torch.compile(flex_attention)
    qt, kt, vt = (x.transpose(1, 2) for x in (q, k, v))
    mask = create_block_mask(block, None, None, q.shape[1], k.shape[1]) if block else None

    def run():
        out[0] = compiled(qt, kt, vt, score_mod=score, block_mask=mask, enable_gqa=q.shape[2] != k.shape[2]).transpose(1, 2)
    return run


def efficient_raw(q, k, v, out, starts=None, longest=0, window=0):
    """The memory-efficient kernel itself, causal: packed sequences, or a window of so many keys. Heads third."""
    def run():
        out[0] = torch.ops.aten._efficient_attention_forward(q, k, v, None, starts, starts, longest or None, longest or None, 0.0, 2, False,
                                                             window_size=window or None)[0]
    return run
