"""transformers: attn_implementation="ingot".

    import ingot.transformers
    model = AutoModel.from_pretrained(name, attn_implementation="ingot")

Importing this module registers "ingot" as an attention function and its mask function. A mask is
whatever the model says: its predicate is evaluated and its structure found again (causal, windows,
padding and its gaps, packed sequences, chunks, prefixes, caches of a fixed length); a mask that has
none, or that comes with attention sinks, dropout or a position bias, is handed over as a tensor of
booleans. What ingot does not compute (sparse indices, output_attentions) raises Unsupported with
the reason, or runs in PyTorch after register(fallback="torch").
"""

import sys
import warnings

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    eager_mask,
)

from ingot import _transformers_ops  # noqa: F401  torch.ops.ingot.attention_masked
from ingot._errors import InvalidArgument, Unsupported
from ingot._torch_sdpa import check_fallback, count_fallback
from ingot._transformers_mask import Mask
from ingot._transformers_own import use_eager_for_own_code
from ingot._transformers_plan import attend, plan_of, plan_of_tensor, takes_parts
from ingot._transformers_rows import (
    UNBOUNDED,
    Unstructured,
    booleans_of,
    over_pairs,
    rows_of_bounds,
    rows_of_tensor,
)
from ingot.torch import attention, matmul_precision

__all__ = ["attention_forward", "attention_mask", "register"]

_fallback = None
_warned = set()


def register(fallback=None):
    """Registers "ingot" with transformers; importing the module has done it with fallback=None.

    fallback: None raises Unsupported for what ingot does not compute; "torch" runs it in PyTorch,
    by the model's own eager attention, with a warning for each reason, and
    ingot.torch.fallbacks() counts.
    """
    global _fallback
    check_fallback(fallback)
    _fallback = fallback
    AttentionInterface.register("ingot", attention_forward)
    AttentionMaskInterface.register("ingot", attention_mask)


def attention_mask(
    batch_size,
    q_length,
    kv_length,
    q_offset=0,
    kv_offset=0,
    mask_function=None,
    attention_mask=None,
    dtype=None,
    device="cpu",
    use_vmap=False,
    allow_is_bidirectional_skip=False,
    **kwargs,
):
    """transformers' mask function: the mask of eager attention, which takes memory only once a
    model computes with it. What else transformers passes says nothing about the mask."""
    mask_function = mask_function or causal_mask_function
    arguments = {
        "batch_size": batch_size,
        "q_length": q_length,
        "kv_length": kv_length,
        "q_offset": q_offset,
        "kv_offset": kv_offset,
        "dtype": dtype or torch.float32,
        "device": device,
        "use_vmap": use_vmap,
    }
    if attention_mask is not None:
        attention_mask = attention_mask.bool()
    compiled = _is_recorded()
    if compiled and attention_mask is None and _says_nothing(arguments, mask_function):
        return None
    if compiled or _is_for_compiled_decoding(arguments):
        return eager_mask(**arguments, mask_function=mask_function, attention_mask=attention_mask)
    arguments["q_offset"] = int(q_offset)
    return Mask(arguments, mask_function, attention_mask, allow_is_bidirectional_skip)


def _is_for_compiled_decoding(arguments):
    """Whether generate() hands the mask to a model that it has compiled, as it does on a GPU with a
    cache of a fixed length, which counts in a tensor. That takes ordinary tensors only."""
    counts = isinstance(arguments["q_offset"], torch.Tensor)
    return counts and arguments["q_length"] == 1 and torch.device(arguments["device"]).type != "cpu"


