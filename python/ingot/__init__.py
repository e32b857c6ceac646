"""Exact attention (FlashAttention), forward and backward, on CPUs, NVIDIA and Apple GPUs.

    import ingot, numpy as np
    q = k = v = np.random.randn(2, 8, 512, 64).astype("float32")
    o = ingot.attention(q, k, v, causal="bottom_right")

Arrays are of shape (batch, heads, seqlen, head_dim), of any package that speaks DLPack (NumPy,
PyTorch, JAX, CuPy, MLX), with any strides; nothing is copied, and the output is an array of the
caller's package on the caller's device. See also ingot.torch, ingot.transformers,
ingot.compat.flash_attn, ingot.jax and ingot.mlx; each imports its package only when used.
"""

from ingot import _calls, _core
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
from ingot._options import device_name, integer, option_values, refuse_unknown, shown, text
from ingot._parts import parts_of, wanted_gradients

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
    mask: booleans, True where a query may see a key; it hides pairs besides causal and window.
    bias: float32, float16 or bfloat16, added to scores (after softcap); -inf hides a pair.
    alibi_slopes: float32, (num_heads,) or (batch, num_heads): score -= slope * |key - p|, with p as
        for windows (ALiBi: Press, Smith and Lewis 2022).
    sinks: (num_heads,), float32 or q's dtype: one more logit of each softmax, without a value; lse
        counts it (attention sinks: Xiao et al. 2023; s_aux of gpt-oss).
    dropout: the probability that a weight becomes 0, from 2^-16 to 1 - 2^-16, or 0; the others are
        divided by 1 - dropout. lse is as without.
    seed: an integer or a pair (seed, offset), from 0 to 2^64 - 1, needed with dropout. Which
        weights become 0 is a function of it and of their place, the same on every device (Philox:
        Salmon et al. 2011). For tensors of PyTorch it may be None: ingot.torch draws it.
    prefix_len: int32, (batch,): keys before it are visible to all queries, whatever causal says;
        window must have no left side.
    workspace_limit: bytes of memory that a pass may take to be faster; None: 1.25 GiB. What it
        cannot do without does not count.
    return_lse: also return log(sum(exp(score))), natural, float32, (batch, num_heads, seqlen_q).
    device: a name of ingot.devices(); None: the one whose memory holds q.

    mask and bias have two to four dimensions, which broadcast to (batch, num_heads, seqlen_q,
    seqlen_k), and any strides.

    Tensors of PyTorch are computed on by ingot.torch.attention unless a device is named: the result
    is differentiable. Arrays of JAX and MLX that are differentiated or traced are for
    ingot.jax.attention and ingot.mlx.attention; here they raise.

    Returns o, or (o, lse): (batch, num_heads, seqlen_q, head_dim_v) in q's dtype. A query that sees
    no key gives o = 0, lse = -inf. Raises InvalidArgument (a ValueError) or Unsupported with the
    reason.
    """
    if unknown:
        refuse_unknown(unknown)
    options = option_values(causal, window, scale, softcap, precision, workspace_limit)
    device = "" if device is None else device_name(device)
    arrays = (q, k, v)
    if _calls.in_torch((*arrays, mask, bias, alibi_slopes, sinks, prefix_len), device):
        import ingot.torch

        return ingot.torch.attention(
            q,
            k,
            v,
            causal=causal,
            window=window,
            scale=scale,
            softcap=softcap,
            precision=precision,
            mask=mask,
            bias=bias,
            alibi_slopes=alibi_slopes,
            sinks=sinks,
            dropout=dropout,
            seed=seed,
            prefix_len=prefix_len,
            workspace_limit=workspace_limit,
            return_lse=return_lse,
        )
    parts = parts_of(mask, bias, alibi_slopes, sinks, dropout, seed, prefix_len)
    o, lse = _calls.forward(arrays, parts, options, device, return_lse)
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
    mask=None,
    bias=None,
    alibi_slopes=None,
    sinks=None,
    dropout=0.0,
    seed=None,
    prefix_len=None,
    workspace_limit=None,
    bias_grad=False,
    sinks_grad=False,
    device=None,
    **unknown,
):
    """Gradients (dq, dk, dv) of attention() with the same options.

    o and lse as attention(..., return_lse=True) gave them; dout, the gradient of o, has o's shape.
    The gradients have the shapes and dtypes of q, k and v. With bias_grad dbias follows, with
    sinks_grad dsinks, of the shapes and dtypes of bias and sinks: what they are broadcast over is
    summed. Deterministic. With dropout, seed is the forward pass's.
    """
    if unknown:
        refuse_unknown(unknown)
    options = option_values(causal, window, scale, softcap, precision, workspace_limit)
    device = "" if device is None else device_name(device)
    arrays = (q, k, v, o, lse, dout)
    parts = parts_of(mask, bias, alibi_slopes, sinks, dropout, seed, prefix_len)
    wanted = wanted_gradients(parts, bias_grad, sinks_grad)
    if _calls.in_torch((*arrays, mask, bias, alibi_slopes, sinks, prefix_len), device):
        return _calls.backward_in_torch(arrays, parts, options, wanted)
    return _calls.backward(arrays, parts, options, device, wanted)


def devices():
    """[(name, description)] of this machine, preferred first."""
    return _core.devices()


def set_num_threads(num_threads):
    """Threads of device "cpu" for calls from now on, the caller's own included; 0, which is the
    start: all that the process may use. The results do not depend on it, not in one bit."""
    _core.set_num_threads(integer("num_threads", num_threads, bits=32))


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
    if not isinstance(format, str) or format not in ("text", "json"):
        raise InvalidArgument(f'format: must be "text" or "json", got {shown(format)}')
    sizes = {
        "batch": batch,
        "num_heads": num_heads,
        "num_heads_kv": num_heads if num_heads_kv is None else num_heads_kv,
        "seqlen_q": seqlen_q,
        "seqlen_k": seqlen_q if seqlen_k is None else seqlen_k,
        "head_dim": head_dim,
        "head_dim_v": head_dim if head_dim_v is None else head_dim_v,
    }
    explained = _core.explain(
        [integer(name, size) for name, size in sizes.items()],
        text("dtype", dtype, "float32, float16, bfloat16 or float64"),
        *option_values(causal, window, scale, softcap, precision, workspace_limit),
        "auto" if device is None else device_name(device),
        format == "json",
    )
    if format == "text":
        return explained
    import json

    return json.loads(explained)
