"""PyTorch's MPS tensors: work is encoded into the command buffer that PyTorch is filling.

Untried on hardware. Written against PyTorch's public C++ interface for extensions (torch/mps.h:
torch::mps::get_command_buffer and get_dispatch_queue), found by name in the library that is loaded
already, so that building ingot needs no PyTorch. Like PyTorch's own kernels, encoding happens on
its dispatch queue; PyTorch commits the buffer when it sees fit, or in torch.mps.synchronize().
"""

import ctypes
import functools
import os

import torch

from ingot import _core
from ingot._errors import Unsupported

# The C++ names torch::mps::get_command_buffer() and torch::mps::get_dispatch_queue(), as the
# Itanium ABI, which Apple uses, writes them.
_COMMAND_BUFFER = "_ZN5torch3mps18get_command_bufferEv"
_DISPATCH_QUEUE = "_ZN5torch3mps18get_dispatch_queueEv"
LIBRARY = os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.dylib")
SYSTEM = None  # what the process has loaded: dispatch_sync_f is in Apple's libSystem
_WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def view(tensor):
    """The tensor as a slice of its MTLBuffer, which is what an MPS storage's address is."""
    storage = tensor.untyped_storage()
    return _core.MetalTensor(
        storage.data_ptr(),
        tensor.storage_offset() * tensor.element_size(),
        str(tensor.dtype).removeprefix("torch."),
        tensor.shape,
        tensor.stride(),
    )


def views(arguments):
    """The arguments of a call with a view for each tensor; parts are a tuple among them."""
    return tuple(
        view(x) if isinstance(x, torch.Tensor) else views(x) if isinstance(x, tuple) else x
        for x in arguments
    )


def encode(call):
    """Runs call(command buffer) on PyTorch's dispatch queue and waits until it has encoded."""
    get_command_buffer, get_dispatch_queue, dispatch_sync_f = _functions()
    failures = []

    @_WORK
    def work(_):
        try:
            call(get_command_buffer())
        except BaseException as failure:  # no exception may leave through C
            failures.append(failure)

    dispatch_sync_f(get_dispatch_queue(), None, work)
    if failures:
        raise failures[0]


@functools.cache
def _functions():
    try:
        library, system = ctypes.CDLL(LIBRARY), ctypes.CDLL(SYSTEM)
        getters = (library[_COMMAND_BUFFER], library[_DISPATCH_QUEUE])
        dispatch_sync_f = system.dispatch_sync_f
    except (OSError, AttributeError) as error:
        raise Unsupported(
            f"q: is on MPS, and PyTorch {torch.__version__} does not offer torch/mps.h: {error}"
        ) from None
    for getter in getters:
        getter.restype, getter.argtypes = ctypes.c_void_p, []
    dispatch_sync_f.restype = None
    dispatch_sync_f.argtypes = [ctypes.c_void_p, ctypes.c_void_p, _WORK]
    return (*getters, dispatch_sync_f)
