"""PyTorch: an operator with autograd, and a drop-in for scaled_dot_product_attention.

    from ingot.torch import attention, scaled_dot_product_attention, sdpa
    o = attention(q, k, v, causal="bottom_right")         # like ingot.attention, differentiable
    with sdpa():                                          # torch.nn.functional's is ingot's inside
        model(x)

The operators are torch.ops.ingot.attention_forward and attention_backward, the same with
attention_parts for ALiBi, biases, masks, sinks, prefixes and dropout, and with attention_ragged for
batches with padding. They have fake (meta) kernels, so they run under
torch.compile without graph breaks, and rules for torch.func's grad, vjp, jacrev and vmap. Work is
queued on the current CUDA stream, so they can be captured in CUDA graphs. On MPS (untried on
hardware) it is encoded into PyTorch's own command buffer. Gradients are deterministic. Double
backward and forward mode are not there: they raise.
"""

from ingot import _torch_checks
from ingot._options import option_values, refuse_unknown
from ingot._torch_operators import attention_forward, attention_ragged_forward
from ingot._torch_parts import attention as attention_with_parts
from ingot._torch_parts import parts_of_tensors
from ingot._torch_sdpa import (
    check_fallback,
    fallbacks,
    matmul_precision,  # noqa: F401 - of ingot.transformers
    scaled_dot_product_attention,
    sdpa,
)

__all__ = [
    "attention",
    "fallbacks",
    "ragged_attention",
    "register_flash_attention",
    "scaled_dot_product_attention",
    "sdpa",
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
    **unknown,
):
    """ingot.attention for tensors that require gradients; the same arguments, shapes and errors.

    The types of the operands are what runs: autocast does not change them, as it does in
    scaled_dot_product_attention. bias and sinks have gradients, too, alibi_slopes has none.

    seed: None draws two numbers from PyTorch's generator of the CPU for dropout, so
    torch.manual_seed makes it repeatable; also a tensor of two int64, (seed, offset), on the CPU or
    beside q.
    """
    if unknown:
        refuse_unknown(unknown)
    parts = parts_of_tensors(mask, bias, alibi_slopes, sinks, dropout, seed, prefix_len)
    _torch_checks.are_tensors(q, k, v, parts)
    options = option_values(causal, window, scale, softcap, precision, workspace_limit)
    if parts is None:
        o, lse = attention_forward(q, k, v, *options)
    else:
        o, lse = attention_with_parts(q, k, v, parts, options)
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
    **unknown,
):
    """attention of parts of a batch, for padding and for sequences that lie one after the other.

    q: (batch, heads, seqlen_q, head_dim), k and v likewise; blocks: six integers for each part,
    [first entry, end, first query, end, first key, end]: these entries attend, with these queries,
    to these keys and no others; ends are exclusive, and masks count from the part's own first query
    and key. Each part has later entries than the one before, or the same with later queries and
    keys. A query in no part has o = 0, lse = -inf and gradient 0. One operation for autograd. On
    a CPU small parts run side by side. It has not run on a GPU yet.
    """
    refuse_unknown(unknown, has_parts=False)
    _torch_checks.are_tensors(q, k, v)
    _torch_checks.are_integers(blocks)
    options = option_values(causal, window, scale, softcap, precision, workspace_limit)
    o, lse = attention_ragged_forward(q, k, v, blocks, *options)
    return (o, lse) if return_lse else o


def register_flash_attention(fallback=None):
    """Makes "ingot" an implementation of torch.nn.attention's flash registry (PyTorch 2.11 and
    newer): torch.nn.attention.activate_flash_attention_impl("ingot") then routes the flash path of
    scaled_dot_product_attention to ingot, on CPU and CUDA; restore_flash_attention_impl() undoes
    it. What ingot does not have (masks as tensors, dropout) raises Unsupported, or with
    fallback="torch" runs in the kernels that were there before. Returns False where this PyTorch
    has no registry."""
    check_fallback(fallback)
    try:
        from torch.nn.attention import register_flash_attention_impl
    except ImportError:
        return False
    from ingot._torch_registry import activate

    register_flash_attention_impl("ingot", register_fn=lambda: activate(fallback))
    return True
