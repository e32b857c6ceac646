"""Each argument of ingot.jax and ingot.mlx, wrong in each way: an ingot error in one line."""

import ingot.jax
import ingot.mlx
import jax
import jax.numpy as jnp
import mlx.core as mx
import numpy as np
import pytest
from bad_arguments import (
    CAUSAL,
    FACTOR,
    NOT_A_TEXT,
    POSITIVE_FACTOR,
    PRECISION,
    WINDOW,
    WORKSPACE_LIMIT,
    Function,
    Given,
    accepts,
    arrays,
    cases,
    good_parts,
    parts,
    refuses,
    without,
)


def make_jax(array, dtype=None, shape=None):
    return jnp.ones(array.shape if shape is None else shape, dtype or array.dtype)


def make_mlx(array, dtype=None, shape=None):
    kind = array.dtype if dtype is None else getattr(mx, {"bool": "bool_"}.get(dtype, dtype))
    return mx.ones(array.shape if shape is None else shape).astype(kind)


def ones(module, make, shape=(2, 2, 5, 8)):
    """A good call's arguments; make as good_parts() wants it."""
    like = module.ones(1)
    parts = good_parts(lambda _, dtype, shape: make(like, dtype, shape))
    return lambda: {name: module.ones(shape) for name in "qkv"} | parts


OPTIONS = {
    "causal": CAUSAL,
    "window": WINDOW,
    "scale": FACTOR,
    "softcap": POSITIVE_FACTOR,
    "precision": PRECISION,
    "workspace_limit": WORKSPACE_LIMIT,
}
OF_DEVICE = {"unknown": "tpu", "empty": "cpu:", "NUL": "cpu\0", **NOT_A_TEXT}


def mistakes(make, foreign):
    """k sets heads_kv and seqlen_k, v head_dim_v: another number is another argument's mistake."""
    every = {**arrays(make), **foreign}
    return {
        "q": without(every, "more seqlen", "more batch", "more head_dim", "more heads"),
        "k": without(every, "more heads", "more seqlen"),
        "v": without(every, "more head_dim"),
    }


def of_torch(array):
    return pytest.importorskip("torch").ones(array.shape)


TO_JAX = {
    "of MLX": Given(lambda x: mx.ones(x.shape)),
    "of PyTorch": Given(of_torch),
    "with a mask": Given(lambda x: np.ma.masked_array(np.ones(x.shape, "float32"), x == 1)),
    "of objects": Given(lambda x: np.ones(x.shape, object)),
    "the other byte order": Given(lambda x: np.ones(x.shape, ">f4")),
    "float8": Given(lambda x: x.astype(jnp.float8_e4m3fn)),
}
TO_MLX = {
    "of JAX": Given(lambda x: jnp.ones(x.shape)),
    "of NumPy": Given(lambda x: np.ones(x.shape, "float32")),
    "of PyTorch": Given(of_torch),
    "float64": Given(lambda x: x.astype(mx.float64)),
}
PARTS = {"jax": parts(make_jax), "mlx": parts(make_mlx)}
for wrong in PARTS.values():
    wrong["seed"]["None"] = None
    wrong["dropout"]["an array"] = np.ones(2)
    for name in ("mask", "bias", "alibi_slopes", "sinks", "prefix_len"):
        wrong[name]["of PyTorch"] = Given(of_torch)
# JAX without x64 has no float64, and no int64.
for name in ("mask", "bias", "alibi_slopes", "sinks", "prefix_len"):
    for dtype in ("float64", "int64"):
        PARTS["jax"][name].pop(dtype, None)
    PARTS["jax"][name]["float64 of NumPy"] = Given(lambda x: np.ones(x.shape))
PARTS["jax"]["seed"] |= {
    "three in an array": jnp.arange(3),
    "floats in an array": jnp.ones(2),
    "keys": jax.random.split(jax.random.key(1)),
}
PARTS["mlx"]["seed"]["an array"] = mx.array([1, 2])
JAX = Function(
    ingot.jax.attention,
    ones(jnp, make_jax),
    {**mistakes(make_jax, TO_JAX), **OPTIONS, **PARTS["jax"]},
    unchecked=("return_lse",),
    name="jax",
)
MLX = Function(
    ingot.mlx.attention,
    ones(mx, make_mlx),
    {**mistakes(make_mlx, TO_MLX), **OPTIONS, "device": OF_DEVICE, **PARTS["mlx"]},
    unchecked=("return_lse",),
    name="mlx",
)


@pytest.mark.parametrize(("function", "argument", "value"), cases([JAX, MLX]))
def test_wrong_arguments(function, argument, value):
    refuses(function, argument, value)


@pytest.mark.parametrize("function", [JAX, MLX], ids=str)
def test_right_arguments(function):
    accepts(function)


@pytest.mark.parametrize("argument", ["q", "k", "v"])
def test_wrong_arrays_under_jit(argument):
    """XLA's own errors would come instead, and only when the function runs."""
    for mistake in ("uint16", "int32", "bool", "complex64", "rank less", "rank more", "float8"):
        good = JAX.good()
        good[argument] = JAX.wrong[argument][mistake].make(good[argument])
        with pytest.raises(ingot.InvalidArgument, match=f"^{argument}"):
            jax.jit(ingot.jax.attention, static_argnames="dropout")(**good)


@pytest.mark.parametrize("function", [JAX, MLX], ids=str)
def test_arguments_that_others_have(function):
    with pytest.raises(ingot.Unsupported, match="^block_mask: must be left out"):
        function.call(**function.good(), block_mask=None)
    with pytest.raises(ingot.InvalidArgument, match="^is_causal: must be one of .*top_left"):
        function.call(**function.good(), is_causal=True)
