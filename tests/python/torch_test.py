"""ingot.torch against PyTorch's own attention: forward, backward, compile, CUDA graphs, threads."""

import itertools
import os
import re
import subprocess
import sys

import ingot
import ingot.torch
import pytest
import torch
import torch.nn.functional as F

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
TOLERANCE = {torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float64: 1e-6}


def tensors(shape, dtype, device="cpu", requires_grad=False):
    batch, heads, heads_kv, seqlen_q, seqlen_k, head_dim, head_dim_v = shape
    generator = torch.Generator(device).manual_seed(3)
    options = {"generator": generator, "device": device, "dtype": torch.float32}
    made = (
        torch.randn(batch, heads, seqlen_q, head_dim, **options),
        torch.randn(batch, heads_kv, seqlen_k, head_dim, **options),
        torch.randn(batch, heads_kv, seqlen_k, head_dim_v, **options),
    )
    return tuple(x.to(dtype).requires_grad_(requires_grad) for x in made)


SHAPES = [
    (2, 4, 4, 33, 33, 16, 16),
    (1, 4, 2, 70, 70, 64, 64),
    (2, 2, 2, 12, 45, 40, 24),
    (1, 6, 1, 1, 90, 128, 128),
]
SWEEP = list(itertools.product(DEVICES, SHAPES, TOLERANCE, [False, True], [None, 0.2]))


