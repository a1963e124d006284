"""rapt.py: a thin ctypes view of librapt for the benchmarks beside it; tensors are pointers, sizes and strides."""
import csv
import ctypes
import os

KV_BLOCKED = 1
F32, F16, BF16, I8, U8, I32, I64 = 1, 2, 3, 4, 5, 6, 7


def append_rows(path, fields, rows):
    """Adds rows (dicts) to a CSV file, which begins with the fields."""
    new = not os.path.exists(path)
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int64), ("size", ctypes.c_int64 * 4), ("stride", ctypes.c_int64 * 4)]


class Attention(ctypes.Structure):
    _fields_ = (
        [("struct_size", ctypes.c_uint64)]
        + [(name, Tensor) for name in ("q k v out lse bias mask alibi_slope sink q_start kv_start kv_length page_table "
                                       "q_scale k_scale v_scale weights").split()]
        + [("scale", ctypes.c_double), ("softcap", ctypes.c_double)]
        + [(name, ctypes.c_int64) for name in "causal align window_left window_right batch_invariant".split()]
        + [("kernel", ctypes.c_char_p), ("kv_layout", ctypes.c_int64)])


class Config(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint64), ("threads", ctypes.c_int64), ("backends", ctypes.c_char_p)]


def tensor(pointer, dtype, size, stride):
    """Axes [batch, head, token, channel], strides in elements."""
    return Tensor(pointer, dtype, (ctypes.c_int64 * 4)(*size), (ctypes.c_int64 * 4)(*stride))


class Rapt:
    """One context on one kind of device. plan() gives a callable that executes; everything else is the caller's."""

    def __init__(self, backends, threads=0, library=None):
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build")
        self.lib = ctypes.CDLL(library or os.environ.get("RAPT_LIBRARY") or os.path.join(folder, "librapt.so"))
        self.lib.rapt_last_error.restype = ctypes.c_char_p
        self.lib.rapt_device_at.restype = ctypes.c_void_p
        self.lib.rapt_plan_kernel.restype = ctypes.c_char_p
        self.lib.rapt_plan_workspace_size.restype = ctypes.c_size_t
        self.context = ctypes.c_void_p()
        config = Config(ctypes.sizeof(Config), threads, backends.encode())
        self.check(self.lib.rapt_open(ctypes.byref(self.context), ctypes.byref(config)))
        self.device = ctypes.c_void_p(self.lib.rapt_device_at(self.context, 0))

    def check(self, status):
        if status:
            raise RuntimeError(self.lib.rapt_last_error().decode())

    def plan(self, attention, stream=None):
        """Returns (kernel name, execute); the attention struct must stay as it is, its data pointers may change."""
        attention.struct_size = ctypes.sizeof(Attention)
        plan = ctypes.c_void_p()
        self.check(self.lib.rapt_plan_create(ctypes.byref(plan), self.device, ctypes.byref(attention)))
        size = self.lib.rapt_plan_workspace_size(plan)
        workspace = ctypes.c_void_p()
        if size:
            self.check(self.lib.rapt_alloc(self.device, ctypes.c_size_t(size), ctypes.byref(workspace)))
        call, reference = self.lib.rapt_plan_execute, ctypes.byref(attention)

        def execute(on=stream):
            status = call(plan, reference, workspace, ctypes.c_void_p(on))
            if status:
                self.check(status)

        return self.lib.rapt_plan_kernel(plan).decode(), execute
