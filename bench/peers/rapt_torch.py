"""rapt_torch.py: the least of librapt.so that a benchmark needs, by ctypes, on PyTorch's CUDA tensors and stream."""
import ctypes

import torch

from rapt import Attention, Tensor

DTYPES = {torch.float32: 1, torch.float16: 2, torch.bfloat16: 3, torch.int8: 4, torch.uint8: 5, torch.int32: 6, torch.int64: 7}


def view(x, axes):
    """axes: which axis of x is batch, head, token, channel; None: an axis of one element."""
    t = Tensor()
    t.data, t.dtype = x.data_ptr(), DTYPES[x.dtype]
    for i, axis in enumerate(axes):
        t.size[i] = 1 if axis is None else x.shape[axis]
        t.stride[i] = 0 if axis is None else x.stride(axis)
    return t


class Rapt:
    """One device. Keeps what it is given alive as long as the plans that it makes."""

    def __init__(self, path, index=0):
        self.lib = lib = ctypes.CDLL(path)
        lib.rapt_last_error.restype = lib.rapt_plan_kernel.restype = ctypes.c_char_p
        lib.rapt_device_at.restype = ctypes.c_void_p
        lib.rapt_plan_workspace_size.restype = lib.rapt_explain.restype = ctypes.c_size_t
        self.context = ctypes.c_void_p()
        self.must(lib.rapt_open(ctypes.byref(self.context), None))
        self.device = ctypes.c_void_p(lib.rapt_device_at(self.context, index))

    def must(self, status):
        if status:
            raise RuntimeError(self.lib.rapt_last_error().decode())

    def explain(self, a):
        text = ctypes.create_string_buffer(16384)
        self.lib.rapt_explain(self.device, ctypes.byref(a), text, ctypes.c_size_t(len(text)))
        return text.value.decode()

    def forward(self, q, k, v, out, lse=None, kernel=None, ragged=False, work=None, **options):
        """q, k, v, out: [batch, token, head, channel], ragged: [token, head, channel]; lse [batch, head, token], ragged [head, token].
        options: further fields of rapt_attention; tensors of one axis. work: the workspace of another such function, for problems alike. Returns a
        function that launches on the current stream; its work: the workspace."""
        a = Attention()
        a.struct_size = ctypes.sizeof(Attention)
        axes, lse_axes = ((None, 1, 0, 2), (None, 0, 1, None)) if ragged else ((0, 2, 1, 3), (0, 1, 2, None))
        kept = [q, k, v, out, lse]
        for name, x in (("q", q), ("k", k), ("v", v), ("out", out)):
            setattr(a, name, view(x, axes))
        if lse is not None:
            a.lse = view(lse, lse_axes)
        for name, value in options.items():
            if isinstance(value, torch.Tensor):
                per_head = name in ("alibi_slope", "sink")
                shape = {2: (0, 1, None, None), 1: (None, 0, None, None) if per_head else (0, None, None, None)}
                value_view = view(value, (0, 1, 2, 3) if value.dim() == 4 else shape[value.dim()])
                if per_head and value.dim() == 1:
                    value_view.size[0] = 1
                setattr(a, name, value_view)
                kept.append(value)
            elif value:
                setattr(a, name, value)
        if kernel:
            a.kernel = kernel.encode()
        plan = ctypes.c_void_p()
        self.must(self.lib.rapt_plan_create(ctypes.byref(plan), self.device, ctypes.byref(a)))
        size = max(64, self.lib.rapt_plan_workspace_size(plan))
        work = torch.empty(size, device=q.device, dtype=torch.uint8) if work is None else work
        assert work.numel() >= size
        execute, pointer = self.lib.rapt_plan_execute, ctypes.byref(a)
        work_pointer = ctypes.c_void_p(work.data_ptr())

        def run():
            status = execute(plan, pointer, work_pointer, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))
            if status:
                self.must(status)

        run.kept, run.work = (kept, work, a, plan), work
        run.kernel = self.lib.rapt_plan_kernel(plan).decode()
        return run

    def kernels(self):
        """Names of the forward kernels that this device can run, best first."""
        class Info(ctypes.Structure):
            _fields_ = [("struct_size", ctypes.c_uint64)] + [(n, ctypes.c_char_p) for n in ("name", "backend", "arch", "op", "override")] + [
                ("bytes", ctypes.c_int64), ("present", ctypes.c_int64)]
        names, info, i = [], Info(), 0
        info.struct_size = ctypes.sizeof(Info)
        self.lib.rapt_kernel_count.restype = ctypes.c_int64
        while i < self.lib.rapt_kernel_count(self.context):
            self.must(self.lib.rapt_kernel_at(self.context, ctypes.c_int64(i), ctypes.byref(info)))
            if info.op == b"forward" and info.present and info.name.decode() not in names:
                names.append(info.name.decode())
            i += 1
        return names
