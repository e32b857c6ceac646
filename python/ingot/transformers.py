"""transformers: attn_implementation="ingot".

    import ingot.transformers
    model = AutoModel.from_pretrained(name, attn_implementation="ingot")

Importing this module registers "ingot" as an attention function and its mask function. Encoders,
decoders, prefill and cached decoding run; a padded batch is computed without its padding, entry by
entry. Dropout, attention sinks and learned position biases raise Unsupported with the reason.
"""

from transformers import AttentionInterface, AttentionMaskInterface

from ingot._errors import Unsupported
from ingot.torch import attention, matmul_precision

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
    o = query.new_zeros((*query.shape[:3], value.shape[3]))
    rows_before = attention_mask.shape[1] - query.shape[2]
    for entry in range(query.shape[0]):
        cols = attention_mask[entry].nonzero().squeeze(1)
        rows = cols[cols >= rows_before] - rows_before
        part = attention(
            _rows(query, entry, rows), _rows(key, entry, cols), _rows(value, entry, cols), **options
        )
        o[entry : entry + 1, :, rows] = part
    return o.transpose(1, 2), None


def _rows(tensor, entry, index):
    """Rows of one batch entry: a view where they follow one another, as padding mostly has it."""
    one = tensor[entry : entry + 1]
    count = index.numel()
    if count > 0 and index[-1] - index[0] == count - 1:
        return one[:, :, index[0] : index[0] + count]
    return one[:, :, index]


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
