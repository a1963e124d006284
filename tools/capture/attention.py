# Attention as it is defined, in f64, and the rounding of a sample's numbers.

import numpy as np


def attention(q, k, v, scale, causal):
    """q [tokens, heads, channels], k and v [tokens, kv_heads, channels]: query head h reads KV head
    h // (heads / kv_heads). Returns the output, shaped as q, and the weights [heads, tokens,
    tokens], both f64."""
    q, k, v = (np.asarray(x, dtype=np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, group, axis=1) for x in (k, v))
    scores = np.einsum("qhc,khc->hqk", q, k, optimize=True) * scale
    if causal:
        scores[:, np.triu(np.ones(scores.shape[1:], dtype=bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hqk,khc->qhc", weights, v, optimize=True), weights


def round_to_8_bits(x):
    """Rounds to nearest-even at 8 significant bits, and to multiples of 2^-24 below 2^-17. Those
    are the numbers that both F16 (11 bits, smallest step 2^-24) and BF16 (8 bits) hold exactly, so
    that one sample is the same problem in F16, BF16 and F32."""
    _, exponent = np.frexp(x)
    step = np.ldexp(1.0, np.maximum(exponent - 8, -24))
    return np.rint(x / step) * step
