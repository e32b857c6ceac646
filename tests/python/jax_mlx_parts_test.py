"""ALiBi, bias, mask, sinks, prefix and dropout in ingot.jax and ingot.mlx: values and gradients."""

import ingot
import ingot.jax
import ingot.mlx
import jax
import jax.numpy as jnp
import mlx.core as mx
import numpy as np
import plain_parts
import pytest

RNG = np.random.default_rng(2)


def normal(*shape):
    return RNG.standard_normal(shape).astype("float32")


ARRAYS = {"q": normal(2, 4, 9, 16), "k": normal(2, 2, 12, 16), "v": normal(2, 2, 12, 8)}
LEARNED = {"bias": normal(4, 1, 12), "sinks": normal(4)}
FIXED = {
    "mask": RNG.random((2, 1, 9, 12)) < 0.8,
    "alibi_slopes": np.float32([0.5, 0.25, 0.1, 0.0]),
    "prefix_len": np.int32([2, 5]),
}
OPTIONS = {"causal": "bottom_right", "dropout": 0.3, "seed": (5, 2**63 + 6)}
DOUT = normal(2, 4, 9, 8)
DIFFERENTIATED = {**ARRAYS, **LEARNED}


def near(got, want, name):
    scale = max(1.0, np.abs(want).max())
    np.testing.assert_allclose(
        np.asarray(got, np.float64), want, rtol=0, atol=1e-5 * scale, err_msg=name
    )


def loss_of(package):
    """The loss as a function of DIFFERENTIATED's arrays, in their order."""
    attention = ingot.jax.attention if package is jnp else ingot.mlx.attention
    fixed = {name: package.array(x) for name, x in FIXED.items()}

    def loss(*arrays):
        given = dict(zip(DIFFERENTIATED, arrays, strict=True))
        return (attention(**given, **fixed, **OPTIONS) * package.array(DOUT)).sum()

    return loss


@pytest.mark.parametrize("way", ["eager", "jit", "mlx"])
def test_all_parts_and_their_gradients_equal_the_textbook(way):
    package = mx if way == "mlx" else jnp
    arrays = [package.array(x) for x in DIFFERENTIATED.values()]
    loss = loss_of(package)
    indices = tuple(range(len(arrays)))
    if way == "mlx":
        value, gradients = mx.value_and_grad(loss, indices)(*arrays)
    else:
        wrap = jax.jit if way == "jit" else lambda x: x
        value, gradients = wrap(jax.value_and_grad(loss, indices))(*arrays)
    given = {**LEARNED, **FIXED, **OPTIONS}
    o, _ = plain_parts.attention(*ARRAYS.values(), **given)
    assert abs(float(value) - (o * DOUT).sum()) < 1e-3
    want = plain_parts.attention(*ARRAYS.values(), DOUT, **given)
    for got, (name, gradient) in zip(gradients, want.items(), strict=True):
        near(got, gradient, name)


@pytest.mark.parametrize("package", [jnp, mx], ids=["jax", "mlx"])
def test_an_lse_with_sinks_has_its_gradient(package):
    attention = ingot.jax.attention if package is jnp else ingot.mlx.attention
    q, k, v = (package.array(x) for x in ARRAYS.values())
    grad = jax.grad if package is jnp else mx.grad
    loss = lambda s: attention(q, k, v, sinks=s, return_lse=True)[1].sum()  # noqa: E731
    got = grad(loss)(package.array(LEARNED["sinks"]))
    _, lse = plain_parts.attention(*ARRAYS.values(), sinks=LEARNED["sinks"])
    want = np.exp(LEARNED["sinks"].astype(np.float64)[:, None] - lse).sum((0, 2))
    near(got, want, "dsinks")


@pytest.mark.parametrize("package", [jnp, mx], ids=["jax", "mlx"])
def test_slopes_have_no_gradient_and_say_so(package):
    attention = ingot.jax.attention if package is jnp else ingot.mlx.attention
    q, k, v = (package.array(x) for x in ARRAYS.values())
    slopes = package.array(FIXED["alibi_slopes"])
    grad = jax.grad if package is jnp else mx.grad
    with pytest.raises(ingot.Unsupported, match="^alibi_slopes: must not be differentiated"):
        grad(lambda s: attention(q, k, v, alibi_slopes=s).sum())(slopes)
    grad(lambda q: attention(q, k, v, alibi_slopes=slopes).sum())(q)


