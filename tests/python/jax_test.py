"""ingot.jax under jit and grad, and JAX arrays in ingot.attention."""

import ingot
import ingot.jax
import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest


def gpus():
    try:
        return jax.devices("gpu")
    except RuntimeError:
        return []


DEVICES = [jax.devices("cpu")[0], *gpus()[:1]]
OPTIONS = [
    {},
    {"causal": "bottom_right"},
    {"causal": "top_left", "softcap": 2.0},
    {"window": (4, 2), "scale": 0.3},
    {"precision": "highest", "workspace_limit": 1 << 20},
]


def for_plain(options):
    return {n: v for n, v in options.items() if n not in ("precision", "workspace_limit")}


@pytest.fixture(params=DEVICES, ids=lambda device: device.platform)
def put(request):
    """put(array, dtype=None): the array on a device; a machine without a GPU has one."""

    def on_device(array, dtype=None):
        return jax.device_put(jnp.asarray(array, dtype), request.param)

    on_device.is_cpu = request.param.platform == "cpu"
    return on_device


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_jit_and_grad(make, put, options):
    arrays = make(2, 4, 2, 13, 18, 16, 24)
    inputs = [put(x) for x in arrays]

    def run(q, k, v):
        return ingot.jax.attention(q, k, v, **options)

    result = jax.jit(run)(*inputs)
    assert result.devices() == inputs[0].devices()
    np.testing.assert_allclose(result, plain.attention(*arrays, **for_plain(options))[0], atol=2e-6)
    gradients = jax.jit(jax.grad(lambda *x: (run(*x) ** 2).sum(), argnums=(0, 1, 2)))(*inputs)
    o, lse = ingot.attention(*arrays, return_lse=True, **options)
    wanted = ingot.attention_backward(*arrays, o, lse, 2 * o, **options)
    for gradient, want in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(gradient, want, atol=0 if put.is_cpu else 1e-5)


def test_lse_and_vmap(make, put):
    arrays = make(3, 2, 2, 7, 7, 8)
    inputs = [put(x) for x in arrays]
    o, lse = ingot.jax.attention(*inputs, return_lse=True)
    np.testing.assert_allclose(lse, plain.attention(*arrays)[1], atol=2e-6)
    mapped = jax.vmap(lambda *x: ingot.jax.attention(*(t[None] for t in x)))(*inputs)
    np.testing.assert_array_equal(mapped[:, 0], o)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_half_precision(make, put, dtype):
    arrays = make(1, 2, 2, 70, 90, 64)
    inputs = [put(x, dtype) for x in arrays]
    o = ingot.jax.attention(*inputs)
    assert o.dtype == dtype
    np.testing.assert_allclose(o.astype(jnp.float32), plain.attention(*arrays)[0], atol=2e-2)
    if not put.is_cpu:
        with pytest.raises(ingot.Unsupported, match="q: is on a GPU of JAX; use ingot.jax"):
            ingot.attention(*inputs)
        return
    direct = ingot.attention(*inputs)
    assert isinstance(direct, jax.Array)
    np.testing.assert_array_equal(o.astype(jnp.float32), direct.astype(jnp.float32))


def test_a_chain_of_calls(make, put):
    """Enough work for XLA to gather it (in a CUDA graph on a GPU), with other operations between;
    run twice, since gathered work is only replayed from then on."""
    arrays = make(2, 2, 2, 70, 70, 64)
    inputs = [put(x) for x in arrays]

    @jax.jit
    def chain(q, k, v):
        for _ in range(6):
            q = (ingot.jax.attention(q, k, v, causal="bottom_right") + q) / 2
        return q

    want, k, v = (x.astype(np.float64) for x in arrays)
    for _ in range(6):
        want = (plain.attention(want, k, v, causal="bottom_right")[0] + want) / 2
    for _ in range(3):
        np.testing.assert_allclose(chain(*inputs), want, atol=1e-5)


def test_errors(make):
    q, k, v = make(1, 2, 2, 7, 9, 16)
    with pytest.raises(ingot.InvalidArgument, match="q: must have 4 dimensions"):
        ingot.jax.attention(q[0], k, v)
    with pytest.raises(ingot.InvalidArgument, match="q, k, v: must agree"):
        ingot.jax.attention(q, k[..., :4], v)
    with pytest.raises(ingot.Unsupported, match="q: is traced by JAX; use ingot.jax.attention"):
        jax.jit(lambda x: ingot.attention(x, x, x))(jnp.asarray(q))


def test_errors_of_the_call(make, put):
    q, k, v = (put(x) for x in make(1, 2, 2, 7, 9, 16))
    with pytest.raises(Exception, match="dtype: must be float32, float16, bfloat16 or float64"):
        ingot.jax.attention(q.astype("int32"), k, v).block_until_ready()
