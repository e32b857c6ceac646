"""How MPS tensors are encoded, with stand-ins for PyTorch's and Apple's libraries: no machine with
Apple's GPU has run it. That the C interface takes slices and a caller's command buffer is tested in
tests/metal; here it is what Python makes of a tensor, and on which queue."""

import shutil
import subprocess

import ingot
import pytest
import torch
from ingot import _core, _torch_mps

# As torch/mps.h declares them, so that the compiler makes the names that are looked up.
LIBRARIES = """
#include <vector>
static std::vector<int> events;
namespace torch::mps {
void* get_command_buffer() { events.push_back(1); return reinterpret_cast<void*>(0x100); }
void* get_dispatch_queue() { events.push_back(2); return reinterpret_cast<void*>(0x200); }
}
extern "C" void dispatch_sync_f(void* queue, void* context, void (*work)(void*)) {
  events.push_back(queue == reinterpret_cast<void*>(0x200) ? 3 : -1);
  work(context);
  events.push_back(4);
}
extern "C" int next_event() {
  if (events.empty()) return 0;
  const int event = events.front();
  events.erase(events.begin());
  return event;
}
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("skipped: no C++ compiler")
    source, made = tmp_path / "libraries.cpp", tmp_path / "libraries.so"
    source.write_text(LIBRARIES)
    command = [compiler, "-std=c++17", "-shared", "-fPIC", "-o", made, source]
    subprocess.run(command, check=True)
    monkeypatch.setattr(_torch_mps, "LIBRARY", str(made))
    monkeypatch.setattr(_torch_mps, "SYSTEM", str(made))
    _torch_mps._functions.cache_clear()
    yield _torch_mps.ctypes.CDLL(str(made))
    _torch_mps._functions.cache_clear()


def events(library):
    return list(iter(library.next_event, 0))


def test_encoding_happens_on_the_queue_with_the_command_buffer(library):
    seen = []
    _torch_mps.encode(seen.append)
    assert seen == [0x100]
    assert events(library) == [2, 3, 1, 4]


def test_failures_leave_the_queue(library):
    def fail(_):
        raise ingot.Unsupported("unsupported: for a test")

    with pytest.raises(ingot.Unsupported, match="for a test"):
        _torch_mps.encode(fail)
    assert events(library)[-1] == 4


def test_without_the_functions():
    if _torch_mps.torch.backends.mps.is_available():
        pytest.skip("skipped: this PyTorch has them")
    _torch_mps._functions.cache_clear()
    with pytest.raises(ingot.Unsupported, match="does not offer torch/mps.h"):
        _torch_mps.encode(print)


def test_tensors_are_slices(library, monkeypatch):
    """What a tensor's view says comes back in the errors of the call: shapes, strides' base, the
    device. A CPU tensor stands for one on MPS."""
    q = torch.randn(2, 3, 8, 16).transpose(1, 2)[:, 1:, :, :]
    made = []
    monkeypatch.setattr(_torch_mps._core, "MetalTensor", lambda *arguments: made.append(arguments))
    _torch_mps.view(q)
    assert made == [
        (q.untyped_storage().data_ptr(), 64, "float32", (2, 7, 3, 16), (384, 16, 128, 1))
    ]
    assert q.data_ptr() == made[0][0] + made[0][1]
    made.clear()
    mask = torch.ones(8, 8) > 0
    assert _torch_mps.views((q, None, (mask, None, 0.5, 3))) == (None, None, (None, None, 0.5, 3))
    assert [x[2] for x in made] == ["float32", "bool"]


def metal_tensor(*shape, dtype="float32", buffer=0x1000):
    strides = torch.empty(shape, device="meta").stride()
    return _core.MetalTensor(buffer, 0, dtype, shape, strides)


def test_what_the_module_checks():
    q, o, lse = metal_tensor(1, 2, 8, 16), metal_tensor(1, 2, 8, 16), metal_tensor(1, 2, 8)
    options = (0, -1, -1, 0.0, 0.0, 0, 0, "", 0)
    with pytest.raises(ingot.InvalidArgument, match="k.shape: must be"):
        _core.forward(q, metal_tensor(1, 2, 8, 8), q, o, lse, *options)
    with pytest.raises(ingot.InvalidArgument, match="lse: must have 3 dimensions"):
        _core.forward(q, q, q, o, o, *options)
    with pytest.raises(ingot.InvalidArgument, match="v: must be on the device of q"):
        _core.forward(q, q, torch.empty(1, 2, 8, 16), o, lse, *options)
    mask, lengths = metal_tensor(8, 8, dtype="bool"), metal_tensor(1, dtype="int32")
    for i, wrong, text in (
        (2, q, r"mask.dtype: must be bool \(bias adds numbers\), got float32"),
        (2, metal_tensor(8, 7, dtype="bool"), "mask.shape: must broadcast to"),
        (1, mask, "bias.dtype: must be float32, float16, bfloat16 or float64, got bool"),
        (4, mask, "prefix_len: must have 1 dimension, got 2"),
        (2, torch.ones(8, 8) > 0, "mask: must be on the device of q, metal:0, got cpu"),
    ):
        parts = [None, None, mask, None, lengths, 0.0, 0, 0, 0]
        parts[i] = wrong
        with pytest.raises(ingot.InvalidArgument, match=text):
            _core.forward(q, q, q, o, lse, *options, tuple(parts))
    with pytest.raises(ingot.InvalidArgument, match="dtype: must be float32, float16, bfloat16"):
        metal_tensor(1, dtype="int8")
    with pytest.raises(ingot.InvalidArgument, match="buffer: must be an MTLBuffer, got 0"):
        metal_tensor(1, buffer=0)
    with pytest.raises(ingot.InvalidArgument, match="shape, strides: must have the same number"):
        _core.MetalTensor(1, 0, "float32", [1, 2], [1])
    if not any(name.startswith("metal") for name, _ in ingot.devices()):
        with pytest.raises(ingot.InvalidArgument, match="device: must be one of .*metal:0"):
            _core.forward(q, q, q, o, lse, *options)
