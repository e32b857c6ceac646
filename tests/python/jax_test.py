"""ingot.jax under jit and grad, and JAX arrays in ingot.attention."""

import ingot
import ingot.jax
import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest

OPTIONS = [
    {},
    {"causal": "bottom_right"},
    {"causal": "top_left", "softcap": 2.0},
    {"window": (4, 2), "scale": 0.3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_jit_and_grad(make, options):
    arrays = make(2, 4, 2, 13, 18, 16, 24)

    def run(q, k, v):
        return ingot.jax.attention(q, k, v, **options)

    o = jax.jit(run)(*arrays)
    np.testing.assert_allclose(o, plain.attention(*arrays, **options)[0], atol=2e-6)
    gradients = jax.jit(jax.grad(lambda *x: (run(*x) ** 2).sum(), argnums=(0, 1, 2)))(*arrays)
    o, lse = ingot.attention(*arrays, return_lse=True, **options)
    wanted = ingot.attention_backward(*arrays, o, lse, 2 * o, **options)
    for gradient, want in zip(gradients, wanted, strict=True):
        np.testing.assert_array_equal(gradient, want)


def test_lse_and_vmap(make):
    arrays = make(3, 2, 2, 7, 7, 8)
    o, lse = ingot.jax.attention(*arrays, return_lse=True)
    np.testing.assert_allclose(lse, plain.attention(*arrays)[1], atol=2e-6)
    mapped = jax.vmap(lambda *x: ingot.jax.attention(*(t[None] for t in x)))(*arrays)
    np.testing.assert_array_equal(mapped[:, 0], o)


def test_bfloat16(make):
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in make(1, 2, 2, 7, 9, 16)]
    o = ingot.jax.attention(*arrays)
    assert o.dtype == jnp.bfloat16
    direct = ingot.attention(*arrays)
    assert isinstance(direct, jax.Array)
    np.testing.assert_array_equal(o.astype(jnp.float32), direct.astype(jnp.float32))


def test_errors(make):
    q, k, v = make(1, 2, 2, 7, 9, 16)
    with pytest.raises(ingot.InvalidArgument, match="q: must have 4 dimensions"):
        ingot.jax.attention(q[0], k, v)
    with pytest.raises(ingot.InvalidArgument, match="q, k, v: must agree"):
        ingot.jax.attention(q, k[..., :4], v)
    with pytest.raises(ingot.Unsupported, match="q: is traced by JAX; use ingot.jax.attention"):
        jax.jit(lambda x: ingot.attention(x, x, x))(jnp.asarray(q))
    with pytest.raises(Exception, match="dtype: must be float32, float16, bfloat16 or float64"):
        ingot.jax.attention(q.astype("int32"), k, v).block_until_ready()