def _is_recorded():
    """Whether what runs becomes a graph, so that no number of this run may get into it."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _says_nothing(arguments, mask_function):
    """Whether attention without a mask is the same: causal from the end, or all."""
    if mask_function not in (causal_mask_function, bidirectional_mask_function):
        return False
    offset = arguments["q_offset"]
    if isinstance(offset, torch.Tensor):
        return False
    return offset - arguments["kv_offset"] + arguments["q_length"] == arguments["kv_length"]


def attention_forward(
    module,
    query,
    key,
    value,
    attention_mask,
    dropout=0.0,
    scaling=None,
    sliding_window=None,
    softcap=None,
    is_causal=None,
    **kwargs,
):
    """transformers' attention function: query (batch, heads, seqlen_q, head_dim), key and value
    with their own number of heads; returns ((batch, seqlen_q, heads, head_dim_v), None)."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    options = {"scale": scaling, "softcap": softcap, "precision": matmul_precision()}
    if _is_recorded() and _is_for_the_graph(attention_mask, kwargs):
        _refuse(module, kwargs)
        parts = _parts(query, dropout, kwargs)
        if parts or attention_mask.requires_grad:
            parts |= _in_graph(attention_mask, parts.get("bias"))
            return attention(query, key, value, **options, **parts).transpose(1, 2), None
        operands = (query, key, value, attention_mask)
        return torch.ops.ingot.attention_masked(*operands, *options.values()), None
    try:
        _refuse(module, kwargs)
        parts = _parts(query, dropout, kwargs)
        packed = kwargs.get("cu_seq_lens_q")
        if attention_mask is None and packed is None:
            _check_alignment(query, key, causal)
            options |= {
                "causal": "bottom_right" if causal else None,
                "window": _window(sliding_window, causal),
            }
            o = attention(query, key, value, **options, **parts)
        else:
            own = (causal, sliding_window)
            o = _with_plan(query, key, value, attention_mask, packed, *own, options, parts)
    except Unsupported as reason:
        if _fallback is None:
            raise
        arguments = {"dropout": dropout, "sliding_window": sliding_window, "softcap": softcap}
        arguments |= {"scaling": scaling, "is_causal": is_causal, **kwargs}
        return _in_torch(module, query, key, value, attention_mask, causal, arguments, reason)
    return o.transpose(1, 2), None


def _is_for_the_graph(mask, kwargs):
    """Whether a compiled model has a mask that its graph can have, too."""
    packed = kwargs.get("cu_seq_lens_q") is not None
    tensor = mask is not None and not isinstance(mask, Mask)
    return tensor and mask.dim() == 4 and not packed and _fallback is None


def _window(sliding_window, causal):
    """sliding_window counts the query's own position."""
    if sliding_window is None:
        return None
    return (sliding_window - 1, 0 if causal else sliding_window - 1)


def _parts(query, dropout, kwargs):
    """The parts of the score that ingot.torch.attention shall have besides a mask."""
    parts = {"dropout": dropout} if dropout else {}
    sinks = kwargs.get("s_aux")
    if sinks is not None:
        if sinks.dtype not in (torch.float32, query.dtype):
            sinks = sinks.float()
        parts["sinks"] = sinks.flatten()
    if kwargs.get("position_bias") is not None:
        parts["bias"] = kwargs["position_bias"]
    return parts


def _in_graph(mask, bias):
    """A mask of four dimensions, whose numbers nobody may look at, and a bias or None: a dictionary
    of the arguments of ingot.torch.attention."""
    if mask.dtype == torch.bool:
        return {"mask": mask}
    return {"bias": mask if bias is None else mask + bias}


def _refuse(module, kwargs):
    name = type(module).__name__
    for argument in ("sinks", "indices", "block_indices", "cache"):
        if kwargs.get(argument) is not None:
            raise Unsupported(f"{argument}: {name} needs it, ingot does not have it")
    if getattr(module, "sinks", None) is not None and kwargs.get("s_aux") is None:
        raise Unsupported(f"sinks: {name} has them, but does not hand them over as s_aux")
    if kwargs.get("output_attentions") or _weights_are_collected():
        raise Unsupported("output_attentions: must be False, ingot does not store the weights")


try:
    from transformers.utils.output_capturing import _active_collector
except ImportError:
    _active_collector = None


def _weights_are_collected():
    """Whether a model of transformers is collecting the weights by hooks: output_attentions does
    not reach the attention function then."""
    if _active_collector is None or _is_recorded():
        return False
    return any("attentions" in name for name in _active_collector.get() or ())


def _check_alignment(query, key, causal):
    """Without a mask, queries that are not as many as keys have no place among them."""
    queries, keys = query.shape[2], key.shape[2]
    if causal and not _is_recorded() and queries not in (1, keys):
        raise Unsupported(
            "attention_mask: must be a mask if attention is causal and the queries are not as many "
            f"as the keys, got None for {queries} queries and {keys} keys"
        )


@torch.compiler.disable
def _with_plan(query, key, value, mask, packed, causal, sliding_window, options, parts):
    """Attention under a mask or packed sequences."""
    if isinstance(mask, Mask) and packed is None and not mask.changed() and mask.sees_all:
        return attention(query, key, value, **options, **parts)
    plan, say = _plan_of(query, key, mask, packed, causal, sliding_window)
    if plan is not None and (not parts or takes_parts(plan)):
        return attend(plan, query, key, value, options, parts)
    pairs = say()
    if "bias" in pairs and "bias" in parts:
        pairs = {"bias": pairs["bias"] + parts["bias"]}
    return attention(query, key, value, **options, **(parts | pairs))


