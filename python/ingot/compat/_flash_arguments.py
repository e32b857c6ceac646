"""What flash_attn's arguments must be, and cu_seqlens and cache_seqlens as Python's numbers.

They are read anew in each call: a tensor can be written to in ways that nobody is told of.
"""

import operator

import torch

from ingot._errors import InvalidArgument, Unsupported
from ingot._parts import dropout_of


def refuse(**arguments):
    """Raises for what ingot does not have: each is (value, the only value that there is)."""
    for name, (value, only) in arguments.items():
        if value is only or type(value) in (int, float) and value == only:
            continue
        text = "a tensor" if isinstance(value, torch.Tensor) else repr(value)
        raise Unsupported(f"{name}: must be {only}, got {text}")


def tensors(q, k, v, axes):
    for name, x in (("q", q), ("k", k), ("v", v)):
        tensor(name, x, axes)


def tensor(name, x, axes):
    if not isinstance(x, torch.Tensor):
        raise InvalidArgument(f"{name}: must be a torch.Tensor, got {type(x).__name__}")
    if x.is_nested or x.layout is not torch.strided:
        kind = "a nested tensor" if x.is_nested else f"layout {x.layout}"
        raise Unsupported(f"{name}: must be a dense tensor, got {kind}")
    if x.dim() != len(axes):
        raise InvalidArgument(
            f"{name}: must have {len(axes)} dimensions ({', '.join(axes)}), got {x.dim()}"
        )


def packed(name, x, axes):
    """A tensor of which one axis is named by its size."""
    sizes = [(i, axis) for i, axis in enumerate(axes) if isinstance(axis, int)]
    shape = ", ".join(map(str, axes))
    if not isinstance(x, torch.Tensor):
        raise InvalidArgument(f"{name}: must be a torch.Tensor, got {type(x).__name__}")
    if x.is_nested or x.dim() != len(axes) or any(x.shape[i] != size for i, size in sizes):
        got = "a nested tensor" if x.is_nested else tuple(x.shape)
        raise InvalidArgument(f"{name}: must have shape ({shape}), got {got}")


def options(softmax_scale, causal, window_size, softcap, dropout_p=0.0):
    """As ingot.torch.attention names them."""
    if not isinstance(causal, bool):
        raise InvalidArgument(f"causal: must be True or False, got {causal!r}")
    return {
        "causal": "bottom_right" if causal else None,
        "window": window_size,
        "scale": softmax_scale,
        "softcap": None if type(softcap) in (int, float) and softcap == 0 else softcap,
        "dropout": dropout_of(dropout_p, "dropout_p"),
    }


def slopes(alibi_slopes, batch, heads):
    """float32, (heads,) or (batch, heads), or None; what is not about its shape, attention says."""
    if alibi_slopes is None:
        return
    if not isinstance(alibi_slopes, torch.Tensor):
        raise InvalidArgument(
            f"alibi_slopes: must be a torch.Tensor, got {type(alibi_slopes).__name__}"
        )
    shape = tuple(alibi_slopes.shape)
    if shape not in ((heads,), (batch, heads)):
        raise InvalidArgument(
            f"alibi_slopes.shape: must be ({heads},) or ({batch}, {heads}), got {shape}"
        )


def slopes_of(alibi_slopes, first, end):
    """The slopes of these entries of the batch."""
    if alibi_slopes is None or alibi_slopes.dim() == 1:
        return alibi_slopes
    return alibi_slopes[first:end]


def parts(cu_seqlens_q, cu_seqlens_k, q, k, max_seqlen_q, max_seqlen_k):
    """The blocks of ragged_attention for sequences that lie one after the other in q and in k."""
    rows = _ends("q", cu_seqlens_q, q.shape[0], max_seqlen_q)
    cols = _ends("k", cu_seqlens_k, k.shape[0], max_seqlen_k)
    if len(rows) != len(cols):
        raise InvalidArgument(
            f"cu_seqlens_k: must be of the {len(rows) - 1} sequences of cu_seqlens_q, got "
            f"{len(cols) - 1}"
        )
    ranges = zip(rows, rows[1:], cols, cols[1:], strict=False)  # the last end begins nothing
    return [number for part in ranges for number in (0, 1, *part)]


def _ends(of, cu_seqlens, total, max_seqlen):
    name = f"cu_seqlens_{of}"
    ends = _integers(name, cu_seqlens)
    if not ends or ends[0] != 0:
        raise InvalidArgument(f"{name}: must begin with 0, got {ends[:1]}")
    lengths = list(map(operator.sub, ends[1:], ends))
    if lengths and min(lengths) < 0:
        i = lengths.index(min(lengths))
        raise InvalidArgument(f"{name}: must ascend, got {ends[i]} before {ends[i + 1]}")
    if ends[-1] > total:
        raise InvalidArgument(f"{name}: must end at {total} or before, got {ends[-1]}")
    if max_seqlen is not None:
        _is_bound(f"max_seqlen_{of}", max_seqlen, lengths)
    return ends


