"""Exact attention (FlashAttention), forward and backward, on CPUs, NVIDIA and Apple GPUs.

    import ingot, numpy as np
    q = k = v = np.random.randn(2, 8, 512, 64).astype("float32")
    o = ingot.attention(q, k, v, causal="bottom_right")

Arrays are of shape (batch, heads, seqlen, head_dim), of any package that speaks DLPack (NumPy,
PyTorch, JAX, CuPy, MLX), with any strides; nothing is copied, and the output is an array of the
caller's package on the caller's device. See also ingot.torch, ingot.transformers,
ingot.compat.flash_attn, ingot.jax and ingot.mlx; each imports its package only when used.
"""

from ingot import _core
from ingot._arrays import adapter_of
from ingot._errors import (
    Cancelled,
    CompileFailed,
    DeviceError,
    Error,
    Internal,
    InvalidArgument,
    OutOfMemory,
    Unsupported,
)
from ingot._options import option_values

__version__ = _core.version
__all__ = [
    "Cancelled",
    "CompileFailed",
    "DeviceError",
    "Error",
    "Internal",
    "InvalidArgument",
    "OutOfMemory",
    "Unsupported",
    "attention",
    "attention_backward",
    "devices",
    "explain",
    "set_num_threads",
]


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
    """softmax(score(q k^T) + mask) v, exactly, without storing the scores.

    q: (batch, num_heads, seqlen_q, head_dim); k: (batch, num_heads_kv, seqlen_k, head_dim);
    v: (batch, num_heads_kv, seqlen_k, head_dim_v). num_heads_kv divides num_heads (GQA, MQA).
    float32, float16 or bfloat16; float64 on a CPU runs in the (slow) reference.

    causal: None, "top_left" (key <= query) or "bottom_right" (key <= query + seqlen_k - seqlen_q).
    window: None or (left, right): a query at position p sees keys in [p - left, p + right]; None or
        -1 for no bound on that side.
    scale: of the dot products; None: 1 / sqrt(head_dim).
    softcap: score = softcap * tanh(scale * <q, k> / softcap); None: off.
    precision: None or "highest": float32 means float32. "high": float32 products may be made from
        two bfloat16 terms a number: about 1e-5, relative, and several times faster on a device that
        makes use of it (explain says so).
    workspace_limit: bytes of memory that a pass may take to be faster; None: 1.25 GiB. What it
        cannot do without does not count.
    return_lse: also return log(sum(exp(score))), natural, float32, (batch, num_heads, seqlen_q).
    device: a name of ingot.devices(); None: the one whose memory holds q.

    Returns o, or (o, lse): (batch, num_heads, seqlen_q, head_dim_v) in q's dtype. A query that sees
    no key gives o = 0, lse = -inf. Raises InvalidArgument (a ValueError) or Unsupported with the
    reason.
    """
    options = option_values(causal, window, scale, softcap, precision, workspace_limit)
    adapter = adapter_of(q)
    shape = q.shape
    if len(shape) != 4:
        raise InvalidArgument(
            f"q: must have 4 dimensions (batch, heads, seqlen, head_dim), got {len(shape)}"
        )
    o = adapter.empty((*shape[:3], v.shape[-1]), q)
    lse = adapter.empty_float32(shape[:3], q) if return_lse else None
    stream = adapter.stream(q)
    view = adapter.view
    if view is None:
        adapter.forward(q, k, v, o, lse, *options, device or "", stream)
    else:
        lse_view = None if lse is None else view(lse)
        arrays = (view(q), view(k), view(v), view(o), lse_view)
        adapter.forward(*arrays, *options, device or "", stream)
    if adapter.finish is not None:
        o, lse = adapter.finish(o, q), lse if lse is None else adapter.finish(lse, q)
    return (o, lse) if return_lse else o


def attention_backward(
    q,
    k,
    v,
    o,
    lse,
    dout,
    *,
    causal=None,
    window=None,
    scale=None,
    softcap=None,
    precision=None,
    workspace_limit=None,
    device=None,
):
    """Gradients (dq, dk, dv) of attention() with the same options.

    o and lse as attention(..., return_lse=True) gave them; dout, the gradient of o, has o's shape.
    The gradients have the shapes and dtypes of q, k and v. Deterministic.
    """
    options = option_values(causal, window, scale, softcap, precision, workspace_limit)
    adapter = adapter_of(q)
    gradients = [adapter.empty(x.shape, x) for x in (q, k, v)]
    view = adapter.view or (lambda x: x)
    adapter.backward(
        *(view(x) for x in (q, k, v, o, lse, dout)),
        *(view(x) for x in gradients),
        *options,
        device or "",
        adapter.stream(q),
    )
    if adapter.finish is not None:
        gradients = [adapter.finish(x, q) for x in gradients]
    return tuple(gradients)


def devices():
    """[(name, description)] of this machine, preferred first."""
    return _core.devices()


def set_num_threads(num_threads):
    """Threads of device "cpu" for calls from now on, the caller's own included; 0, which is the
    start: all that the process may use. The results do not depend on it, not in one bit."""
    _core.set_num_threads(num_threads)


def explain(
    *,
    seqlen_q,
    seqlen_k=None,
    head_dim,
    head_dim_v=None,
    batch=1,
    num_heads=1,
    num_heads_kv=None,
    dtype="float32",
    causal=None,
    window=None,
    scale=None,
    softcap=None,
    precision=None,
    workspace_limit=None,
    device="auto",
    format="text",
):
    """Which kernels would run for a problem, their blocks and memory, and why: text, or with
    format="json" a dictionary."""
    if format not in ("text", "json"):
        raise InvalidArgument(f'format: must be "text" or "json", got {format!r}')
    shape = [
        batch,
        num_heads,
        num_heads if num_heads_kv is None else num_heads_kv,
        seqlen_q,
        seqlen_q if seqlen_k is None else seqlen_k,
        head_dim,
        head_dim if head_dim_v is None else head_dim_v,
    ]
    text = _core.explain(
        shape,
        dtype,
        *option_values(causal, window, scale, softcap, precision, workspace_limit),
        device,
        format == "json",
    )
    if format == "text":
        return text
    import json

    return json.loads(text)
