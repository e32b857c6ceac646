"""JAX: attention under jit, grad and pmap, through XLA's foreign function interface.

    from ingot.jax import attention
    o = jax.jit(attention, static_argnames="causal")(q, k, v, causal="bottom_right")

Runs on JAX's CPU and CUDA devices. Gradients are deterministic; a second derivative is not there.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ingot import _core
from ingot._errors import InvalidArgument
from ingot._options import option_values

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
    workspace_limit=None,
    return_lse=False,
):
    """ingot.attention; the same arguments, shapes and errors. The options must be static in jit.

    With return_lse the second result is not differentiable.
    """
    for name, array in (("q", q), ("k", k), ("v", v)):
        if array.ndim != 4:
            raise InvalidArgument(
                f"{name}: must have 4 dimensions (batch, heads, seqlen, head_dim), got {array.ndim}"
            )
    if k.shape[:3] != v.shape[:3] or (q.shape[0], q.shape[3]) != (k.shape[0], k.shape[3]):
        raise InvalidArgument(
            "q, k, v: must agree in batch, heads of k and v, seqlen of k and v and head_dim of q "
            f"and k, got {q.shape}, {k.shape}, {v.shape}"
        )
    o, lse = _attention(
        option_values(causal, window, scale, softcap, precision, workspace_limit), q, k, v
    )
    return (o, jax.lax.stop_gradient(lse)) if return_lse else o


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(options, q, k, v):
    batch, heads, seqlen, _ = q.shape
    results = (
        jax.ShapeDtypeStruct((batch, heads, seqlen, v.shape[3]), q.dtype),
        jax.ShapeDtypeStruct((batch, heads, seqlen), jnp.float32),
    )
    return _call("ingot_forward", results, options, q, k, v)


def _forward(options, q, k, v):
    o, lse = _attention(options, q, k, v)
    return (o, lse), (q, k, v, o, lse)


def _backward(options, saved, gradients):
    dout, _ = gradients
    results = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in saved[:3])
    return _call("ingot_backward", results, options, *saved, dout)


_attention.defvjp(_forward, _backward)


def _call(target, results, options, *arrays):
    causal, left, right, scale, softcap, precision, workspace_limit = options
    return jax.ffi.ffi_call(target, results, vmap_method="sequential")(
        *arrays,
        causal=np.int64(causal),
        window_left=np.int64(left),
        window_right=np.int64(right),
        scale=np.float64(scale),
        softcap=np.float64(softcap),
        precision=np.int64(precision),
        workspace_limit=np.int64(workspace_limit),
    )
