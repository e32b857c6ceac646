"""ingot.attention on NumPy arrays: numbers, layouts, dtypes, errors, threads, signals."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import threading
import time

import ingot
import ml_dtypes
import numpy as np
import plain
import pytest

OPTIONS = [
    {},
    {"causal": "top_left"},
    {"causal": "bottom_right"},
    {"window": (5, 3)},
    {"window": (5, None)},
    {"causal": "bottom_right", "window": (7, -1)},
    {"scale": 0.3},
    {"softcap": 2.0},
    {"causal": "top_left", "softcap": 1.5, "scale": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(2, 4, 2, 33, 40, 16, 24), (1, 3, 3, 50, 20, 64)], ids=str)
def test_forward_and_lse(make, shape, options):
    q, k, v = make(*shape)
    o, lse = ingot.attention(q, k, v, return_lse=True, **options)
    want_o, want_lse = plain.attention(q, k, v, **options)
    assert o.dtype == lse.dtype == np.float32
    np.testing.assert_allclose(o, want_o, atol=2e-6)
    np.testing.assert_allclose(lse, want_lse, atol=2e-6)
    np.testing.assert_array_equal(o, ingot.attention(q, k, v, **options))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_backward_is_the_slope(make, options):
    q, k, v = (x.astype(np.float64) for x in make(1, 2, 1, 9, 12, 5, 4))
    o, lse = ingot.attention(q, k, v, return_lse=True, **options)
    dout = np.random.default_rng(1).standard_normal(o.shape)
    gradients = ingot.attention_backward(q, k, v, o, lse, dout, **options)
    for index, gradient in enumerate(gradients):
        step = np.random.default_rng(index).standard_normal(gradient.shape)
        ends = []
        for sign in (1, -1):
            moved = [q, k, v]
            moved[index] = moved[index] + sign * 1e-5 * step
            ends.append((plain.attention(*moved, **options)[0] * dout).sum())
        np.testing.assert_allclose((gradient * step).sum(), (ends[0] - ends[1]) / 2e-5, atol=1e-5)


@pytest.mark.parametrize(
    "dtype,tolerance",  # of float64: scale has 24 bits
    [("float16", 2e-3), (ml_dtypes.bfloat16, 2e-2), ("float64", 1e-7)],
    ids=["float16", "bfloat16", "float64"],
)
def test_dtypes(make, dtype, tolerance):
    q, k, v = (x.astype(dtype) for x in make(2, 2, 2, 17, 19, 32))
    o, lse = ingot.attention(q, k, v, return_lse=True)
    assert o.dtype == np.dtype(dtype)
    assert lse.dtype == np.float32
    want, _ = plain.attention(q, k, v)
    np.testing.assert_allclose(o.astype(np.float64), want, atol=tolerance)
    dout = np.ones_like(o)
    for gradient, x in zip(ingot.attention_backward(q, k, v, o, lse, dout), (q, k, v), strict=True):
        assert gradient.dtype == x.dtype
        assert gradient.shape == x.shape


def test_strides_need_no_copy(make):
    q, k, v = make(2, 3, 3, 20, 20, 16)
    want = ingot.attention(q, k, v)
    bshd = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (q, k, v)]
    np.testing.assert_array_equal(ingot.attention(*bshd), want)
    packed = np.stack([q, k, v], axis=3)
    np.testing.assert_array_equal(ingot.attention(*np.moveaxis(packed, 3, 0)), want)
    reverse = [x[:, :, ::-1][:, :, ::-1] for x in (q, k, v)]
    np.testing.assert_array_equal(ingot.attention(*reverse), want)
    np.testing.assert_allclose(
        ingot.attention(q[:, :, ::-1], k[:, :, ::-1], v[:, :, ::-1])[:, :, ::-1], want, atol=1e-6
    )
    broadcast = np.broadcast_to(k[:1, :1], k.shape)
    np.testing.assert_allclose(
        ingot.attention(q, broadcast, v), plain.attention(q, broadcast, v)[0], atol=2e-6
    )


def test_read_only_inputs(make):
    q, k, v = make(1, 1, 1, 4, 4, 8)
    want = ingot.attention(q, k, v)
    q.flags.writeable = False
    np.testing.assert_array_equal(ingot.attention(q, k, v), want)


def test_rows_without_keys(make):
    q, k, v = make(1, 1, 1, 6, 3, 8)
    o, lse = ingot.attention(q, k, v, causal="bottom_right", return_lse=True)
    assert (o[0, 0, :3] == 0).all()
    assert np.isneginf(lse[0, 0, :3]).all()
    empty = ingot.attention(q[:, :, :0], k, v)
    assert empty.shape == (1, 1, 0, 8)


FLOATS = "float32, float16, bfloat16 or float64"
NATIVE = f"q.dtype: must be {FLOATS} in native byte order, got"
DIMENSIONS = "q: must have 4 dimensions (batch, heads, seqlen, head_dim), got"
CAUSAL = 'causal: must be None, "top_left" or "bottom_right", got'
PAIR = "window: must be None or a pair (left, right) of integers or None, got"
LARGEST = 2**63 - 1


def same(q):
    return q, q, q


ERRORS = [
    (lambda q: (q[0], q, q), {}, f"{DIMENSIONS} 3"),
    (lambda q: (q, q[..., :4], q), {}, "k.shape: must be (2, 2, 5, 8), got (2, 2, 5, 4)"),
    (lambda q: (q, q, q[:, :1]), {}, "v.shape: must be (2, 2, 5, 8), got (2, 1, 5, 8)"),
    (same, {"causal": True}, f"{CAUSAL} True"),
    (same, {"causal": []}, f"{CAUSAL} []"),
    (same, {"window": 3}, f"{PAIR} 3"),
    (same, {"window": (-7, 1)}, f"window_left: must be from -1 to {LARGEST}, got -7"),
    (
        same,
        {"workspace_limit": 0},
        "workspace_limit: must not be 0 (leave it out for the default), got 0",
    ),
    (same, {"workspace_limit": -1}, "workspace_limit: must be at least 0, got -1"),
    (
        same,
        {"precision": "medium"},
        'precision: must be None, "highest" or "high", got \'medium\'',
    ),
    (same, {"scale": 0}, "scale: must not be 0 (leave it out for the default), got 0"),
    (same, {"scale": 1e-50}, "scale: its magnitude must be from 1e-37 to 1e37, got 1e-50"),
    (same, {"scale": -2e37}, "scale: its magnitude must be from 1e-37 to 1e37, got -2e+37"),
    (same, {"softcap": 1e-38}, "softcap: its magnitude must be from 1e-37 to 1e37, got 1e-38"),
    (same, {"softcap": -1}, "softcap: must be finite and not negative, got -1"),
    (lambda q: same(q.astype("int32")), {}, f"{NATIVE} int32"),
    (lambda q: same(q.astype(">f4")), {}, f"{NATIVE} >f4"),
    (
        lambda q: (q, q.astype("int8"), q),
        {},
        f"k.dtype: must be {FLOATS} in native byte order, got int8",
    ),
    (
        lambda q: ([1.0], q, q),
        {},
        "q: must be an array of NumPy, PyTorch, JAX, CuPy or MLX, got builtins.list",
    ),
    (
        lambda q: (q, "k", q),
        {},
        "k: must be an array that speaks DLPack, got <class 'str'>",
    ),
]


@pytest.mark.parametrize("arguments,options,text", ERRORS, ids=[e[2] for e in ERRORS])
def test_errors_name_argument_rule_and_value(make, arguments, options, text):
    q, _, _ = make(2, 2, 2, 5, 5, 8)
    with pytest.raises(ingot.InvalidArgument) as error:
        ingot.attention(*arguments(q), **options)
    assert str(error.value) == text
    assert isinstance(error.value, ValueError)


def test_the_least_and_the_largest_factors(make):
    """Python refuses nothing that the library takes, as numbers of float32 either."""
    q, k, v = make(1, 1, 1, 4, 4, 8)
    for scale in (1e-37, np.float32(1e-37), -1e-37, 1e37, np.float32(-1e37)):
        ingot.attention(q * 1e-3, k * 1e-3, v, scale=scale)
    for softcap in (1e-37, np.float32(1e-37), 1e37, np.float32(1e37)):
        ingot.attention(q, k, v, scale=softcap, softcap=softcap)


def test_unknown_device(make):
    q, k, v = make(1, 1, 1, 4, 4, 8)
    with pytest.raises(ValueError, match="device: must be one of auto, cpu, reference"):
        ingot.attention(q, k, v, device="tpu")
    with pytest.raises(ingot.Unsupported, match="unsupported"):
        ingot.attention(q, k, v.astype("float64"), device="cpu")
    reference = ingot.attention(q, k, v, device="reference")
    np.testing.assert_allclose(ingot.attention(q, k, v), reference, atol=1e-6)


def test_explain_and_devices():
    names = [name for name, _ in ingot.devices()]
    assert "cpu" in names
    assert "reference" in names
    text = ingot.explain(seqlen_q=128, head_dim=64, device="cpu")
    assert text.startswith("device            cpu\n")
    plan = ingot.explain(seqlen_q=8, head_dim=64, causal="top_left", device="cpu", format="json")
    assert plan["problem"]["causal"] == "top_left"
    json.dumps(plan)
    for precision, name in ((None, "highest"), ("highest", "highest"), ("high", "high")):
        options = {"device": "cpu", "format": "json", "precision": precision}
        plan = ingot.explain(seqlen_q=8, head_dim=64, **options)
        assert plan["problem"]["precision"] == name
    plan = ingot.explain(seqlen_q=8, head_dim=64, workspace_limit=4096, device="cpu", format="json")
    assert plan["problem"]["workspace_limit"] == 4096
    with pytest.raises(ValueError, match="dtype: must be"):
        ingot.explain(seqlen_q=8, head_dim=64, dtype="int4")
    with pytest.raises(ValueError, match="format: must be"):
        ingot.explain(seqlen_q=8, head_dim=64, format="xml")


def test_number_of_threads_changes_no_bit(make):
    inputs = make(1, 4, 4, 256, 256, 64)
    want = ingot.attention(*inputs)
    try:
        for count in (1, 3):
            ingot.set_num_threads(count)
            assert dict(ingot.devices())["cpu"].split(", ")[-1].startswith(f"{count} thread")
            np.testing.assert_array_equal(ingot.attention(*inputs), want)
        with pytest.raises(
            ingot.InvalidArgument, match="num_threads: must be from 0 to .*, got -1"
        ):
            ingot.set_num_threads(-1)
    finally:
        ingot.set_num_threads(0)


def test_threads_run_at_the_same_time(make):
    inputs = make(1, 4, 4, 256, 256, 64)
    want = ingot.attention(*inputs)
    wrong = []

    def work():
        for _ in range(20):
            if not np.array_equal(ingot.attention(*inputs), want):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="skipped: this system has no fork")
def test_fork(make):
    inputs = make(1, 4, 4, 256, 256, 64)
    want = ingot.attention(*inputs)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if np.array_equal(ingot.attention(*inputs), want) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_ctrl_c_ends_a_long_call():
    program = (
        "import ingot, numpy as np, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a parent may ignore it
        "q = np.ones((1, 64, 16384, 64), 'float32')\n"
        "print('ready', flush=True)\n"
        "try:\n    ingot.attention(q, q, q)\n"
        "except KeyboardInterrupt:\n    print('interrupted', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(1)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    assert process.wait(timeout=30) == 0
    assert time.monotonic() - start < 20


def test_import_brings_no_package_along():
    heavy = ("torch", "jax", "mlx", "numpy", "transformers")
    program = f"import sys, ingot; print([m for m in {heavy} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert output.stdout == "[]\n", output.stderr


def test_the_program_is_installed():
    script = next(f for f in importlib.metadata.files("ingot") if f.name in ("ingot", "ingot.exe"))
    output = subprocess.run([script.locate(), "--version"], capture_output=True, text=True)
    assert ingot.__version__ in output.stdout
