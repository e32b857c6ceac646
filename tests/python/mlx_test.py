"""ingot.mlx and MLX arrays in ingot.attention, on MLX's CPU build."""

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


def test_errors(make):
    q = mx.array(make(1, 1, 1, 3, 3, 8)[0])
    with pytest.raises(ingot.InvalidArgument, match="dtype: must be float32, float16 or bfloat16"):
        ingot.attention(*[q.astype(mx.int32)] * 3)
