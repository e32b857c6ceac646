"""JAX: attention under jit, grad, vmap and shard_map, through XLA's foreign function interface.

    from ingot.jax import attention
    o = jax.jit(attention, static_argnames="causal")(q, k, v, causal="bottom_right")

Runs on JAX's CPU and CUDA devices. Gradients are deterministic. Second derivatives raise
ingot.Unsupported; forward mode (jvp, jacfwd, linearize) raises JAX's own TypeError.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ingot import _core
from ingot._errors import InvalidArgument, Unsupported
from ingot._lse_gradient import with_lse_gradient
from ingot._options import option_values, refuse_unknown, shown
from ingot._parts import ELEMENTS, dropout_of, seed_pair

__all__ = ["attention"]

for _name, _platform, _handler in _core.jax_handlers():
    jax.ffi.register_ffi_target(_name, _handler, platform=_platform)


def attention(
    q,
    k,
    v,
    *,
    causal=None,
    window=None,
    scale=None,
    softcap=None,
    precision=None,
    mask=None,
    bias=None,
    alibi_slopes=None,
    sinks=None,
    dropout=0.0,
    seed=None,
    prefix_len=None,
    workspace_limit=None,
    return_lse=False,
    **unknown,
):
    """ingot.attention; the same arguments, shapes and errors. The options must be static in jit.

    q, k and v are arrays of JAX or NumPy, as are mask, bias, alibi_slopes, sinks and prefix_len.
    bias and sinks have gradients, which are computed whether or not they are used; alibi_slopes has
    none. seed may be an array of one or two integers, (seed, offset), or a key of jax.random, and
    traced. With return_lse both results are differentiable.

    What is wrong with a call is raised while it is traced; only what a device alone can know (its
    memory, a kernel that it lacks) comes out of XLA as JaxRuntimeError, with ingot's text.
    """
    refuse_unknown(unknown)
    given = {
        "causal": causal,
        "window": window,
        "scale": scale,
        "softcap": softcap,
        "precision": precision,
        "workspace_limit": workspace_limit,
    }
    for name, value in {**given, "dropout": dropout, "return_lse": return_lse}.items():
        _require_static(name, value)
    options = option_values(**given)
    words = None if seed is None else _words(seed)
    if dropout_of(dropout) and seed is None:
        raise InvalidArgument("seed: must be given with dropout, got None")
    arrays = [_array(name, x) for name, x in (("q", q), ("k", k), ("v", v))]
    parts = dict(zip(ELEMENTS, (alibi_slopes, bias, mask, sinks, prefix_len), strict=True))
    for name, x in parts.items():
        _require_array(name, x)
    call = _Call(options, dropout_of(dropout), bool(return_lse))
    _check(call, parts, *arrays)
    parts = [None if x is None else jnp.asarray(x) for x in parts.values()]
    if alibi_slopes is not None:
        parts[0] = _without_gradient(parts[0])
    parts.append(words if call.dropout else None)
    arrays = iter(_on_the_same_axes([*arrays, *(x for x in parts if x is not None)]))
    q, k, v = next(arrays), next(arrays), next(arrays)
    return _attention(call, q, k, v, tuple(x if x is None else next(arrays) for x in parts))


_DIFFERENTIABLE = tuple(list(ELEMENTS).index(name) for name in ("bias", "sinks"))


class _Call(NamedTuple):
    """What is static of a call."""

    options: tuple
    dropout: float
    return_lse: bool


def _words(seed):
    """Seed and offset as four words of 32 bits, the lower halves first."""
    if not isinstance(seed, jax.Array | np.ndarray):
        return jnp.asarray(
            [w for x in seed_pair(seed) for w in (x & 0xFFFFFFFF, x >> 32)], "uint32"
        )
    if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        words = jax.random.key_data(seed).ravel() if seed.ndim == 0 else ()
        if len(words) != 2:
            raise InvalidArgument(
                f"seed: must be a single key of two words, got {seed.dtype} of shape {seed.shape}"
            )
        return jnp.concatenate([words, jnp.zeros(2, "uint32")])
    if not np.issubdtype(seed.dtype, np.integer) or seed.shape not in ((), (1,), (2,)):
        raise InvalidArgument(
            "seed: must be an integer, a pair of them, an array of one or two integers or a key of "
            f"jax.random, got {seed.dtype} of shape {seed.shape}"
        )
    numbers = [jnp.ravel(jnp.asarray(seed))]
    if numbers[0].dtype.itemsize == 8:
        halves = jax.lax.bitcast_convert_type(numbers[0], jnp.uint32)
    else:
        low = numbers[0].astype(jnp.uint32)
        halves = jnp.stack([low, jnp.zeros_like(low)], axis=1)
    halves = jnp.ravel(halves)
    return jnp.concatenate([halves, jnp.zeros(4 - halves.shape[0], "uint32")])


def _require_static(name, value):
    for part in value if isinstance(value, tuple | list) else (value,):
        if isinstance(part, jax.core.Tracer):
            hint = "; multiply q by a factor that is computed or learned" * (name == "scale")
            raise InvalidArgument(
                f"{name}: must be a value that JAX does not trace, static in jit{hint}, "
                f"got {shown(part)}"
            )


def _array(name, x):
    if x is None:
        raise InvalidArgument(f"{name}: must be an array of JAX or NumPy, got None")
    _require_array(name, x)
    if x.ndim != 4:
        raise InvalidArgument(
            f"{name}: must have 4 dimensions (batch, heads, seqlen, head_dim), got {x.ndim}"
        )
    if x.dtype.name not in ("float32", "float16", "bfloat16", "float64") or not x.dtype.isnative:
        raise InvalidArgument(
            f"{name}.dtype: must be float32, float16, bfloat16 or float64, got {x.dtype}"
        )
    return jnp.asarray(x)


def _require_array(name, x):
    if x is None:
        return
    if not isinstance(x, jax.Array | np.ndarray) or isinstance(x, np.ma.MaskedArray):
        kind = f"{type(x).__module__}.{type(x).__qualname__}"
        raise InvalidArgument(f"{name}: must be an array of JAX or NumPy, got {kind}")
    if not getattr(x.dtype, "isnative", True):
        raise InvalidArgument(f"{name}.dtype: must be in native byte order, got {x.dtype}")


def _check(call, parts, q, k, v):
    """Raises now what XLA would report as an error of its own."""
    batch, heads, seqlen_q, head_dim = q.shape
    for name, x, sizes in (("k", k, (*k.shape[1:3], head_dim)), ("v", v, k.shape[1:3])):
        wanted = (batch, *sizes, *x.shape[3:])[:4]
        if x.shape != wanted:
            raise InvalidArgument(f"{name}.shape: must be {wanted}, got {x.shape}")
    sizes = (batch, heads, k.shape[1], seqlen_q, k.shape[2], head_dim, v.shape[3])
    # Sizes that are symbols (jax.export) are looked at when they are numbers, by the call.
    numbers = lambda sizes: [n if isinstance(n, int) else 1 for n in sizes]  # noqa: E731
    arrays = [None if x is None else (numbers(x.shape), str(x.dtype)) for x in parts.values()]
    dtypes = [x.dtype.name for x in (q, k, v)]
    _core.jax_check(numbers(sizes), dtypes, arrays, call.dropout, *call.options)


def _on_the_same_axes(arrays):
    """The arrays, all of them varying along every axis of jax.shard_map that one varies along: so
    the gradient of one that does not is a sum over the axis, which JAX adds. Sharding that is a
    part of the type (explicit axes of a mesh) is undone: the call has no rule for parts."""
    arrays = [_replicated(x) for x in arrays]
    axes = [_varying(jax.typeof(x)) for x in arrays]
    every = frozenset().union(*axes)
    return [
        _vary(x, tuple(every - has)) if every - has else x
        for x, has in zip(arrays, axes, strict=True)
    ]


def _replicated(x):
    sharding = getattr(jax.typeof(x), "sharding", None)
    if any(part is not None for part in getattr(sharding, "spec", ())):
        return jax.sharding.reshard(x, jax.sharding.PartitionSpec(*[None] * x.ndim))
    return x


def _varying(kind):
    """The axes of jax.shard_map along which values of a type differ."""
    manual = getattr(kind, "manual_axis_type", None)  # from JAX 0.10 on
    return getattr(kind, "vma", frozenset()) if manual is None else manual.varying


def _vary(x, axes):
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, axes, to="varying")
    return jax.lax.pvary(x, axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(call, q, k, v, parts):
    o, lse = _results(call, q, k, v, parts)
    return (o, lse) if call.return_lse else o


def _forward(call, q, k, v, parts):
    # A second derivative reaches this call, too.
    o, lse = _attention(call._replace(return_lse=True), q, k, v, parts)
    return (o, lse) if call.return_lse else o, (q, k, v, o, lse, parts)


def _backward(call, saved, gradient):
    q, k, v, o, lse, parts = saved
    wide_v, dout = v, gradient
    if call.return_lse:
        wide_v, o, dout = with_lse_gradient(jnp, v, o, *gradient)
    dq, dk, dv, *more = _gradients(
        call._replace(return_lse=False), q, k, wide_v, o, lse, dout, parts
    )
    dparts = [None] * len(parts)  # which means 0, for booleans and integers
    for i in _DIFFERENTIABLE:
        dparts[i] = None if parts[i] is None else more.pop(0)
    return dq, dk, dv[..., : v.shape[3]], tuple(dparts)


_attention.defvjp(_forward, _backward)


@jax.custom_jvp
def _without_gradient(alibi_slopes):
    return alibi_slopes


@_without_gradient.defjvp
def _refuse_gradient(primals, tangents):
    raise Unsupported("alibi_slopes: must not be differentiated, ingot has no gradient for it")


def _results(call, q, k, v, parts):
    batch, heads, seqlen, _ = q.shape
    kinds = (
        _result((batch, heads, seqlen, v.shape[3]), q.dtype, q),
        _result((batch, heads, seqlen), jnp.float32, q),
    )
    return _run("ingot_forward", kinds, call, parts, q, k, v)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gradients(call, q, k, v, o, lse, dout, parts):
    """(dq, dk, dv) and of bias and sinks those that there are: whether they are differentiated,
    nobody tells."""
    wanted = [parts[i] is not None for i in _DIFFERENTIABLE]
    of = (q, k, v, *(parts[i] for i in _DIFFERENTIABLE if parts[i] is not None))
    results = tuple(_result(x.shape, x.dtype, x) for x in of)
    more = {"gradients": np.int64(wanted[0] + 2 * wanted[1])}
    return _run("ingot_backward", results, call, parts, q, k, v, o, lse, dout, **more)


@_gradients.defjvp
def _second_derivative(call, primals, tangents):
    raise Unsupported("ingot.jax.attention: has no second derivatives")


def _result(shape, dtype, like):
    """What a call returns, varying along the axes of jax.shard_map that `like` varies along."""
    axes = _varying(jax.typeof(like))
    if not axes:
        return jax.ShapeDtypeStruct(shape, dtype)
    return jax.eval_shape(lambda: _vary(jnp.zeros(shape, dtype), tuple(axes)))


def _run(target, results, call, parts, *arrays, **more):
    causal, left, right, scale, softcap, precision, workspace_limit = call.options
    return jax.ffi.ffi_call(target, results, vmap_method="sequential")(
        *arrays,
        *(x for x in parts if x is not None),
        causal=np.int64(causal),
        window_left=np.int64(left),
        window_right=np.int64(right),
        scale=np.float64(scale),
        softcap=np.float64(softcap),
        precision=np.int64(precision),
        workspace_limit=np.int64(workspace_limit),
        parts=np.int64(sum(1 << i for i, x in enumerate(parts) if x is not None)),
        dropout=np.float64(call.dropout),
        **more,
    )
