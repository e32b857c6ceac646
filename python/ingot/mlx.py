"""MLX: attention with a fused gradient, which MLX itself does not have.

    from ingot.mlx import attention
    loss = lambda q, k, v: attention(q, k, v, causal="bottom_right").square().mean()
    mx.grad(loss, argnums=(0, 1, 2))(q, k, v)

Arrays are evaluated and computed on in unified memory: on ingot's CPU device, or with
device="metal:0" on Apple's GPU (untried on hardware). What only traces (mx.compile, mx.vmap,
mx.export_function), forward mode (mx.jvp) and second derivatives raise ingot.Unsupported.
"""

import mlx.core as mx
import numpy as np

from ingot import attention as _attention
from ingot import attention_backward as _attention_backward
from ingot._errors import InvalidArgument, Unsupported
from ingot._lse_gradient import with_lse_gradient
from ingot._options import refuse_unknown, shown
from ingot._parts import ELEMENTS

__all__ = ["attention"]


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
    device=None,
    **unknown,
):
    """ingot.attention with mx.grad and mx.vjp; the same arguments, shapes and errors.

    q, k and v are arrays of MLX, as are mask, bias, alibi_slopes, sinks and prefix_len. bias and
    sinks have gradients, which are computed whether or not they are used; alibi_slopes has none.
    With return_lse both results are differentiable.
    """
    refuse_unknown(unknown)
    options = {
        "causal": causal,
        "window": window,
        "scale": scale,
        "softcap": softcap,
        "precision": precision,
        "dropout": dropout,
        "seed": seed,
        "workspace_limit": workspace_limit,
        "device": device,
    }
    for name, value in {**options, "return_lse": return_lse}.items():
        _require_no_array(name, value)
    for name, x in (("q", q), ("k", k), ("v", v)):
        _check(name, x)
    parts = dict(zip(ELEMENTS, (alibi_slopes, bias, mask, sinks, prefix_len), strict=True))
    parts = {name: x for name, x in parts.items() if x is not None}
    for name, x in parts.items():
        _require_array(name, x)
    if alibi_slopes is not None:
        parts["alibi_slopes"] = _without_gradient(alibi_slopes)
    o, lse = _function(options, tuple(parts))(q, k, v, *parts.values())
    return (o, lse) if return_lse else o


def _require_no_array(name, value):
    """An option's own derivative would be lost: MLX does not tell who is differentiated."""
    for part in value if isinstance(value, tuple | list) else (value,):
        if isinstance(part, mx.array):
            hint = "; multiply q by a factor that is computed or learned" * (name == "scale")
            raise InvalidArgument(f"{name}: must be no array of MLX{hint}, got {shown(part)}")


def _require_array(name, x):
    if not isinstance(x, mx.array):
        kind = f"{type(x).__module__}.{type(x).__qualname__}"
        raise InvalidArgument(f"{name}: must be an array of MLX, got {kind}")


def _check(name, x):
    _require_array(name, x)
    if x.ndim != 4:
        raise InvalidArgument(
            f"{name}: must have 4 dimensions (batch, heads, seqlen, head_dim), got {x.ndim}"
        )
    if x.dtype not in (mx.float32, mx.float16, mx.bfloat16):
        dtype = str(x.dtype).rpartition(".")[2]
        raise InvalidArgument(
            f"{name}.dtype: must be float32, float16 or bfloat16 with MLX, got {dtype}"
        )


@mx.custom_function
def _without_gradient(alibi_slopes):
    return alibi_slopes + 0


@_without_gradient.vjp
def _without_vjp(primals, cotangents, outputs):
    raise Unsupported("alibi_slopes: must not be differentiated, ingot has no gradient for it")


@_without_gradient.jvp
def _without_jvp(primals, tangents):
    raise Unsupported("alibi_slopes: must not be differentiated, ingot has no gradient for it")


def _function(options, names):
    """(q, k, v and the parts of these names) -> (o, lse) as MLX differentiates it."""
    wanted = {f"{name}_grad": name in names for name in ("bias", "sinks")}

    def with_parts(parts):
        return {**options, **dict(zip(names, parts, strict=True))}

    @mx.custom_function
    def run(q, k, v, *parts):
        named = dict(zip(names, parts, strict=True))
        q, k, v, *parts = _evaluated(q=q, k=k, v=v, **named)
        return _attention(q, k, v, return_lse=True, **with_parts(parts))

    @run.vjp
    def run_vjp(primals, cotangents, outputs):
        dq, dk, dv, *more = gradients(*outputs, *cotangents, *primals)
        of_parts = [
            more.pop(0) if name in ("bias", "sinks") else mx.zeros_like(x)
            for name, x in zip(names, primals[3:], strict=True)
        ]
        return (dq, dk, dv, *of_parts)

    @run.jvp
    def run_jvp(primals, tangents):
        raise Unsupported("ingot.mlx.attention: has no forward-mode derivatives (mx.jvp)")

    @mx.custom_function
    def gradients(o, lse, dout, dlse, q, k, v, *parts):
        named = dict(zip(names, parts, strict=True))
        o, lse, dout, dlse, q, k, v, *parts = _evaluated(
            o=o, lse=lse, dout=dout, dlse=dlse, q=q, k=k, v=v, **named
        )
        more = {**with_parts(parts), **wanted}
        if not mx.any(dlse != 0).item():
            return _attention_backward(q, k, v, o, lse, dout, **more)
        wide_v, o, dout = with_lse_gradient(mx, v, o, dout, dlse)
        dq, dk, dv, *of_parts = _attention_backward(q, k, wide_v, o, lse, dout, **more)
        return (dq, dk, dv[..., : v.shape[3]], *of_parts)

    @gradients.vjp
    def gradients_vjp(primals, cotangents, outputs):
        raise Unsupported("ingot.mlx.attention: has no second derivatives")

    @gradients.jvp
    def gradients_jvp(primals, tangents):
        raise Unsupported("ingot.mlx.attention: has no second derivatives")

    return run


def _evaluated(**arrays):
    """The arrays, which have values, without what they are made from: their derivatives are the
    matter of the functions that call this, not of ingot.attention, which refuses to be derived."""
    for name, array in arrays.items():
        try:
            mx.eval(array)
            np.asarray(array[:0].astype(mx.float32))
        except (RuntimeError, ValueError) as error:
            raise Unsupported(
                f"{name}: must have values, which mx.compile, mx.vmap and mx.export_function do "
                f"not give it: {error}"
            ) from None
    return [mx.stop_gradient(array) for array in arrays.values()]