def _is_bound(name, bound, lengths):
    """Kernels of flash_attn compute no more than that."""
    if isinstance(bound, torch.Tensor) and bound.dim() == 0 and not bound.is_floating_point():
        bound = bound.item()
    if not isinstance(bound, int) or isinstance(bound, bool):
        raise InvalidArgument(f"{name}: must be an integer, got {bound!r}")
    longest = max(lengths, default=0)
    if bound < longest:
        raise InvalidArgument(f"{name}: must be at least the longest, {longest}, got {bound}")


def cache_entries(cache_batch_idx, batch, k_cache, written):
    """The entry of the cache for each of the batch."""
    if cache_batch_idx is None:
        if k_cache.shape[0] != batch:
            raise InvalidArgument(
                f"k_cache: must have the {batch} entries of q (or cache_batch_idx), got "
                f"{k_cache.shape[0]}"
            )
        return range(batch)
    entries = _one_each("cache_batch_idx", cache_batch_idx, batch)
    for entry in entries:
        if not 0 <= entry < k_cache.shape[0]:
            raise InvalidArgument(
                f"cache_batch_idx: must be from 0 to {k_cache.shape[0] - 1}, got {entry}"
            )
    if written and len(set(entries)) < len(entries):
        raise InvalidArgument(
            f"cache_batch_idx: must name each entry once where k is written, got {entries}"
        )
    return entries


def cache_lengths(cache_seqlens, batch, capacity, new):
    """How many keys each entry holds, `new` ones left out that will be written behind them."""
    if cache_seqlens is None:
        lengths = [capacity] * batch
    elif isinstance(cache_seqlens, int) and not isinstance(cache_seqlens, bool):
        lengths = [cache_seqlens] * batch
    else:
        lengths = _one_each("cache_seqlens", cache_seqlens, batch)
    for length in lengths:
        if length < 0 or length + new > capacity:
            raise InvalidArgument(
                f"cache_seqlens: with {new} new keys must end within the cache's {capacity}, got "
                f"{length}"
            )
    return lengths


def cache_operands(q, k_cache, v_cache, k, v):
    """The shapes, types and devices of flash_attn_with_kvcache fit one another."""
    for name, x in (("q", q), ("k_cache", k_cache), ("v_cache", v_cache)):
        tensor(name, x, ("batch", "seqlen", "heads", "head_dim"))
    _same("v_cache", v_cache, "k_cache", k_cache, k_cache.shape[:3])
    heads_kv = k_cache.shape[2]
    if heads_kv < 1 or q.shape[2] % heads_kv != 0 or q.shape[3] != k_cache.shape[3]:
        raise InvalidArgument(
            f"k_cache: must have q's head_dim {q.shape[3]} and a divisor of its {q.shape[2]} "
            f"heads, got {k_cache.shape[3]} and {heads_kv}"
        )
    if q.device != k_cache.device:
        raise InvalidArgument(f"k_cache: must be on {q.device} as q is, got {k_cache.device}")
    if (k is None) != (v is None):
        missing = "k" if k is None else "v"
        raise InvalidArgument(f"{missing}: must be given, the other new one is")
    for name, x, cache in (("k", k, k_cache), ("v", v, v_cache)) if k is not None else ():
        tensor(name, x, ("batch", "seqlen_new", "heads_kv", "head_dim"))
        shape = (q.shape[0], k.shape[1], heads_kv, cache.shape[3])
        if x.shape != shape:
            raise InvalidArgument(f"{name}: must have shape {shape}, got {tuple(x.shape)}")
        _same(name, x, f"{name}_cache", cache)
    for name, x in (("q", q), ("k_cache", k_cache), ("v_cache", v_cache), ("k", k), ("v", v)):
        if x is not None and x.requires_grad and torch.is_grad_enabled():
            raise Unsupported(f"{name}: must not require gradients with a cache (torch.no_grad)")


def _same(name, x, other, y, shape=()):
    if x.shape[: len(shape)] != shape:
        raise InvalidArgument(
            f"{name}: must have the first sizes of {other}, {tuple(shape)}, got {tuple(x.shape)}"
        )
    if (x.dtype, x.device) != (y.dtype, y.device):
        raise InvalidArgument(
            f"{name}: must be {y.dtype} on {y.device} as {other} is, got {x.dtype} on {x.device}"
        )


def _one_each(name, given, batch):
    numbers = _integers(name, given)
    if len(numbers) != batch:
        raise InvalidArgument(
            f"{name}: must have a number for each of the {batch} entries of q, got {len(numbers)}"
        )
    return numbers


def _integers(name, given):
    """The numbers of a tensor of one dimension."""
    rule = "must be a tensor of integers with one dimension"
    if not isinstance(given, torch.Tensor):
        raise InvalidArgument(f"{name}: {rule}, got {type(given).__name__}")
    if given.is_nested or given.dim() != 1 or given.layout is not torch.strided:
        raise InvalidArgument(f"{name}: {rule}, got {given.dim()} dimensions")
    if given.dtype == torch.bool or given.is_floating_point() or given.is_complex():
        raise InvalidArgument(f"{name}: {rule}, got {given.dtype}")
    if given.is_meta:
        raise InvalidArgument(f"{name}: {rule}, got one without data (device meta)")
    return given.tolist()
