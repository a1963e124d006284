"""engines.py: rapt and its CPU peers behind one face: prepare(problem, q, k, v, threads) -> (run, result) or None where the
peer cannot do the problem. run() computes; result() gives out as [batch, token, head, channel] floats. Layouts are each
engine's own favourite: a copy into it happens before the clock starts."""
import ctypes
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import rapt as binding

RAPT_DTYPE = {"f32": binding.F32, "f16": binding.F16, "bf16": binding.BF16}


def blocked(x, value, pairs):
    """[batch, token, head, channel] as RAPT_KV_BLOCKED (rapt.h): blocks of 32 tokens, their elements in the order of a CPU's kernels."""
    b, t, h, c = x.shape
    x = x.transpose(0, 2, 1, 3).reshape(b, h, t // 32, 32, c)
    if value:
        x = x.reshape(b, h, t // 32, 32 // pairs, pairs, c // 32, 32).transpose(0, 1, 2, 5, 3, 6, 4)
    else:
        x = x.reshape(b, h, t // 32, 32, c // pairs, pairs).transpose(0, 1, 2, 4, 3, 5)
    return np.ascontiguousarray(x)


def rapt(problem, q, k, v, threads):
    """Prefill from [batch][token][head][channel] as a projection leaves it; decode from a blocked cache."""
    library = binding.Rapt("cpu", threads)
    q, k, v = (np.ascontiguousarray(x) for x in (q, k, v))
    decode = problem.queries < problem.keys
    shapes = k.shape, v.shape
    if decode:
        pairs = 2 if problem.dtype == "bf16" else 1
        k, v = blocked(k, 0, pairs), blocked(v, 1, pairs)
    out = np.full(q.shape[:3] + (problem.channels,), np.nan, np.float32).astype(q.dtype)

    def view(array, dtype):
        b, t, h, c = array.shape
        return binding.tensor(array.ctypes.data, RAPT_DTYPE[dtype], (b, h, t, c), (t * h * c, c, h * c, 1))

    def cache(array, shape):
        b, t, h, c = shape
        return binding.tensor(array.ctypes.data, RAPT_DTYPE[problem.dtype], (b, h, t, c), (t * h * c, t * c, c, 1))

    a = binding.Attention(q=view(q, problem.q_dtype), k=view(k, problem.dtype) if not decode else cache(k, shapes[0]),
                          v=view(v, problem.dtype) if not decode else cache(v, shapes[1]), out=view(out, problem.q_dtype),
                          causal=int(problem.causal), kv_layout=binding.KV_BLOCKED if decode else 0)
    kernel, execute = library.plan(a)
    execute.keep = (library, a, q, k, v)
    return execute, lambda: out.astype(np.float32), kernel


def torch(problem, q, k, v, threads):
    import torch as t
    dtypes = {"f32": t.float32, "f16": t.float16, "bf16": t.bfloat16}
    if problem.q_dtype != problem.dtype:
        return None
    t.set_num_threads(threads)

    def tensor(x):
        return t.from_numpy(np.ascontiguousarray(x.astype(np.float32))).to(dtypes[problem.dtype]).transpose(1, 2).contiguous()

    tq, tk, tv = map(tensor, (q, k, v))
    hold = {}

    def run():
        t.set_num_threads(threads)
        with t.no_grad():
            hold["out"] = t.nn.functional.scaled_dot_product_attention(
                tq, tk, tv, is_causal=problem.causal, enable_gqa=problem.heads != problem.kv_heads)

    return run, lambda: hold["out"].float().transpose(1, 2).numpy(), f"scaled_dot_product_attention {t.__version__}"


def onnxruntime(problem, q, k, v, threads):
    """The ONNX Attention operator (opset 23), and for causal grouped problems the GroupQueryAttention operator."""
    import onnx
    import onnxruntime as ort
    kinds = {"f32": onnx.TensorProto.FLOAT, "f16": onnx.TensorProto.FLOAT16}
    if problem.dtype not in kinds or problem.q_dtype != problem.dtype:
        return None
    b, s, keys, h, g, d = problem.batch, problem.queries, problem.keys, problem.heads, problem.kv_heads, problem.channels
    kind = kinds[problem.dtype]
    helper = onnx.helper
    grouped = h != g and s == keys
    inputs = [("q", kind, (b, s, h * d)), ("k", kind, (b, keys, g * d)), ("v", kind, (b, keys, g * d))]
    feeds = {"q": q.reshape(b, s, h * d), "k": k.reshape(b, keys, g * d), "v": v.reshape(b, keys, g * d)}
    if grouped and problem.causal:
        inputs += [("lengths", onnx.TensorProto.INT32, (b,)), ("total", onnx.TensorProto.INT32, (1,))]
        feeds |= {"lengths": np.full(b, keys - 1, np.int32), "total": np.array([keys], np.int32)}
        node = helper.make_node("GroupQueryAttention", ["q", "k", "v", "", "", "lengths", "total"], ["out", "pk", "pv"],
                                domain="com.microsoft", num_heads=h, kv_num_heads=g)
        outputs = [("out", kind, (b, s, h * d)), ("pk", kind, (b, g, keys, d)), ("pv", kind, (b, g, keys, d))]
    elif h == g and problem.dtype == "f32":
        node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["out"], domain="com.microsoft", num_heads=h,
                                unidirectional=int(problem.causal))
        outputs = [("out", kind, (b, s, h * d))]
    else:
        node = helper.make_node("Attention", ["q", "k", "v"], ["out"], q_num_heads=h, kv_num_heads=g,
                                is_causal=int(problem.causal))
        outputs = [("out", kind, (b, s, h * d))]
    graph = helper.make_graph([node], "attention", [helper.make_tensor_value_info(*x) for x in inputs],
                              [helper.make_tensor_value_info(*x) for x in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)],
                              ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # the operator has no CPU kernel for this dtype
        return None
    feeds = {name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(x)) for name, x in feeds.items()}
    hold = {}

    def run():
        hold["out"] = session.run_with_ort_values(["out"], feeds)[0]

    return run, lambda: hold["out"].numpy().reshape(b, s, h, d).astype(np.float32), f"{node.op_type} {ort.__version__}"


def ggml(problem, q, k, v, threads):
    """ggml_flash_attn_ext with f32 queries, as llama.cpp calls it; a causal problem needs its f16 mask tensor."""
    import ggml.ggml as g
    kinds = {"f32": g.GGML_TYPE_F32, "f16": g.GGML_TYPE_F16, "bf16": g.GGML_TYPE_BF16}
    b, s, keys, h, kv, d = problem.batch, problem.queries, problem.keys, problem.heads, problem.kv_heads, problem.channels
    size = 64 << 20
    size += 16 * (q.size + k.size + v.size) + 4 * s * keys
    context = g.ggml_init(g.ggml_init_params(mem_size=size, mem_buffer=None, no_alloc=False))

    def load(array, kind, tokens, heads):
        t = g.ggml_new_tensor_4d(context, kind, d, tokens, heads, b)
        packed = np.ascontiguousarray(array.transpose(0, 2, 1, 3))
        ctypes.memmove(g.ggml_get_data(t), packed.ctypes.data, packed.nbytes)
        return t

    tq = load(q.astype(np.float32), g.GGML_TYPE_F32, s, h)
    tk, tv = load(k, kinds[problem.dtype], keys, kv), load(v, kinds[problem.dtype], keys, kv)
    mask = None
    if problem.causal:
        padded = (s + 63) // 64 * 64
        mask = g.ggml_new_tensor_4d(context, g.GGML_TYPE_F16, keys, padded, 1, 1)
        rows = np.full((padded, keys), -np.inf, np.float16)
        for i in range(s):
            rows[i, :keys - s + i + 1] = 0
        ctypes.memmove(g.ggml_get_data(mask), rows.ctypes.data, rows.nbytes)
    # The package's own declaration lacks the last parameter, the softcap.
    attend = next(library.ggml_flash_attn_ext for library in g.libs if hasattr(library, "ggml_flash_attn_ext"))
    pointer = ctypes.POINTER(g.ggml_tensor)
    attend.argtypes, attend.restype = [ctypes.c_void_p] + [pointer] * 4 + [ctypes.c_float] * 3, pointer
    out = attend(context, tq, tk, tv, mask, 1 / np.sqrt(d), 0.0, 0.0)
    graph = g.ggml_new_graph(context)
    g.ggml_build_forward_expand(graph, out)
    plan = g.ggml_graph_plan(graph, threads, None)
    work = ctypes.create_string_buffer(max(int(plan.work_size), 1))
    plan.work_data = ctypes.cast(work, ctypes.POINTER(ctypes.c_uint8))

    def run():
        g.ggml_graph_compute(graph, ctypes.byref(plan))

    def result():
        data = (ctypes.c_float * (b * s * h * d)).from_address(g.ggml_get_data(out))
        return np.frombuffer(data, np.float32).reshape(b, s, h, d)

    run.keep = (context, work, plan)
    run.free = lambda: g.ggml_free(context)
    return run, result, "ggml_flash_attn_ext"


ENGINES = {"rapt": rapt, "torch": torch, "onnxruntime": onnxruntime, "ggml": ggml}
