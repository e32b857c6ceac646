"""transformers: attn_implementation="ingot".

    import ingot.transformers
    model = AutoModel.from_pretrained(name, attn_implementation="ingot")

Importing this module registers "ingot" as an attention function and its mask function. Encoders,
decoders, prefill and cached decoding run; a padded batch is computed without its padding, entries
of one length together. Dropout, attention sinks and learned position biases raise Unsupported with
the reason.
"""

from typing import NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from ingot._errors import Unsupported
from ingot.torch import attention, matmul_precision, ragged_attention

__all__ = ["attention_forward", "attention_mask"]


def attention_mask(
    batch_size, q_length, kv_length, q_offset=0, kv_offset=0, attention_mask=None, **kwargs
):
    """None where nothing is padded, else the boolean (batch, keys) mask of what is no padding. The
    causal structure and the window are the attention function's."""
    if attention_mask is None:
        return None
    attention_mask = attention_mask[:, -kv_length:].bool()
    if attention_mask.shape[1] == kv_length and attention_mask.all():
        return None
    return attention_mask


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
    _refuse(module, dropout, attention_mask, kwargs)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    options = {
        "causal": "bottom_right" if causal else None,
        "window": _window(sliding_window, causal),
        "scale": scaling,
        "softcap": softcap,
        "precision": matmul_precision(),
    }
    if attention_mask is None:
        return attention(query, key, value, **options).transpose(1, 2), None
    runs = _runs_of(attention_mask, attention_mask.shape[1] - query.shape[2])
    if runs.blocks is not None:
        o = ragged_attention(query, key, value, runs.blocks, **options)
        return o.transpose(1, 2), None
    o = query.new_zeros((*query.shape[:3], value.shape[3]))
    for entries, rows, cols in runs.parts:
        o[entries, :, rows] = attention(
            query[entries, :, rows], key[entries, :, cols], value[entries, :, cols], **options
        )
    return o.transpose(1, 2), None


class _Runs(NamedTuple):
    """What attends to what: entries (a slice) with the queries `rows` to the keys `cols`, slices
    where they follow one another, as they mostly do, else indices."""

    parts: list
    blocks: list | None  # the same as ragged_attention takes it; None where there is a gap


def _runs_of(mask, rows_before):
    """The first query stands at column rows_before. All layers of a model share a mask, so it keeps
    its runs."""
    runs = getattr(mask, "_ingot_runs", None)
    if runs is None:
        parts = [
            (slice(first, end), _rows_of(cols, rows_before), cols)
            for first, end, cols in _find_runs(mask)
        ]
        blocks = None
        if all(isinstance(cols, slice) for _, _, cols in parts):
            blocks = [number for part in parts for x in part for number in (x.start, x.stop)]
        runs = mask._ingot_runs = _Runs(parts, blocks)
    return runs


def _find_runs(mask):
    """[(first entry, end, columns without padding)] of entries side by side that have the same."""
    seen = mask.int()
    stops = mask.shape[1] - seen.flip(1).argmax(1)
    table = torch.stack((seen.argmax(1), stops, seen.sum(1)), 1).tolist()
    runs = []
    for entry, (start, stop, count) in enumerate(table):
        if count == 0:
            continue
        if stop - start != count:
            runs.append((entry, entry + 1, mask[entry].nonzero().squeeze(1)))
            continue
        cols = slice(start, stop)
        if runs and isinstance(runs[-1][2], slice) and runs[-1][1:] == (entry, cols):
            runs[-1] = (runs[-1][0], entry + 1, cols)
        else:
            runs.append((entry, entry + 1, cols))
    return runs


def _rows_of(cols, rows_before):
    if isinstance(cols, slice):
        return slice(max(cols.start - rows_before, 0), max(cols.stop - rows_before, 0))
    return cols[cols >= rows_before] - rows_before


def _window(sliding_window, causal):
    """sliding_window counts the query's own position."""
    if sliding_window is None:
        return None
    return (sliding_window - 1, 0 if causal else sliding_window - 1)


def _refuse(module, dropout, attention_mask, kwargs):
    if dropout:
        raise Unsupported(f"dropout: must be 0, got {dropout}")
    if attention_mask is not None and attention_mask.dim() != 2:
        raise Unsupported(
            "attention_mask: must be None or a (batch, keys) mask of padding, got "
            f"{attention_mask.dim()} dimensions"
        )
    for name in ("s_aux", "position_bias", "cache"):
        if kwargs.get(name) is not None:
            raise Unsupported(f"{name}: {type(module).__name__} needs it, ingot does not have it")
    if kwargs.get("output_attentions"):
        raise Unsupported("output_attentions: must be False, ingot does not store the scores")


AttentionInterface.register("ingot", attention_forward)
AttentionMaskInterface.register("ingot", attention_mask)
