"""The functions of the flash_attn package, with its signatures and semantics, by ingot.

    from ingot.compat.flash_attn import flash_attn_func

Tensors are (batch, seqlen, heads, head_dim); causal is aligned bottom right; window_size is (left,
right) with -1 for unbounded. The varlen functions take sequences that lie one after the other,
(total, heads, head_dim), and read cu_seqlens on the host, once a tensor. What ingot does not have
(dropout, ALiBi, rotary embedding and paged caches) raises Unsupported with the reason.
"""

import torch

from ingot._errors import InvalidArgument, Unsupported
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
    _refuse(dropout_p=(dropout_p, 0.0), alibi_slopes=(alibi_slopes, None))
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() != 4:
            raise InvalidArgument(
                f"{name}: must have 4 dimensions (batch, seqlen, heads, head_dim), "
                f"got {tensor.dim()}"
            )
    o, lse = attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        causal="bottom_right" if causal else None,
        window=window_size,
        scale=softmax_scale,
        softcap=softcap or None,
        return_lse=True,
    )
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
    if qkv.dim() != 5 or qkv.shape[2] != 3:
        raise InvalidArgument(
            f"qkv: must have shape (batch, seqlen, 3, heads, head_dim), got {tuple(qkv.shape)}"
        )
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
    if kv.dim() != 5 or kv.shape[2] != 2:
        raise InvalidArgument(
            f"kv: must have shape (batch, seqlen_k, 2, heads_kv, head_dim), got {tuple(kv.shape)}"
        )
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
    are not needed.

    Returns (total_q, heads, head_dim_v); with return_attn_probs (out, softmax_lse, None), where
    softmax_lse is (heads, total_q).
    """
    _refuse(
        dropout_p=(dropout_p, 0.0),
        alibi_slopes=(alibi_slopes, None),
        block_table=(block_table, None),
    )
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() != 3:
            raise InvalidArgument(
                f"{name}: must have 3 dimensions (total, heads, head_dim), got {tensor.dim()}"
            )
    rows = _sequences("cu_seqlens_q", cu_seqlens_q)
    cols = _sequences("cu_seqlens_k", cu_seqlens_k)
    if len(rows) != len(cols):
        raise InvalidArgument(
            f"cu_seqlens_k: must be of the {len(rows)} sequences of cu_seqlens_q, got {len(cols)}"
        )
    o, lse = ragged_attention(
        *(x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)),
        [n for row, col in zip(rows, cols, strict=True) for n in (0, 1, *row, *col)],
        causal="bottom_right" if causal else None,
        window=window_size,
        scale=softmax_scale,
        softcap=softcap or None,
        return_lse=True,
    )
    o = o.squeeze(0).transpose(0, 1)
    return (o, lse.squeeze(0), None) if return_attn_probs else o


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
    if qkv.dim() != 4 or qkv.shape[1] != 3:
        raise InvalidArgument(
            f"qkv: must have shape (total, 3, heads, head_dim), got {tuple(qkv.shape)}"
        )
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
    if kv.dim() != 4 or kv.shape[1] != 2:
        raise InvalidArgument(
            f"kv: must have shape (total_k, 2, heads_kv, head_dim), got {tuple(kv.shape)}"
        )
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


def _sequences(name, cu_seqlens):
    """[(first, end)] of the sequences. All layers of a model share cu_seqlens, so a tensor keeps
    what was read from it until it is written to; tensors of inference mode do not tell that."""
    version = None if cu_seqlens.is_inference() else cu_seqlens._version
    known, sequences = getattr(cu_seqlens, "_ingot_sequences", (None, None))
    if version is not None and known == version:
        return sequences
    ends = cu_seqlens.tolist()
    if not ends or ends[0] != 0:
        raise InvalidArgument(f"{name}: must begin with 0, got {ends[:1]}")
    sequences = list(zip(ends[:-1], ends[1:], strict=True))
    cu_seqlens._ingot_sequences = (version, sequences)
    return sequences


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
    given, are first written at cache_seqlens (a number, or one number a batch entry).

    Entries of different lengths are computed one after another. num_splits is chosen by ingot.
    """
    _refuse(
        rotary_cos=(rotary_cos, None),
        rotary_sin=(rotary_sin, None),
        cache_leftpad=(cache_leftpad, None),
        block_table=(block_table, None),
        alibi_slopes=(alibi_slopes, None),
    )
    entries = range(q.shape[0]) if cache_batch_idx is None else cache_batch_idx.tolist()
    lengths = _lengths(cache_seqlens, k_cache, len(entries))
    if k is not None:
        for i, (entry, length) in enumerate(zip(entries, lengths, strict=True)):
            end = length + k.shape[1]
            if end > k_cache.shape[1]:
                raise InvalidArgument(
                    f"cache_seqlens: with {k.shape[1]} new keys must end within the cache's "
                    f"{k_cache.shape[1]}, got {length}"
                )
            k_cache[entry, length:end] = k[i]
            v_cache[entry, length:end] = v[i]
        lengths = [length + k.shape[1] for length in lengths]
    options = {
        "softmax_scale": softmax_scale,
        "causal": causal,
        "window_size": window_size,
        "softcap": softcap,
        "return_attn_probs": True,
    }
    with torch.no_grad():
        if len(set(lengths)) == 1 and cache_batch_idx is None:
            n = lengths[0]
            o, lse, _ = flash_attn_func(q, k_cache[:, :n], v_cache[:, :n], **options)
        else:
            parts = [
                flash_attn_func(
                    q[i : i + 1], k_cache[e : e + 1, :n], v_cache[e : e + 1, :n], **options
                )
                for i, (e, n) in enumerate(zip(entries, lengths, strict=True))
            ]
            o, lse = (torch.cat([part[j] for part in parts]) for j in (0, 1))
    return (o, lse) if return_softmax_lse else o


def _lengths(cache_seqlens, k_cache, batch):
    if cache_seqlens is None:
        return [k_cache.shape[1]] * batch
    if isinstance(cache_seqlens, int):
        return [cache_seqlens] * batch
    return cache_seqlens.tolist()


def _refuse(**arguments):
    for name, (value, default) in arguments.items():
        if value is not default and value != default:
            text = "a tensor" if isinstance(value, torch.Tensor) else value
            raise Unsupported(f"{name}: must be {default}, got {text}")
