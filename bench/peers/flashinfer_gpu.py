"""flashinfer_gpu.py: FlashInfer as a peer of decode_gpu.py and pytorch_gpu.py: its kernels over paged keys and its ragged prefill, as functions that
launch once on the current stream. Optional: where it is not installed, it is left out with one line.

    pip install flashinfer-python==0.7.2.post1      # the version that docs/performance/h100-decode.md names

It builds its kernels where they are first used (nvcc 13.0, sm_90a). Plans are made once, outside of what is timed; decode has the buffers of captured
graphs, as engines capture it. FlashInfer splits keys by pages, so keys in one piece are pages in order to it. Every kernel's output is compared
with what the caller says is right (float64; rapt's or FlashAttention-2's output where that takes too long) before it is timed. The kernels:
  fa2      tensor cores by mma, split over keys: for grouped heads what its users choose for decode
  cores    decode without tensor cores
  xqa      decode by XQA, which trtllm_batch_decode_with_kv_cache takes on this GPU
  fa3      wgmma, not split over keys: what it chooses for prefill on this GPU"""
import functools

import torch

WORKSPACE = 512 << 20  # bytes
TOLERANCE = 1e-2
ERRORS = (RuntimeError, ValueError, TypeError, AssertionError, OSError)


@functools.cache
def package():
    """The module, or None after a line that says why."""
    try:
        import flashinfer.decode
        import flashinfer.prefill
    except (ImportError, RuntimeError) as problem:
        print(f"   FlashInfer left out: {str(problem).splitlines()[0][:110]}", flush=True)
        return None
    return flashinfer


@functools.cache
def workspace():
    return torch.zeros(WORKSPACE, dtype=torch.uint8, device="cuda")


@functools.cache
def semaphores():
    """XQA's own, zero before its first launch."""
    return torch.zeros(WORKSPACE, dtype=torch.uint8, device="cuda")


def csr(batch, pages, page):
    """Row starts of the table of pages, and how full each sequence's last page is."""
    return (torch.arange(batch + 1, device="cuda", dtype=torch.int32) * pages, torch.full((batch,), page, device="cuda", dtype=torch.int32))


def by_decode(q, table, page, kv_heads, out, tensor_cores):
    batch, _, heads, channels = q.shape
    starts, last = csr(batch, table.shape[1], page)
    indices = table.flatten()
    wrapper = package().decode.BatchDecodeWithPagedKVCacheWrapper(
        workspace(), "NHD", use_cuda_graph=True, use_tensor_cores=tensor_cores, backend="fa2" if tensor_cores else "auto",
        paged_kv_indptr_buffer=starts.clone(), paged_kv_indices_buffer=indices.clone(), paged_kv_last_page_len_buffer=last.clone())
    wrapper.plan(starts, indices, last, heads, kv_heads, channels, page, q_data_type=q.dtype, kv_data_type=q.dtype)
    return lambda k, v: wrapper.run(q[:, 0], (k, v), out=out[:, 0])


def by_xqa(q, table, page, kv_heads, out):
    batch, _, _, channels = q.shape
    keys = table.shape[1] * page
    lengths = torch.full((batch,), keys, device="cuda", dtype=torch.int32).view(torch.uint32)
    return lambda k, v: package().decode.xqa_batch_decode_with_kv_cache(q[:, 0], (k, v), semaphores(), table, lengths, keys, bmm1_scale=channels ** -0.5,
                                                                        bmm2_scale=1.0, out=out[:, 0])


def by_prefill(q, table, page, kv_heads, out, backend):
    batch, queries, heads, channels = q.shape
    starts, last = csr(batch, table.shape[1], page)
    rows = torch.arange(batch + 1, device="cuda", dtype=torch.int32) * queries
    wrapper = package().prefill.BatchPrefillWithPagedKVCacheWrapper(workspace(), "NHD", backend=backend)
    wrapper.plan(rows, starts, table.flatten(), last, heads, kv_heads, channels, page, causal=True, q_data_type=q.dtype, kv_data_type=q.dtype)
    return lambda k, v: wrapper.run(q.view(-1, heads, channels), (k, v), out=out.view(-1, heads, channels))


ONE_QUERY = {"fa2": functools.partial(by_decode, tensor_cores=True), "cores": functools.partial(by_decode, tensor_cores=False), "xqa": by_xqa}
MORE_QUERIES = {name: functools.partial(by_prefill, backend=name) for name in ("fa2", "fa3")}


