"""MLX: attention with a fused gradient, which MLX itself does not have.

    from ingot.mlx import attention
    loss = lambda q, k, v: attention(q, k, v, causal="bottom_right").square().mean()
    mx.grad(loss, argnums=(0, 1, 2))(q, k, v)

Arrays are evaluated and computed on in unified memory: on ingot's CPU device, or with
device="metal:0" on Apple's GPU (untried on hardware). A function that uses this cannot be compiled
by mx.compile, which only traces; a second derivative is not there.
"""

import mlx.core as mx
import numpy as np

from ingot import attention as _attention
from ingot import attention_backward as _attention_backward
from ingot._errors import Unsupported

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
    workspace_limit=None,
    return_lse=False,
    device=None,
):
    """ingot.attention with mx.grad and mx.vjp; the same arguments, shapes and errors.

    With return_lse the second result is not differentiable.
    """
    options = {
        "causal": causal,
        "window": window,
        "scale": scale,
        "softcap": softcap,
        "precision": precision,
        "workspace_limit": workspace_limit,
        "device": device,
    }

    @mx.custom_function
    def run(q, k, v):
        return _attention(_ready(q), _ready(k), _ready(v), return_lse=True, **options)

    @run.vjp
    def run_vjp(primals, cotangents, outputs):
        o, lse = outputs
        saved = [_ready(x) for x in (*primals, o, lse, cotangents[0])]
        return _attention_backward(*saved, **options)

    o, lse = run(q, k, v)
    return (o, mx.stop_gradient(lse)) if return_lse else o


def _ready(array):
    try:
        mx.eval(array)
        np.asarray(array[:0].astype(mx.float32))
    except (RuntimeError, ValueError) as error:
        raise Unsupported(f"q, k, v: must have values, not be traced: {error}") from None
    return array
