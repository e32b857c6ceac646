"""ingot's C interface through ctypes: the structures of include/ingot/ingot.h and a thin face.

Nothing here depends on another package. Tensors are passed as PyTorch's: data_ptr() and stride().
"""

import ctypes
import sys
from ctypes import (
    POINTER,
    byref,
    c_char,
    c_char_p,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_void_p,
)
from pathlib import Path

DTYPES = {"default": 0, "f32": 1, "f16": 2, "bf16": 3, "f64": 4}
CAUSAL = {"none": 0, "top_left": 1, "bottom_right": 2}
FORWARD, BACKWARD = 0, 1


class Problem(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("batch", c_int64),
        ("num_heads", c_int64),
        ("num_heads_kv", c_int64),
        ("seqlen_q", c_int64),
        ("seqlen_k", c_int64),
        ("head_dim", c_int64),
        ("head_dim_v", c_int64),
        ("q_dtype", c_int32),
        ("k_dtype", c_int32),
        ("v_dtype", c_int32),
        ("o_dtype", c_int32),
        ("dout_dtype", c_int32),
        ("dq_dtype", c_int32),
        ("dk_dtype", c_int32),
        ("dv_dtype", c_int32),
        ("causal", c_int32),
        ("window_left", c_int64),
        ("window_right", c_int64),
        ("scale", c_float),
        ("softcap", c_float),
    ]


class Tensor(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("stride", c_int64 * 4)]


class Submission(ctypes.Structure):
    _fields_ = [
        ("stream", c_void_p),
        ("encoder", c_void_p),
        ("event", c_void_p),
        ("cancel", c_void_p),
        ("memory", c_int32),
        ("reserved", c_int32),
    ]


class ForwardArgs(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        *((name, Tensor) for name in ("q", "k", "v", "o", "lse")),
        ("workspace", c_void_p),
        ("workspace_bytes", c_size_t),
        ("submission", Submission),
    ]


class BackwardArgs(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        *((name, Tensor) for name in ("q", "k", "v", "o", "lse", "dout", "dq", "dk", "dv")),
        ("workspace", c_void_p),
        ("workspace_bytes", c_size_t),
        ("submission", Submission),
    ]


class ContextOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("num_threads", c_int32)]


class DeviceInfo(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("name", c_char * 32), ("description", c_char * 224)]


SIGNATURES = {
    "ingot_problem_init_sized": [POINTER(Problem), c_size_t],
    "ingot_forward_args_init_sized": [POINTER(ForwardArgs), c_size_t],
    "ingot_backward_args_init_sized": [POINTER(BackwardArgs), c_size_t],
    "ingot_context_options_init_sized": [POINTER(ContextOptions), c_size_t],
    "ingot_context_create": [POINTER(ContextOptions), POINTER(c_void_p)],
    "ingot_context_destroy": [c_void_p],
    "ingot_device_count": [c_void_p, POINTER(c_int32)],
    "ingot_device_info_get": [c_void_p, c_int32, POINTER(DeviceInfo)],
    "ingot_plan_create": [c_void_p, c_char_p, POINTER(Problem), POINTER(c_void_p)],
    "ingot_plan_destroy": [c_void_p],
    "ingot_plan_workspace_bytes": [c_void_p, c_int32, POINTER(c_size_t)],
    "ingot_forward": [c_void_p, POINTER(ForwardArgs)],
    "ingot_backward": [c_void_p, POINTER(BackwardArgs)],
}
WITHOUT_STATUS = {name for name in SIGNATURES if name.endswith(("_init_sized", "_destroy"))}


class IngotError(RuntimeError):
    """A call that did not return INGOT_OK; the text is ingot_last_error()."""


class Library:
    """The shared library; call(name, ...) raises IngotError on any status but OK."""

    def __init__(self, path):
        self.dll = ctypes.CDLL(str(path))
        for name, argument_types in SIGNATURES.items():
            function = getattr(self.dll, name)
            function.argtypes = argument_types
            function.restype = None if name in WITHOUT_STATUS else c_int32
        self.dll.ingot_version.restype = c_char_p
        self.dll.ingot_last_error.restype = c_char_p
        self.version = self.dll.ingot_version().decode()

    def call(self, name, *arguments):
        status = getattr(self.dll, name)(*arguments)
        if status:
            raise IngotError(f"{name}: {self.dll.ingot_last_error().decode()}")

    def made(self, structure):
        """A structure as its *_init_sized function leaves it."""
        snake = "".join("_" + c.lower() if c.isupper() else c for c in structure.__name__)
        value = structure()
        getattr(self.dll, f"ingot{snake}_init_sized")(byref(value), ctypes.sizeof(value))
        return value


class Context:
    """Devices and threads. Use as a context manager; plans made from it must be gone at its end."""

    def __init__(self, library, threads=0):
        self.library = library
        options = library.made(ContextOptions)
        options.num_threads = threads
        self.handle = c_void_p()
        library.call("ingot_context_create", byref(options), byref(self.handle))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.library.dll.ingot_context_destroy(self.handle)

    def devices(self):
        """[(name, description)], the first being what "auto" means."""
        count = c_int32()
        self.library.call("ingot_device_count", self.handle, byref(count))
        found = []
        for index in range(count.value):
            info = DeviceInfo(struct_size=ctypes.sizeof(DeviceInfo))
            self.library.call("ingot_device_info_get", self.handle, index, byref(info))
            found.append((info.name.decode(), info.description.decode()))
        return found


class Plan:
    """One problem on one device. sizes are Problem's fields; runs take prepared arguments."""

    def __init__(self, context, device="cpu", **sizes):
        self.library = context.library
        self.problem = self.library.made(Problem)
        for name, value in sizes.items():
            setattr(self.problem, name, value)
        self.handle = c_void_p()
        self.library.call(
            "ingot_plan_create",
            context.handle,
            device.encode(),
            byref(self.problem),
            byref(self.handle),
        )

    def close(self):
        self.library.dll.ingot_plan_destroy(self.handle)
        self.handle = c_void_p()

    def workspace_bytes(self, which):
        bytes_needed = c_size_t()
        self.library.call("ingot_plan_workspace_bytes", self.handle, which, byref(bytes_needed))
        return bytes_needed.value

    def forward(self, arguments):
        self.library.call("ingot_forward", self.handle, byref(arguments))

    def backward(self, arguments):
        self.library.call("ingot_backward", self.handle, byref(arguments))


def view(tensor):
    """The Tensor of a PyTorch tensor of rank 4, or of rank 3 for lse."""
    strides = [*tensor.stride(), 0][:4]
    return Tensor(tensor.data_ptr(), (c_int64 * 4)(*strides))


def arguments(library, structure, **tensors):
    """ForwardArgs or BackwardArgs over PyTorch tensors. The caller keeps the tensors alive."""
    filled = library.made(structure)
    for name, tensor in tensors.items():
        setattr(filled, name, view(tensor))
    return filled


def default_library():
    """Where a release build of this repository puts the shared library."""
    suffix = "dylib" if sys.platform == "darwin" else "so"
    return Path(__file__).resolve().parents[2] / "build" / "release" / f"libingot.{suffix}"