def error_of(name, run, out, want, sequences=slice(None)):
    """The relative error of what run leaves in out, of these sequences, or None after a line where it does not run or is wrong."""
    out.fill_(float("nan"))
    try:
        run()
        torch.cuda.synchronize()
    except ERRORS as problem:
        print(f"   {name} left out: {str(problem).splitlines()[0][:110]}", flush=True)
        return None
    error = ((out[sequences].double() - want.double()).norm() / want.double().norm()).item()
    if not error < TOLERANCE:
        print(f"WRONG {name}: {error:.1e}", flush=True)
        return None
    return error


def over_pages(q, ks, vs, page, table, want):
    """Candidate -> run(i), over the i-th copy of K and V, [batch, token, head, channel], with its relative error as run.error. table: of the pages;
    None: they lie in order. want: the right result of copy 0."""
    runs, (batch, keys, kv_heads, channels) = {}, ks[0].shape
    if not package():
        return runs
    table = (torch.arange(batch * keys // page, device="cuda", dtype=torch.int32) if table is None else table).view(batch, -1)
    paged = [tuple(x.view(-1, page, kv_heads, channels) for x in pair) for pair in zip(ks, vs)]
    out = torch.empty_like(q)
    for kernel, make in (ONE_QUERY if q.shape[1] == 1 else MORE_QUERIES).items():
        name = f"flashinfer {kernel}"
        try:
            run = make(q, table, page, kv_heads, out)
        except ERRORS as problem:
            print(f"   {name} left out: {str(problem).splitlines()[0][:110]}", flush=True)
            continue
        error = error_of(name, lambda: run(*paged[0]), out, want)
        if error is not None:
            runs[name] = lambda i, run=run: run(*paged[i])
            runs[name].error = error
    return runs


def absorbed_mla(q, pools, table, values, scale, want, sequences):
    """Candidate -> run(i), over the i-th pool [page, token, 1, channel], with its relative error as run.error. q: [batch, query, head, channel]. want: the
    right results of these sequences and pool 0."""
    runs, (batch, queries, heads, channels), page = {}, q.shape, pools[0].shape[1]
    try:
        from flashinfer.mla import BatchMLAPagedAttentionWrapper
    except (ImportError, RuntimeError) as problem:
        print(f"   FlashInfer left out: {str(problem).splitlines()[0][:110]}", flush=True)
        return runs
    rows = torch.arange(batch + 1, device="cuda", dtype=torch.int32) * queries
    starts, _ = csr(batch, table.shape[1], page)
    lengths = torch.full((batch,), table.shape[1] * page, device="cuda", dtype=torch.int32)
    packed = q.reshape(batch * queries, heads, channels)
    nope, rope = packed[..., :values].contiguous(), packed[..., values:].contiguous()
    caches = [(pool[:, :, 0, :values], pool[:, :, 0, values:]) for pool in pools]
    for backend in ("fa3", "fa2"):
        name, out = f"flashinfer {backend}", torch.empty(batch, queries, heads, values, device="cuda", dtype=q.dtype)
        try:
            wrapper = BatchMLAPagedAttentionWrapper(workspace(), backend=backend)
            wrapper.plan(qo_indptr=rows, kv_indptr=starts, kv_indices=table.flatten(), kv_len_arr=lengths, num_heads=heads, head_dim_ckv=values,
                         head_dim_kpe=channels - values, page_size=page, causal=queries > 1, sm_scale=scale, q_data_type=q.dtype, kv_data_type=q.dtype)
        except ERRORS as problem:
            print(f"   {name} left out: {str(problem).splitlines()[0][:110]}", flush=True)
            continue
        flat = out.view(batch * queries, heads, values)
        run = lambda i, wrapper=wrapper, flat=flat: wrapper.run(q_nope=nope, q_pe=rope, ckv_cache=caches[i][0], kpe_cache=caches[i][1], out=flat)
        error = error_of(name, lambda: run(0), out, want, sequences)
        if error is not None:
            runs[name], run.error = run, error
    return runs


def ragged(q, k, v, starts, want):
    """Candidate -> (run, [out]) of causal prefill over sequences that lie one behind the other. want: the right result."""
    runs = {}
    if not package():
        return runs
    for backend in ("fa3", "fa2"):
        name, out = f"flashinfer {backend}", torch.empty_like(q)
        try:
            wrapper = package().prefill.BatchPrefillWithRaggedKVCacheWrapper(workspace(), "NHD", backend=backend)
            wrapper.plan(starts, starts, q.shape[1], k.shape[1], q.shape[2], causal=True, q_data_type=q.dtype, kv_data_type=k.dtype)
        except ERRORS as problem:
            print(f"   {name} left out: {str(problem).splitlines()[0][:110]}", flush=True)
            continue
        run = lambda wrapper=wrapper, out=out: wrapper.run(q, k, v, out=out)
        if error_of(name, run, out, want) is not None:
            runs[name] = (run, [out])
    return runs