@pytest.mark.parametrize("device,shape,dtype,is_causal,scale", SWEEP)
def test_equals_pytorch_forward_and_backward(device, shape, dtype, is_causal, scale):
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("skipped: float64 is for the CPU's reference")
    inputs = tensors(shape, dtype, device, requires_grad=True)
    options = {"is_causal": is_causal, "scale": scale, "enable_gqa": shape[1] != shape[2]}
    o = ingot.torch.scaled_dot_product_attention(*inputs, **options)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        want = F.scaled_dot_product_attention(*(x.double() for x in inputs), **options)
    assert o.dtype == dtype
    torch.testing.assert_close(o.double(), want, atol=TOLERANCE[dtype], rtol=0)
    dout = torch.randn(o.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    gradients = torch.autograd.grad(o, inputs, dout)
    wanted = torch.autograd.grad(want, inputs, dout.double())
    for gradient, wish in zip(gradients, wanted, strict=True):
        atol = 6 * TOLERANCE[dtype] * max(1.0, wish.abs().max().item())
        torch.testing.assert_close(gradient, wish.to(dtype), atol=atol, rtol=0)


on_devices = pytest.mark.parametrize("device", DEVICES)


@on_devices
def test_precision(device):
    """PyTorch's own setting reaches the drop-in; how near "high" is says docs/numerics.md."""
    q, k, v = tensors((1, 4, 4, 300, 300, 64, 64), torch.float32, device)
    want = ingot.torch.attention(q.double().cpu(), k.double().cpu(), v.double().cpu()).to(device)
    highest, high = (ingot.torch.attention(q, k, v, precision=p) for p in ("highest", "high"))
    torch.testing.assert_close(highest.double(), want, atol=5e-6, rtol=0)
    torch.testing.assert_close(high.double(), want, atol=1e-4, rtol=0)
    torch.testing.assert_close(ingot.attention(q, k, v, precision="high"), high, atol=0, rtol=0)
    before = torch.get_float32_matmul_precision()
    try:
        for setting, wish in (("highest", highest), ("high", high), ("medium", high)):
            torch.set_float32_matmul_precision(setting)
            got = ingot.torch.scaled_dot_product_attention(q, k, v)
            torch.testing.assert_close(got, wish, atol=0, rtol=0)
    finally:
        torch.set_float32_matmul_precision(before)
    with pytest.raises(ingot.InvalidArgument, match="precision: must be"):
        ingot.torch.attention(q, k, v, precision="medium")


@on_devices
def test_opcheck(device):
    q, k, v = tensors((1, 4, 2, 9, 12, 16, 8), torch.float32, device, requires_grad=True)
    options = (2, -1, -1, 0.0, 0.0, 0, 0)
    torch.library.opcheck(torch.ops.ingot.attention_forward, (q, k, v, *options))
    o, lse = torch.ops.ingot.attention_forward(q, k, v, *options)
    saved = [x.detach() for x in (q, k, v, o, lse, torch.randn_like(o))]
    torch.library.opcheck(torch.ops.ingot.attention_backward, (*saved, *options))


# Entries 0 and 1 with their first 5 queries and 7 keys, entry 2 with all from the second on, and
# entry 3 with nothing.
BLOCKS = [0, 2, 0, 5, 0, 7, 2, 3, 1, 9, 1, 12]


@on_devices
def test_opcheck_ragged(device):
    q, k, v = tensors((4, 4, 2, 9, 12, 16, 8), torch.float32, device, requires_grad=True)
    options = (BLOCKS, 2, -1, -1, 0.0, 0.0, 0, 0)
    torch.library.opcheck(torch.ops.ingot.attention_ragged_forward, (q, k, v, *options))
    o, lse = torch.ops.ingot.attention_ragged_forward(q, k, v, *options)
    saved = [x.detach() for x in (q, k, v, o, lse, torch.randn_like(o))]
    torch.library.opcheck(torch.ops.ingot.attention_ragged_backward, (*saved, *options))


@on_devices
def test_ragged_is_attention_block_by_block(device):
    q, k, v = tensors((4, 4, 2, 9, 12, 16, 8), torch.float32, device, requires_grad=True)
    options = (2, -1, -1, 0.0, 0.0, 0, 0)
    o, lse = torch.ops.ingot.attention_ragged_forward(q, k, v, BLOCKS, *options)
    want_o, want_lse = torch.zeros_like(o), torch.full_like(lse, float("-inf"))
    for b, rows, cols in ((0, 5, 7), (1, 5, 7), (2, 9, 12)):
        first = 1 if b == 2 else 0
        at = (slice(b, b + 1), slice(None), slice(first, rows))
        keys = (slice(b, b + 1), slice(None), slice(first, cols))
        want_o[at], want_lse[at] = torch.ops.ingot.attention_forward(
            q[at], k[keys], v[keys], *options
        )
    assert torch.equal(o, want_o) and torch.equal(lse, want_lse)
    dout = torch.randn_like(o)
    got = torch.autograd.grad(o, (q, k, v), dout)
    for x, y in zip(got, torch.autograd.grad(want_o, (q, k, v), dout), strict=True):
        assert torch.equal(x, y)


def test_gradcheck_in_float64():
    inputs = tensors((1, 2, 1, 5, 6, 4, 3), torch.float64, requires_grad=True)
    for options in ({}, {"causal": "bottom_right"}, {"softcap": 2.0}, {"window": (2, 1)}):
        # lse, which the gradient is made from, has 24 bits
        assert torch.autograd.gradcheck(
            lambda *x, o=options: ingot.torch.attention(*x, **o), inputs, atol=1e-5, rtol=1e-4
        )


@on_devices
def test_compile_has_no_graph_break(device):
    q, k, v = tensors((1, 4, 2, 20, 20, 16, 16), torch.float32, device, requires_grad=True)

    def step(q, k, v):
        return ingot.torch.attention(q * 2, k, v, causal="bottom_right", window=(4, None)).relu()

    want = torch.autograd.grad(step(q, k, v).sum(), (q, k, v))
    compiled = torch.compile(step, fullgraph=True)
    got = torch.autograd.grad(compiled(q, k, v).sum(), (q, k, v))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@on_devices
def test_compile_of_the_drop_in(device):
    q, k, v = tensors((1, 4, 2, 20, 20, 16, 16), torch.float32, device)

    def step(q, k, v):
        options = {"is_causal": True, "enable_gqa": True, "fallback": "torch"}
        return ingot.torch.scaled_dot_product_attention(q, k, v, **options) + 1

    compiled = torch.compile(step, fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), step(q, k, v))


