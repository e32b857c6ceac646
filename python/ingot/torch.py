"""PyTorch: an operator with autograd, and a drop-in for scaled_dot_product_attention.

    from ingot.torch import attention, scaled_dot_product_attention, sdpa
    o = attention(q, k, v, causal="bottom_right")         # like ingot.attention, differentiable
    with sdpa():                                          # torch.nn.functional's is ingot's inside
        model(x)

The operators are torch.ops.ingot.attention_forward and attention_backward, and the same with
attention_ragged for batches with padding. They have fake (meta) kernels, so they run under
torch.compile without graph breaks, and work is queued on the current CUDA stream, so they can be
captured in CUDA graphs. On MPS (untried on hardware) it is encoded into PyTorch's own command
buffer. Gradients are deterministic. Double backward is not there: it raises.
"""

import contextlib
from pathlib import Path

import torch

from ingot import _core
from ingot._errors import InvalidArgument, Unsupported
from ingot._options import option_values

__all__ = [
    "attention",
    "ragged_attention",
    "register_flash_attention",
    "scaled_dot_product_attention",
    "sdpa",
]


_DEVICES = ("cpu", "cuda", "mps")

# PyTorch's OpenMP threads wait busily after each operation: on a CPU ingot works on them, not
# beside them. False, and threads of ingot's own, where PyTorch has no OpenMP to call (macOS).
_core.use_openmp_of(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))


def _run(function, tensors, options):
    """function(tensors, options, device, stream) of _core, in the order of PyTorch's own work."""
    device = tensors[0].device
    if device.type == "cpu":
        return function(*tensors, *options, "", 0)
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device).cuda_stream
        return function(*tensors, *options, "", stream)
    if device.type != "mps":
        raise Unsupported(f"q: must be on a CPU, CUDA or MPS device, got {device}")
    from ingot import _torch_mps

    slices = [_torch_mps.view(x) for x in tensors]
    return _torch_mps.encode(lambda commands: function(*slices, *options, "", commands))


# torch.library.custom_op would do the same by wrappers that double the cost of a small call.
_OPTIONS = (
    "int causal, int window_left, int window_right, float scale, float softcap, int precision, "
    "int workspace_limit"
)
_library = torch.library.Library("ingot", "DEF")


def _define(name, tensors, results, more=""):
    """Registers torch.ops.ingot.<name>(tensors, more, options); what it is decorated on computes it
    for all devices. Outputs follow the memory order of q, so the compiler must keep that."""
    kept = getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order)
    schema = f"{name}({', '.join(f'Tensor {t}' for t in tensors)}, {more}{_OPTIONS}) -> ({results})"
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag, kept))
    return lambda function: _library.impl(name, function, "CompositeExplicitAutograd")


_OPERANDS = ("q", "k", "v")
_SAVED = (*_OPERANDS, "o", "lse")


@_define("attention_forward", _OPERANDS, "Tensor, Tensor")
def _(q, k, v, *options):
    o, lse = _empty_outputs(q, v)
    _run(_core.forward, (q, k, v, o, lse), options)
    return o, lse


@_define("attention_backward", (*_SAVED, "dout"), "Tensor, Tensor, Tensor")
def _(q, k, v, o, lse, dout, *options):
    gradients = _empty_gradients(q, k, v)
    _run(_core.backward, (q, k, v, o, lse, dout, *gradients), options)
    return gradients


_BLOCKS = "int[] blocks, "


@_define("attention_ragged_forward", _OPERANDS, "Tensor, Tensor", _BLOCKS)
def _(q, k, v, blocks, *options):
    o, lse = _empty_outputs(q, v)
    o.zero_()
    lse.fill_(float("-inf"))
    _run(_core.forward_ragged, (q, k, v, o, lse), (blocks, *options))
    return o, lse


@_define("attention_ragged_backward", (*_SAVED, "dout"), "Tensor, Tensor, Tensor", _BLOCKS)
def _(q, k, v, o, lse, dout, blocks, *options):
    gradients = tuple(x.zero_() for x in _empty_gradients(q, k, v))
    _run(_core.backward_ragged, (q, k, v, o, lse, dout, *gradients), (blocks, *options))
    return gradients


