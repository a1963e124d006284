"""problems.py: the rows of the CPU comparison and their tensors."""
import dataclasses

import ml_dtypes
import numpy as np

NUMPY = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


@dataclasses.dataclass(frozen=True)
class Problem:
    dtype: str  # of k and v; q is f32 where q_dtype says so
    q_dtype: str
    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    channels: int
    causal: bool

    def __str__(self):
        kv = "" if self.q_dtype == self.dtype else f" kv-{self.dtype}"
        return (f"forward {self.q_dtype}{kv} b{self.batch} h{self.heads}/{self.kv_heads} q{self.queries} kv{self.keys} "
                f"d{self.channels}{' causal' if self.causal else ''}")

    @property
    def flops(self):
        pairs = self.queries * self.keys
        if self.causal:  # bottom-right: query i sees keys - queries + i + 1 keys
            pairs = sum(self.keys - self.queries + i + 1 for i in range(self.queries))
        return 4 * self.batch * self.heads * pairs * self.channels

    @property
    def kv_bytes(self):
        return 2 * self.batch * self.kv_heads * self.keys * self.channels * np.dtype(NUMPY[self.dtype]).itemsize


def prefill(dtype, heads, kv_heads, tokens, channels, causal, batch=1, q_dtype=None):
    return Problem(dtype, q_dtype or dtype, batch, heads, kv_heads, tokens, tokens, channels, causal)


def decode(dtype, keys, q_dtype=None):
    return Problem(dtype, q_dtype or dtype, 1, 32, 8, 1, keys, 128, False)


PROBLEMS = [
    prefill("f32", 32, 8, 512, 128, True), prefill("f32", 32, 8, 2048, 128, True), prefill("f32", 32, 8, 2048, 128, False),
    prefill("f32", 12, 12, 512, 64, False, batch=4), prefill("f32", 16, 16, 2048, 256, True), prefill("f32", 16, 16, 2048, 96, True),
    prefill("f16", 32, 8, 512, 128, True), prefill("f16", 32, 8, 2048, 128, True), prefill("f16", 32, 8, 2048, 128, False),
    prefill("bf16", 32, 8, 512, 128, True), prefill("bf16", 32, 8, 2048, 128, True), prefill("bf16", 32, 8, 2048, 128, False),
    prefill("bf16", 12, 12, 512, 64, False, batch=4),
    decode("f32", 32768), decode("f16", 8192), decode("f16", 32768), decode("bf16", 8192), decode("bf16", 32768),
]


def tensors(problem, seed=0):
    """q, k, v as [batch, token, head, channel] in their dtypes, standard normal."""
    random = np.random.default_rng(seed)

    def make(dtype, tokens, heads):
        shape = (problem.batch, tokens, heads, problem.channels)
        return random.standard_normal(shape, dtype=np.float32).astype(NUMPY[dtype])

    return (make(problem.q_dtype, problem.queries, problem.heads), make(problem.dtype, problem.keys, problem.kv_heads),
            make(problem.dtype, problem.keys, problem.kv_heads))


def reference_rows(problem, q, k, v, count=24, seed=1):
    """[(batch, query, head)], f64 rows of the answer."""
    random = np.random.default_rng(seed)
    where, rows = [], []
    group = problem.heads // problem.kv_heads
    for _ in range(count):
        b, i, h = random.integers(problem.batch), random.integers(problem.queries), random.integers(problem.heads)
        last = problem.keys - problem.queries + i + 1 if problem.causal else problem.keys
        keys, values = (x[b, :last, h // group].astype(np.float64) for x in (k, v))
        scores = keys @ q[b, i, h].astype(np.float64) / np.sqrt(problem.channels)
        weights = np.exp(scores - scores.max())
        where.append((b, i, h))
        rows.append(weights @ values / weights.sum())
    return where, np.array(rows)