def _plan_of(query, key, mask, packed, causal, sliding_window):
    """(the plan or None, a function that says the mask as over_pairs does)."""
    queries, keys = query.shape[2], key.shape[2]
    if isinstance(mask, Mask) and mask.changed():
        mask = mask.dense()
    if packed is None and isinstance(mask, Mask):
        _check_shape((mask.shape[0], *mask.shape[2:]), query, key)
        return mask.plan, lambda: {"mask": mask.booleans()}
    if packed is None and mask is not None and mask.dim() != 2:
        pairs = over_pairs(mask, queries, keys)
        _check_shape((mask.shape[0], queries, keys), query, key)
        return plan_of_tensor(pairs["mask"]) if "mask" in pairs else None, lambda: pairs
    rows = _rows_of(query, key, mask, causal, sliding_window)
    if packed is not None:
        rows = _packed(rows, packed)
    _check_shape(rows.shape, query, key)
    try:
        plan = plan_of(rows)
    except Unstructured:
        plan = None
    return plan, lambda: {"mask": booleans_of(rows, query.device)}


def _rows_of(query, key, mask, causal, sliding_window):
    """Rows of a mask of padding, or, with packed sequences, of any."""
    queries, keys = query.shape[2], key.shape[2]
    if isinstance(mask, Mask):
        if mask.reason is not None:
            raise mask.reason
        return mask.rows
    if mask is not None and mask.dim() != 2:
        pairs = over_pairs(mask, queries, keys)
        if "mask" not in pairs:
            raise Unsupported(
                "attention_mask: must be 0 or -inf with packed sequences, got another number"
            )
        return rows_of_tensor(pairs["mask"])
    left, right = _window(sliding_window, causal) or (UNBOUNDED, 0 if causal else UNBOUNDED)
    if mask is not None and mask.shape[1] != keys:
        raise InvalidArgument(f"attention_mask: must be for {keys} keys, got {tuple(mask.shape)}")
    padding = None if mask is None else mask.bool()
    return rows_of_bounds((left, right), queries, keys, keys - queries, padding)


def _packed(rows, cu_seqlens):
    """rows, of which each query sees its own sequence only. cu_seqlens: where sequences begin, and
    the end of the last."""
    entries, queries, keys = rows.shape
    starts = cu_seqlens.cpu().numpy()
    ascending = starts.ndim == 1 and len(starts) > 0 and (np.diff(starts) >= 0).all()
    if not ascending or starts[0] != 0 or starts[-1] != queries or entries != 1 or queries != keys:
        raise Unsupported(
            "cu_seq_lens_q: must be ascending from 0 to the number of queries and of keys of the "
            f"one entry of the batch, got {starts.tolist()} for {entries} entries of {queries} "
            f"queries and {keys} keys"
        )
    sequence = np.searchsorted(starts, np.arange(queries), "right")
    number = np.pad(rows.keys[0].cumsum(), (1, 0))
    first = np.maximum(rows.first, number[starts[sequence - 1]])
    end = np.minimum(rows.end, number[starts[sequence]])
    some = end > first
    return rows._replace(first=np.where(some, first, 0), end=np.where(some, end, 0))


def _check_shape(shape, query, key):
    entries, queries, keys = shape
    if entries not in (1, query.shape[0]) or (queries, keys) != (query.shape[2], key.shape[2]):
        raise InvalidArgument(
            f"attention_mask: must be for {query.shape[0]} entries, {query.shape[2]} queries and "
            f"{key.shape[2]} keys, got {entries}, {queries} and {keys}"
        )


def _in_torch(module, query, key, value, mask, causal, arguments, reason):
    """The call as the model's own eager attention computes it, with a warning for each reason."""
    text = str(reason)
    count_fallback(text)
    if text not in _warned:
        _warned.add(text)
        warnings.warn(f"ingot: attention runs in PyTorch: {text}", stacklevel=3)
    queries, keys = query.shape[2], key.shape[2]
    if isinstance(mask, Mask):
        mask = mask.dense()
    elif mask is None and causal and queries > 1:
        mask = eager_mask(1, queries, keys, keys - queries, dtype=query.dtype, device=query.device)
    elif mask is not None and mask.dtype == torch.bool:
        least = torch.finfo(query.dtype).min
        mask = torch.where(mask, torch.zeros((), dtype=query.dtype, device=mask.device), least)
    if arguments["scaling"] is None:
        arguments["scaling"] = query.shape[3] ** -0.5
    eager = getattr(sys.modules.get(type(module).__module__), "eager_attention_forward", None)
    return (eager or sdpa_attention_forward)(module, query, key, value, mask, **arguments)


use_eager_for_own_code()
register()