def _empty_outputs(q, v):
    """o in the memory order of q where that is (batch, seqlen, heads, head_dim), so that a
    transpose and reshape behind it need no copy; lse beside it."""
    batch, heads, seqlen, _ = q.shape
    if heads > 1 and q.stride(1) < q.stride(2):
        o = q.new_empty((batch, seqlen, heads, v.shape[3])).transpose(1, 2)
    else:
        o = q.new_empty((batch, heads, seqlen, v.shape[3]))
    return o, q.new_empty((batch, heads, seqlen), dtype=torch.float32)


def _empty_gradients(q, k, v):
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))


def _save(ctx, inputs, output):
    q, k, v, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate_twice(ctx, *_):
    raise Unsupported("attention_backward: has no derivative of its own (double backward)")


def _register(kind):
    """Fake kernels and gradients of torch.ops.ingot.<kind>_forward and <kind>_backward."""
    forward, backward = f"ingot::{kind}_forward", f"ingot::{kind}_backward"
    run_backward = getattr(torch.ops.ingot, f"{kind}_backward")

    def differentiate(ctx, dout, _):
        nothing = (None,) * len(ctx.options)
        if dout is None:
            return (None, None, None, *nothing)
        return (*run_backward(*ctx.saved_tensors, dout, *ctx.options), *nothing)

    library = torch.library
    library.register_fake(forward, lambda q, k, v, *_: _empty_outputs(q, v), lib=_library)
    library.register_fake(backward, lambda q, k, v, *_: _empty_gradients(q, k, v), lib=_library)
    library.register_autograd(forward, differentiate, setup_context=_save, lib=_library)
    library.register_autograd(backward, _differentiate_twice, lib=_library)


_register("attention")
_register("attention_ragged")


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
    """ingot.attention for tensors that require gradients; the same arguments, shapes and errors.

    With return_lse the second result is not differentiable.
    """
    if q.dim() != 4:
        raise InvalidArgument(
            f"q: must have 4 dimensions (batch, heads, seqlen, head_dim), got {q.dim()}"
        )
    options = option_values(causal, window, scale, softcap, precision, workspace_limit)
    o, lse = torch.ops.ingot.attention_forward(q, k, v, *options)
    return (o, lse) if return_lse else o


def ragged_attention(
    q,
    k,
    v,
    blocks,
    *,
    causal=None,
    window=None,
    scale=None,
    softcap=None,
    precision=None,
    workspace_limit=None,
    return_lse=False,
):
    """attention of parts of a batch, for padding and for sequences that lie one after the other.

    q: (batch, heads, seqlen_q, head_dim), k and v likewise; blocks: six integers for each part,
    [first entry, end, first query, end, first key, end]: these entries attend, with these queries,
    to these keys and no others; ends are exclusive, and masks count from the part's own first query
    and key. Each part has later entries than the one before, or the same with later queries and
    keys. A query in no part has o = 0, lse = -inf and gradient 0. One operation for autograd. On
    a CPU small parts run side by side. It has not run on a GPU yet.
    """
    if q.dim() != 4:
        raise InvalidArgument(
            f"q: must have 4 dimensions (batch, heads, seqlen, head_dim), got {q.dim()}"
        )
    options = option_values(causal, window, scale, softcap, precision, workspace_limit)
    o, lse = torch.ops.ingot.attention_ragged_forward(q, k, v, blocks, *options)
    return (o, lse) if return_lse else o


@torch.compiler.assume_constant_result
def matmul_precision():
    """What torch.set_float32_matmul_precision asks for, as ingot says it: PyTorch's "high" is a sum
    of two bfloat16 too, and its "medium" permits more than ingot ever takes. A compiled function
    keeps what was set when it was compiled."""
    return "highest" if torch.get_float32_matmul_precision() == "highest" else "high"


_torch_sdpa = torch.nn.functional.scaled_dot_product_attention


