"""The functions of the flash_attn package, with its signatures and semantics, by ingot.

    from ingot.compat.flash_attn import flash_attn_func

Tensors are (batch, seqlen, heads, head_dim); causal is aligned bottom right; window_size is (left,
right) with -1 for unbounded. The varlen functions take sequences that lie one after the other,
(total, heads, head_dim), and read cu_seqlens on the host, in each call; cu_seqlens in host memory
spares a GPU's queue the wait. alibi_slopes is (heads,) or (batch, heads), float32; dropout_p draws
its seed from PyTorch's generator of the CPU. With either, the sequences of the varlen functions are
computed one after the other. What ingot does not have (rotary embedding and paged caches) raises
Unsupported with the reason.
"""

import torch

from ingot.compat import _flash_arguments as arguments
from ingot.torch import attention, ragged_attention

__all__ = [
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
]


def flash_attn_func(
    q,
    k,
    v,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    """q: (batch, seqlen_q, heads, head_dim); k, v: (batch, seqlen_k, heads_kv, head_dim).

    Returns (batch, seqlen_q, heads, head_dim_v); with return_attn_probs (out, softmax_lse, None),
    where softmax_lse is (batch, heads, seqlen_q). Gradients are always deterministic.
    """
    arguments.tensors(q, k, v, ("batch", "seqlen", "heads", "head_dim"))
    options = arguments.options(softmax_scale, causal, window_size, softcap, dropout_p)
    if alibi_slopes is not None:
        options["alibi_slopes"] = alibi_slopes
    o, lse = attention(*(x.transpose(1, 2) for x in (q, k, v)), **options, return_lse=True)
    o = o.transpose(1, 2)
    return (o, lse, None) if return_attn_probs else o


def flash_attn_qkvpacked_func(
    qkv,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    """qkv: (batch, seqlen, 3, heads, head_dim); the other arguments of flash_attn_func."""
    arguments.packed("qkv", qkv, ("batch", "seqlen", 3, "heads", "head_dim"))
    return flash_attn_func(
        *qkv.unbind(2),
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
    )


def flash_attn_kvpacked_func(
    q,
    kv,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    """kv: (batch, seqlen_k, 2, heads_kv, head_dim); the other arguments of flash_attn_func."""
    arguments.packed("kv", kv, ("batch", "seqlen_k", 2, "heads_kv", "head_dim"))
    return flash_attn_func(
        q,
        *kv.unbind(2),
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
    )


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
    block_table=None,
):
    """q: (total_q, heads, head_dim); k, v: (total_k, heads_kv, head_dim): sequences one after the
    other, the i-th from cu_seqlens[i] to before cu_seqlens[i + 1]. max_seqlen_q and max_seqlen_k
    are not needed (None); where they are given they must not be too small.

    Returns (total_q, heads, head_dim_v); with return_attn_probs (out, softmax_lse, None), where
    softmax_lse is (heads, total_q).
    """
    arguments.refuse(block_table=(block_table, None))
    arguments.tensors(q, k, v, ("total", "heads", "head_dim"))
    blocks = arguments.parts(cu_seqlens_q, cu_seqlens_k, q, k, max_seqlen_q, max_seqlen_k)
    arguments.slopes(alibi_slopes, len(blocks) // 6, q.shape[1])
    options = arguments.options(softmax_scale, causal, window_size, softcap, dropout_p)
    operands = [x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)]
    if alibi_slopes is None and not options["dropout"]:
        del options["dropout"]
        o, lse = ragged_attention(*operands, blocks, **options, return_lse=True)
    else:
        o, lse = _one_by_one(*operands, blocks, alibi_slopes, options)
    o = o.squeeze(0).transpose(0, 1)
    return (o, lse.squeeze(0), None) if return_attn_probs else o


def _one_by_one(q, k, v, blocks, alibi_slopes, options):
    """ragged_attention of sequences that lie one after the other, with what that does not have."""
    empty = [x[:, :, :0] for x in (q, k, v)]
    parts = [attention(*empty, **options, return_lse=True)]  # looks at all else
    for i in range(0, len(blocks), 6):
        _, _, first, end, first_k, end_k = blocks[i : i + 6]
        slopes = arguments.slopes_of(alibi_slopes, i // 6, i // 6 + 1)
        operands = q[:, :, first:end], k[:, :, first_k:end_k], v[:, :, first_k:end_k]
        parts.append(attention(*operands, **options, alibi_slopes=slopes, return_lse=True))
    o, lse = (torch.cat([part[i] for part in parts], 2) for i in (0, 1))
    rest = q.shape[2] - o.shape[2]  # queries of no sequence
    lse = torch.nn.functional.pad(lse, (0, rest), value=float("-inf"))
    return torch.nn.functional.pad(o, (0, 0, 0, rest)), lse


def flash_attn_varlen_qkvpacked_func(
    qkv,
    cu_seqlens,
    max_seqlen,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    """qkv: (total, 3, heads, head_dim); the other arguments of flash_attn_varlen_func."""
    arguments.packed("qkv", qkv, ("total", 3, "heads", "head_dim"))
    return flash_attn_varlen_func(
        *qkv.unbind(1),
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
    )


def flash_attn_varlen_kvpacked_func(
    q,
    kv,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    """kv: (total_k, 2, heads_kv, head_dim); the other arguments of flash_attn_varlen_func."""
    arguments.packed("kv", kv, ("total_k", 2, "heads_kv", "head_dim"))
    return flash_attn_varlen_func(
        q,
        *kv.unbind(1),
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
        softcap,
        alibi_slopes,
        deterministic,
        return_attn_probs,
    )


def flash_attn_with_kvcache(
    q,
    k_cache,
    v_cache,
    k=None,
    v=None,
    rotary_cos=None,
    rotary_sin=None,
    cache_seqlens=None,
    cache_batch_idx=None,
    cache_leftpad=None,
    block_table=None,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    rotary_interleaved=True,
    alibi_slopes=None,
    num_splits=0,
    return_softmax_lse=False,
):
    """Attention over a cache (batch, seqlen_cache, heads_kv, head_dim), into which k and v, if
    given, are first written at cache_seqlens (a number, or one number a batch entry); nothing is
    written where an argument is wrong. There are no gradients.

    Entries of different lengths are computed one after another. num_splits is chosen by ingot.
    """
    arguments.refuse(
        rotary_cos=(rotary_cos, None),
        rotary_sin=(rotary_sin, None),
        cache_leftpad=(cache_leftpad, None),
        block_table=(block_table, None),
    )
    arguments.cache_operands(q, k_cache, v_cache, k, v)
    arguments.slopes(alibi_slopes, q.shape[0], q.shape[2])
    batch, new = q.shape[0], 0 if k is None else k.shape[1]
    entries = arguments.cache_entries(cache_batch_idx, batch, k_cache, new > 0)
    lengths = arguments.cache_lengths(cache_seqlens, batch, k_cache.shape[1], new)
    options = {
        "softmax_scale": softmax_scale,
        "causal": causal,
        "window_size": window_size,
        "softcap": softcap,
        "alibi_slopes": alibi_slopes,
        "return_attn_probs": True,
    }
    with torch.no_grad():
        if new > 0:
            # What is wrong with the rest raises here, before anything is written.
            _over_cache(q, k_cache, v_cache, [], [], options)
            for i, (entry, length) in enumerate(zip(entries, lengths, strict=True)):
                k_cache[entry, length : length + new] = k[i]
                v_cache[entry, length : length + new] = v[i]
        ends = [length + new for length in lengths]
        o, lse = _over_cache(q, k_cache, v_cache, entries, ends, options)
    return (o, lse) if return_softmax_lse else o


def _over_cache(q, k_cache, v_cache, entries, ends, options):
    """(o, lse) of each query with the keys of its entry of the cache before its end."""
    slopes = options["alibi_slopes"]
    if len(set(ends)) <= 1 and isinstance(entries, range) or not entries:
        n, batch = ends[0] if ends else 0, len(entries)
        options = options | {"alibi_slopes": arguments.slopes_of(slopes, 0, batch)}
        return flash_attn_func(q[:batch], k_cache[:batch, :n], v_cache[:batch, :n], **options)[:2]
    parts = [
        flash_attn_func(
            q[i : i + 1],
            k_cache[e : e + 1, :n],
            v_cache[e : e + 1, :n],
            **(options | {"alibi_slopes": arguments.slopes_of(slopes, i, i + 1)}),
        )
        for i, (e, n) in enumerate(zip(entries, ends, strict=True))
    ]
    return tuple(torch.cat([part[j] for part in parts]) for j in (0, 1))