@on_devices
def test_layout_of_the_output_follows_the_query(device):
    x = torch.randn(2, 9, 3, 4, 16, device=device)
    q, k, v = (t.transpose(1, 2) for t in x.unbind(2))
    o = ingot.torch.attention(q, k, v)
    assert o.transpose(1, 2).is_contiguous()
    torch.testing.assert_close(o, F.scaled_dot_product_attention(q, k, v))


@pytest.mark.skipif("cuda" not in DEVICES, reason="skipped: no NVIDIA GPU")
def test_cuda_graph():
    q, k, v = tensors((1, 4, 4, 256, 256, 64, 64), torch.float16, "cuda")
    want = ingot.torch.attention(q, k, v)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        o = ingot.torch.attention(q, k, v)
    o.zero_()
    graph.replay()
    torch.testing.assert_close(o, want)


@pytest.mark.skipif("cuda" not in DEVICES, reason="skipped: no NVIDIA GPU")
@pytest.mark.parametrize("seqlen_q", [1, 256], ids=["decode", "square"])
def test_cuda_graph_of_a_training_step(seqlen_q):
    shape = (1, 4, 2, seqlen_q, 4096, 128, 128)
    inputs = tensors(shape, torch.bfloat16, "cuda", requires_grad=True)

    def step():
        o = ingot.torch.attention(*inputs, causal="bottom_right")
        return (o, *torch.autograd.grad(o, inputs, torch.ones_like(o)))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        want = step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = step()
    for _ in range(2):
        for x in got:
            x.data.zero_()
        graph.replay()
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, atol=0, rtol=0)


@pytest.mark.skipif("cuda" not in DEVICES, reason="skipped: no NVIDIA GPU")
def test_work_is_ordered_by_the_current_stream():
    q, k, v = tensors((1, 8, 8, 2048, 2048, 64, 64), torch.float16, "cuda")
    want = ingot.torch.attention(q, k, v)
    other = torch.cuda.Stream()
    other.wait_stream(torch.cuda.current_stream())
    late = torch.zeros_like(q)
    with torch.cuda.stream(other):
        torch.cuda._sleep(50_000_000)
        late.copy_(q)
        o = ingot.attention(late, k, v)
    other.synchronize()
    torch.testing.assert_close(o, want, atol=0, rtol=0)


# The threads of this process before and after attention, PyTorch's being at work.
THREADS = """
import os, sys
import ingot, ingot.torch, torch
from ingot import _core
if sys.argv[1] == "beside":
    _core.use_openmp_of("")
def tasks():
    return len(os.listdir("/proc/self/task"))
torch.set_num_threads(2)
torch.randn(4_000_000).exp()
x = torch.randn(1, 8, 512, 64)
before = tasks()
o = ingot.torch.attention(x, x, x)
print(tasks() - before)
if sys.argv[1] == "fork":
    child = os.fork()
    if child == 0:
        again = ingot.torch.attention(x, x, x)
        torch.set_num_threads(1)  # PyTorch's own are gone, and it would wait for them
        os._exit(0 if torch.equal(again, o) else 1)
    print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="skipped: threads are counted on Linux")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="skipped: one processor")
@pytest.mark.parametrize("where,printed", [("within", "0"), ("beside", "[1-9]"), ("fork", "0 0")])
def test_cpu_work_runs_on_pytorchs_threads(where, printed):
    command = [sys.executable, "-c", THREADS, where]
    output = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert re.fullmatch(printed, " ".join(output.stdout.split())), output.stdout


def test_a_library_that_is_not_loaded_has_no_threads():
    from ingot import _core

    assert not _core.use_openmp_of("/nowhere/libtorch_cpu.so")