def scaled_dot_product_attention(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
    *,
    fallback=None,
):
    """torch.nn.functional.scaled_dot_product_attention, by ingot.

    attn_mask: None or a torch.nn.attention.bias.CausalBias; dropout_p must be 0. The precision of
    float32 is the one of torch.set_float32_matmul_precision. What ingot does
    not have raises Unsupported with the reason, or with fallback="torch" runs in PyTorch.
    """
    if fallback not in (None, "torch"):
        raise InvalidArgument(f'fallback: must be None or "torch", got {fallback!r}')

    def in_torch():
        return _torch_sdpa(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )

    reason = _unsupported(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    if reason is not None:
        if fallback is None:
            raise Unsupported(f'{reason} (fallback="torch" runs PyTorch\'s own)')
        return in_torch()
    causal = "top_left" if is_causal else _causal_of(attn_mask)
    shape = (*query.shape[:-1], value.shape[-1])
    q, k, v = (_as_4d(x) for x in (query, key, value))
    try:
        options = {"causal": causal, "scale": scale, "precision": matmul_precision()}
        return attention(q, k, v, **options).reshape(shape)
    except Unsupported:  # of this device
        if fallback is None:
            raise
        return in_torch()


def _causal_of(mask):
    """The alignment of a CausalBias; None without a mask."""
    if mask is None:
        return None
    from torch.nn.attention.bias import CausalVariant

    return "top_left" if mask.variant == CausalVariant.UPPER_LEFT else "bottom_right"


def _as_4d(x):
    if x.dim() == 4:
        return x
    return x.reshape(-1, 1, *x.shape[-2:]) if x.dim() != 3 else x.unsqueeze(0)


def _unsupported(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa):
    """Why ingot cannot run this, or None."""
    from torch.nn.attention.bias import CausalBias

    if attn_mask is not None and not isinstance(attn_mask, CausalBias):
        return "attn_mask: must be None or a CausalBias, got a tensor"
    if attn_mask is not None and is_causal:
        return "attn_mask: must be None with is_causal"
    if dropout_p != 0.0:
        return f"dropout_p: must be 0, got {dropout_p}"
    if scale == 0:
        return "scale: must not be 0, got 0"
    if query.device.type not in _DEVICES:
        return f"query: must be on a CPU, CUDA or MPS device, got {query.device}"
    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    if query.dtype not in dtypes:
        return f"query.dtype: must be a floating-point type of 16, 32 or 64 bits, got {query.dtype}"
    if query.dtype == torch.float64 and query.device.type != "cpu":
        return "query.dtype: must be of 16 or 32 bits on a GPU, got torch.float64"
    if query.dim() < 2 or query.dim() != key.dim() or key.dim() != value.dim():
        ranks = f"{query.dim()}, {key.dim()}, {value.dim()}"
        return f"query, key, value: must have one rank of at least 2, got {ranks}"
    if not 0 < query.shape[-1] <= 1024 or not 0 < value.shape[-1] <= 1024:
        return f"head_dim: must be from 1 to 1024, got {query.shape[-1]} and {value.shape[-1]}"
    return _unsupported_heads(query, key, value, enable_gqa)


def _unsupported_heads(query, key, value, enable_gqa):
    if key.shape[:-2] != value.shape[:-2] or query.shape[:-3] != key.shape[:-3]:
        return (
            "query, key, value: must have the same leading dimensions, got "
            f"{tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}"
        )
    if query.dim() < 3:
        return None
    heads, heads_kv = query.shape[-3], key.shape[-3]
    if heads != heads_kv and not (enable_gqa and query.dim() == 4 and heads % heads_kv == 0):
        return f"key: must have {heads} heads (or enable_gqa and a divisor of it), got {heads_kv}"
    return None


@contextlib.contextmanager
def sdpa(fallback=None):
    """torch.nn.functional.scaled_dot_product_attention is ingot's while this context is entered (in
    all threads). fallback as in scaled_dot_product_attention."""

    def routed(*args, **kwargs):
        return scaled_dot_product_attention(*args, fallback=fallback, **kwargs)

    before = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = routed
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = before


def register_flash_attention():
    """Makes "ingot" an implementation of torch.nn.attention's flash registry (PyTorch 2.11 and
    newer): torch.nn.attention.activate_flash_attention_impl("ingot") then routes the flash path of
    scaled_dot_product_attention to ingot, on CPU and CUDA; restore_flash_attention_impl() undoes
    it. Returns False where this PyTorch has no registry."""
    try:
        from torch.nn.attention import register_flash_attention_impl
    except ImportError:
        return False
    from ingot._torch_registry import activate

    register_flash_attention_impl("ingot", register_fn=activate)
    return True