SEEDS = {
    "pair": (jnp.array([5, 7]), (5, 7)),
    "one": (jnp.array(5), (5, 0)),
    "unsigned": (jnp.array([2**32 - 1, 7], "uint32"), (2**32 - 1, 7)),
    "of NumPy": (np.array([5, 2**31 - 1], "int32"), (5, 2**31 - 1)),
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_seed_may_be_an_array_that_is_traced(name):
    array, numbers = SEEDS[name]
    arrays = [jnp.array(x) for x in ARRAYS.values()]
    draw = jax.jit(lambda seed: ingot.jax.attention(*arrays, dropout=0.5, seed=seed))
    want = ingot.attention(*ARRAYS.values(), dropout=0.5, seed=numbers)
    np.testing.assert_array_equal(draw(array), want)
    np.testing.assert_array_equal(ingot.jax.attention(*arrays, dropout=0.5, seed=numbers), want)


def test_keys_of_jax_are_seeds():
    arrays = [jnp.array(x) for x in ARRAYS.values()]
    draw = jax.jit(lambda key: ingot.jax.attention(*arrays, dropout=0.5, seed=key))
    first, second = (draw(key) for key in jax.random.split(jax.random.key(3)))
    assert not np.array_equal(first, second)
    assert np.array_equal(draw(jax.random.split(jax.random.key(3))[0]), first)


@pytest.mark.parametrize("name", ["q", "bias", "mask", "sinks", "seed"])
def test_vmap_is_a_call_for_each_sample(name):
    arrays = {n: jnp.array(x) for n, x in {**DIFFERENTIATED, **FIXED}.items()}
    arrays["seed"] = jnp.array([1, 2])
    options = {"causal": "bottom_right", "dropout": 0.3}
    samples = jnp.stack([arrays[name], arrays[name][..., ::-1]])
    of_one = lambda x: ingot.jax.attention(**(arrays | {name: x}), **options)  # noqa: E731
    want = np.stack([of_one(x) for x in samples])
    np.testing.assert_array_equal(jax.vmap(of_one)(samples), want)


def test_a_learned_bias_under_shard_map():
    mesh = jax.make_mesh(
        (2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices("cpu")
    )
    spec = jax.sharding.PartitionSpec
    arrays = [jnp.array(x) for x in ARRAYS.values()]
    bias = jnp.array(LEARNED["bias"])
    attend = lambda q, k, v, bias: ingot.jax.attention(q, k, v, bias=bias)  # noqa: E731
    sharded = jax.shard_map(
        attend,
        mesh=mesh,
        in_specs=(spec("batch"),) * 3 + (spec(),),
        out_specs=spec("batch"),
    )
    loss = lambda f: lambda bias: (f(*arrays, bias) ** 2).sum()  # noqa: E731
    near(jax.jit(jax.grad(loss(sharded)))(bias), jax.grad(loss(attend))(bias), "dbias")


def test_what_a_custom_call_says_of_parts_is_checked():
    """Of a call that names the target itself."""
    q = jnp.ones((1, 2, 4, 8))
    kinds = (jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct((1, 2, 4), q.dtype))
    options = {name: np.int64(0) for name in ("causal", "precision", "workspace_limit")}
    options |= {name: np.int64(-1) for name in ("window_left", "window_right")}
    options |= {"scale": np.float64(0), "softcap": np.float64(0)}
    call = jax.ffi.ffi_call("ingot_forward", kinds)
    wrong = [
        ((), {"parts": np.int64(64)}, "parts: must be from 0 to 63, got 64"),
        ((), {"parts": np.int64(2)}, "bias: must be among the buffers of the call"),
        ((q,), {"parts": np.int64(4)}, "mask.dtype: must be bool"),
        ((q[0, :, :3],), {"parts": np.int64(2)}, "bias.shape: must broadcast to"),
        ((q[0, 0, 0],), {"parts": np.int64(32)}, "seed.shape: must be"),
        ((q[0, 0, 0, :4],), {"parts": np.int64(32)}, "seed.dtype: must be uint32"),
        ((), {"dropout": np.int64(1)}, "dropout: must be an attribute of type float64"),
        ((), {"dropout": np.float64(1.5)}, "dropout: must be 0 or from"),
    ]
    for more, attributes, text in wrong:
        with pytest.raises(Exception, match=text):
            jax.block_until_ready(call(q, q, q, *more, **options, **attributes))
