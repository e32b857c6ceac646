"""ingot.mlx, what it cannot do, and MLX arrays in ingot.attention, on MLX's CPU build."""

import ingot
import ingot.mlx
import mlx.core as mx
import numpy as np
import plain
import pytest

OPTIONS = [{}, {"causal": "bottom_right"}, {"causal": "top_left", "softcap": 2.0}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_value_and_grad(make, options):
    arrays = make(2, 4, 2, 13, 18, 16, 24)
    q, k, v = (mx.array(x) for x in arrays)

    def loss(q, k, v):
        return ingot.mlx.attention(q * 1.0, k, v, **options).square().sum()

    value, gradients = mx.value_and_grad(loss, argnums=(0, 1, 2))(q, k, v)
    want, _ = plain.attention(*arrays, **options)
    np.testing.assert_allclose(value.item(), (want**2).sum(), rtol=1e-5)
    o, lse = ingot.attention(*arrays, return_lse=True, **options)
    wanted = ingot.attention_backward(*arrays, o, lse, 2 * o, **options)
    for gradient, wish in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(gradient), wish, atol=1e-5)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32], ids=str)
def test_dtypes(make, dtype):
    arrays = make(1, 2, 2, 7, 9, 16)
    o, lse = ingot.attention(*(mx.array(x).astype(dtype) for x in arrays), return_lse=True)
    assert isinstance(o, mx.array)
    assert o.dtype == dtype
    assert lse.dtype == mx.float32
    want, _ = plain.attention(*arrays)
    np.testing.assert_allclose(np.asarray(o.astype(mx.float32)), want, atol=3e-2)


def reference(q, k, v, *, causal=None, scale=None, softcap=None):
    """(o, lse) by MLX's own operations, which MLX differentiates."""
    k, v = (mx.repeat(x, q.shape[1] // k.shape[1], 1) for x in (k, v))
    s = (q @ k.swapaxes(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        s = softcap * mx.tanh(s / softcap)
    s = mx.where(mx.array(plain.visible(q.shape[2], k.shape[2], causal)), s, -1e30)
    lse = mx.logsumexp(s, -1)
    return mx.exp(s - lse[..., None]) @ v, lse


LOSSES = {
    "both": lambda o, lse: o.square().sum() + mx.sin(3 * lse).sum(),
    "o": lambda o, lse: o.square().sum(),
    "lse": lambda o, lse: mx.sin(3 * lse).sum(),
}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_of_lse(make, loss, options):
    inputs = [mx.array(x) for x in make(2, 4, 2, 13, 18, 16, 24)]

    def gradients(function):
        return mx.grad(lambda *x: LOSSES[loss](*function(*x)), (0, 1, 2))(*inputs)

    got = gradients(lambda *x: ingot.mlx.attention(*x, return_lse=True, **options))
    want = gradients(lambda *x: reference(*x, **options))
    for gradient, wish in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(gradient), np.asarray(wish), atol=2e-5)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_gradient_of_lse_in_half_precision(make, dtype):
    q, k, v = (mx.array(x).astype(dtype) for x in make(1, 2, 2, 40, 50, 32))

    def gradient(function, *inputs):
        return mx.grad(lambda *x: (100 * function(*x)[1]).sum())(*inputs).astype(mx.float32)

    got = gradient(lambda *x: ingot.mlx.attention(*x, return_lse=True), q, k, v)
    want = gradient(reference, *(x.astype(mx.float32) for x in (q, k, v)))
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-2, atol=0.1)


def test_no_derivative_is_zero_in_silence(make):
    q, k, v = (mx.array(x) for x in make(1, 1, 1, 3, 4, 8))

    def total(q):
        return ingot.mlx.attention(q, k, v).sum()

    for argument in range(3):
        with pytest.raises(ingot.Unsupported, match="has no forward-mode derivatives"):
            x = (q, k, v)[argument]
            mx.jvp(
                lambda x, n=argument: ingot.mlx.attention(*(q, k, v)[:n], x, *(q, k, v)[n + 1 :]),
                [x],
                [x],
            )
    with pytest.raises(ingot.Unsupported, match="has no second derivatives"):
        mx.grad(lambda q: mx.grad(total)(q).square().sum())(q)
    with pytest.raises(ingot.Unsupported, match="has no .* derivatives"):
        mx.jvp(mx.grad(total), [q], [q])


def test_what_only_traces_raises(make, tmp_path):
    q, k, v = (mx.array(x) for x in make(1, 1, 1, 3, 4, 8))

    def total(q):
        return ingot.mlx.attention(q, k, v).sum()

    for call in (
        lambda: mx.compile(total)(q),
        lambda: mx.compile(mx.grad(total))(q),
        lambda: mx.vmap(lambda q: ingot.mlx.attention(q[None], k, v))(q),
        lambda: mx.export_function(str(tmp_path / "f.mlxfn"), total, q),
    ):
        with pytest.raises(ingot.Unsupported, match="^q: must have values, which mx.compile, mx.v"):
            call()


@pytest.mark.parametrize("name", ["scale", "softcap", "workspace_limit", "window"])
def test_options_are_no_arrays(make, name):
    """mx.grad would find the derivative of one to be zero."""
    q, k, v = (mx.array(x) for x in make(1, 1, 1, 3, 4, 8))

    def total(x):
        return ingot.mlx.attention(q, k, v, **{name: (x, 0) if name == "window" else x}).sum()

    with pytest.raises(
        ingot.InvalidArgument, match=f"^{name}: must be no array of MLX.*, got array"
    ):
        mx.grad(total)(mx.array(2.0))


def test_errors(make):
    q, k, v = (mx.array(x) for x in make(1, 1, 1, 3, 3, 8))
    with pytest.raises(ingot.InvalidArgument, match="dtype: must be float32, float16 or bfloat16"):
        ingot.attention(q.astype(mx.int32), k, v)
    with pytest.raises(
        ingot.InvalidArgument, match=r"^v.shape: must be \(1, 1, 3, 8\), got \(1, 1, 2, 8\)$"
    ):
        ingot.mlx.attention(q, k, v[:, :, :2])
