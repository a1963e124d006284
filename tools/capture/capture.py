# Captures q, k, v and the attention output of one layer of a real model as a .safetensors sample.

import argparse
import importlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from attention import attention, round_to_8_bits

HERE = Path(__file__).resolve().parent
SIZE_LIMIT = 2_000_000  # bytes: a sample is committed, so it must stay small
MIN_TOKENS = 256
TEXTS = {  # file NAME.txt beside this one: its title; all in the public domain
    "house": "This Is the House That Jack Built (nursery rhyme, printed 1755), up to the man",
    "alice": "Lewis Carroll, Alice's Adventures in Wonderland (1865), the opening",
}


def sample_of(model, module, layer, q, k, v):
    """The tensors of a sample, [batch 1, token, head, channel]. `out` is computed from the rounded
    q, k, v, exactly the numbers that the file holds."""
    q, k, v = (round_to_8_bits(x) for x in (q, k, v))
    out, _ = attention(q, k, v, model.scale, module.CAUSAL)
    # order "C": the safetensors writer stores memory as it lies, whatever an array's strides say.
    tensors = {name: x.astype(np.float16, order="C")[None]
               for name, x in (("q", q), ("k", k), ("v", v))}
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not np.array_equal(tensors[name][0].astype(np.float64), x):
            raise SystemExit(f"capture: {name} of layer {layer} does not fit F16")
    tensors["out"] = out.astype(np.float32, order="C")[None]
    return tensors


def metadata_of(model, module, layer, ids, text, title, judged):
    return {
        "model": module.NAME,
        "licence": module.LICENCE,
        "source": f"PyPI package {module.PACKAGE} {version(module.PACKAGE)}",
        "layer": str(layer),
        "layers": str(model.layers),
        "layout": "batch, token, head, channel",
        "scale": repr(model.scale),
        "causal": "true" if module.CAUSAL else "false",
        "tokens": str(len(ids)),
        "token_ids": " ".join(map(str, ids)),
        "title": title,
        "text": text,
        "text_licence": "public domain",
        "out": "attention of the stored q, k, v computed in f64, rounded to F32",
        **judged,
    }


def write(path, tensors, metadata):
    """Writes the sample with the header's keys in order: the library writes the metadata in an
    order that differs from run to run, and the same sample should be the same bytes."""
    data = save(tensors, metadata)
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:8 + size]), sort_keys=True, separators=(",", ":"))
    header = header.encode("ascii")
    header += b" " * (-len(header) % 8)  # the tensors begin on a multiple of 8 bytes
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size:])


def check(path):
    """Reads a sample back and computes its attention anew. Returns the greatest difference from
    the stored output in units of the F32 rounding of that output (1 is the most there can be)."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        q, k, v, out = (file.get_tensor(name)[0] for name in ("q", "k", "v", "out"))
    scale, causal = float(metadata["scale"]), metadata["causal"] == "true"
    again, _ = attention(q, k, v, scale, causal)
    difference = np.abs(again - out)
    # Half a unit in the last place, and what two f64 sums in another order may differ by.
    bound = np.spacing(np.abs(out)).astype(np.float64) / 2 + 1e-12 * np.abs(v.astype(float)).max()
    ratio = float((difference / bound).max())
    size = Path(path).stat().st_size
    print(f"{path}: {size} bytes, layer {metadata['layer']}, {metadata['tokens']} tokens, "
          f"scale {scale!r}, causal {causal}, q {q.shape} {q.dtype}, k {k.shape}, "
          f"out differs by {difference.max():.2e} at most, {ratio:.3f} of the rounding bound")
    if not ratio <= 1:
        raise SystemExit(f"capture: {path}: out is not the attention of q, k, v")
    if size >= SIZE_LIMIT:
        raise SystemExit(f"capture: {path} has {size} bytes (less than {SIZE_LIMIT} wanted)")


def survey(model, module, ids, captured):
    """One line per head: what its attention map shows. Means over the queries of the weight on the
    first token, the token itself, the one before, and the token that followed an earlier occurrence
    of the query's token (induction), and the entropy in bits."""
    ids = np.asarray(ids)
    tokens = len(ids)
    followers = np.zeros((tokens, tokens), dtype=bool)  # [query, key]
    followers[:, 1:] = np.tril(ids[:, None] == ids[None, :], -1)[:, :-1]
    followers &= np.tri(tokens, dtype=bool)
    repeats = followers.any(axis=1)
    print("layer head  first   self before induction  entropy")
    for layer, (q, k, v) in enumerate(captured):
        _, weights = attention(q, k, v, model.scale, module.CAUSAL)
        for head, w in enumerate(weights):
            entropy = -np.sum(w * np.log2(np.maximum(w, 1e-300)), axis=-1).mean()
            induction = (w * followers).sum(axis=1)[repeats].mean()
            print(f"{layer:5d} {head:4d} {w[1:, 0].mean():6.3f} {np.diag(w)[1:].mean():6.3f} "
                  f"{np.diag(w, -1).mean():6.3f} {induction:9.3f} {entropy:8.2f}")


def main():
    parser = argparse.ArgumentParser(
        description="Saves q, k, v and the attention output of a layer of a real model.")
    parser.add_argument("--model", choices=("smollm2", "minilm"), default="smollm2")
    parser.add_argument("--layer", type=int, action="append", help="may be given several times")
    parser.add_argument("--text", choices=TEXTS, help="house for smollm2, alice for minilm")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the samples")
    parser.add_argument("--survey", action="store_true", help="describe every head; save nothing")
    parser.add_argument("--check", type=Path, help="only check this sample")
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)
        return

    module = importlib.import_module(arguments.model)
    model = module.Model()
    name = arguments.text or module.TEXT
    text = (HERE / f"{name}.txt").read_text(encoding="utf-8").strip()
    ids = model.encode(text)
    print(f"{module.NAME}: {model.layers} layers, {model.heads} query heads, {model.kv_heads} KV "
          f"heads, {model.channels} channels; {len(ids)} tokens")
    if len(ids) < MIN_TOKENS:
        raise SystemExit(f"capture: the text has {len(ids)} tokens (at least {MIN_TOKENS})")
    result, captured = model.forward(ids)
    judged = model.judge(ids, result)
    if arguments.survey:
        survey(model, module, ids, captured)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    for layer in arguments.layer or [module.LAYER]:
        if not 0 <= layer < model.layers:
            raise SystemExit(f"capture: layer {layer} (0 to {model.layers - 1})")
        path = arguments.out / f"{arguments.model}-layer{layer:02d}.safetensors"
        metadata = metadata_of(model, module, layer, ids, text, TEXTS[name], judged)
        write(path, sample_of(model, module, layer, *captured[layer]), metadata)
        check(path)


if __name__ == "__main__":
    main()
