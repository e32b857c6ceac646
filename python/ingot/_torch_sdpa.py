"""torch.nn.functional.scaled_dot_product_attention by ingot: the function, and its routing."""

import collections
import contextlib
import threading

import torch
from torch.nn.attention.bias import CausalBias, CausalVariant

from ingot._errors import InvalidArgument, Unsupported
from ingot._options import option_values
from ingot._parts import dropout_of
from ingot._torch_operators import attention_forward
from ingot._torch_parts import attention as attention_with_parts
from ingot._torch_parts import parts_of_tensors

_DEVICES = ("cpu", "cuda", "mps", "meta")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_MASKS = (torch.bool, torch.float32, torch.float16, torch.bfloat16)
_torch_sdpa = torch.nn.functional.scaled_dot_product_attention
_lock = threading.Lock()
_fallbacks = collections.Counter()


@torch.compiler.assume_constant_result
def matmul_precision():
    """What torch.set_float32_matmul_precision asks for, as ingot says it: PyTorch's "high" is a sum
    of two bfloat16 too, and its "medium" permits more than ingot ever takes. A compiled function
    keeps what was set when it was compiled."""
    return "highest" if torch.get_float32_matmul_precision() == "highest" else "high"


def check_fallback(fallback):
    if fallback not in (None, "torch"):
        raise InvalidArgument(f'fallback: must be None or "torch", got {fallback!r}')


def fallbacks():
    """How many calls ran in PyTorch because of fallback="torch", by reason, since ingot.torch was
    imported. A compiled function counts once, when it is compiled."""
    with _lock:
        return dict(_fallbacks)


@torch.compiler.assume_constant_result
def count_fallback(reason):
    """The values are left out: there would be no end of reasons."""
    with _lock:
        _fallbacks[reason.partition(", got ")[0]] += 1


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

    attn_mask: None, a torch.nn.attention.bias.CausalBias, booleans (ingot's mask) or numbers in
    float32, float16 or bfloat16 (its bias, with a gradient). dropout_p: ingot's dropout, whose seed
    PyTorch's generator of the CPU gives. The precision of float32 is the one of
    torch.set_float32_matmul_precision; under autocast the operands are cast as PyTorch casts them,
    numbers of attn_mask stay what they are. What ingot does not have raises Unsupported with the
    reason, or with fallback="torch" runs in PyTorch, which fallbacks() counts.
    """
    check_fallback(fallback)

    def in_torch(reason):
        count_fallback(reason)
        return _torch_sdpa(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )

    operands, over_pairs = (query, key, value), None
    reason = _unsupported(operands, attn_mask, dropout_p, is_causal, scale)
    if reason is None:
        reason, shape, operands = _aligned(operands, enable_gqa)
    if reason is None and attn_mask is not None and not isinstance(attn_mask, CausalBias):
        reason, over_pairs = _over_pairs(attn_mask, (*shape[:-1], key.shape[-2]))
    if reason is not None:
        if fallback is None:
            raise Unsupported(f'{reason} (fallback="torch" runs PyTorch\'s own)')
        return in_torch(reason)
    causal = "top_left" if is_causal else _causal_of(attn_mask)
    try:
        options = option_values(causal, None, scale, None, matmul_precision(), None)
        parts = None
        if over_pairs is not None or dropout_p != 0.0:
            kind = "bias" if over_pairs is None or over_pairs.dtype != torch.bool else "mask"
            masks = {"mask": None, "bias": None, kind: over_pairs}
            parts = parts_of_tensors(**masks, dropout=dropout_p)
        operands = _autocast(operands)
        if parts is None:
            o, _ = attention_forward(*operands, *options)
        else:
            o, _ = attention_with_parts(*operands, parts, options)
    except (InvalidArgument, Unsupported) as error:  # of this device, or of ingot alone
        if fallback is None:
            raise
        return in_torch(str(error))
    return o if o.shape == shape else o.reshape(shape)


def _causal_of(mask):
    """The alignment of a CausalBias; None of any other mask."""
    if not isinstance(mask, CausalBias):
        return None
    return "top_left" if mask.variant == CausalVariant.UPPER_LEFT else "bottom_right"


def _unsupported(operands, attn_mask, dropout_p, is_causal, scale):
    """Why ingot cannot run this, or None. Shapes are looked at afterwards."""
    for name, x in zip(("query", "key", "value"), operands, strict=True):
        if not isinstance(x, torch.Tensor):
            return f"{name}: must be a torch.Tensor, got {type(x).__name__}"
        if x.is_nested:
            return f"{name}: must not be a nested tensor"
        if x.dim() < 2:
            return f"{name}: must have at least 2 dimensions, got {x.dim()}"
    query, key, value = operands
    if attn_mask is not None:
        reason = _unsupported_mask(attn_mask, query, key)
        if reason is None and is_causal:
            reason = "attn_mask: must be None with is_causal"
        if reason is not None:
            return reason
    if not _is_probability(dropout_p):
        return f"dropout_p: must be 0 or from 2^-16 to 1 - 2^-16, got {dropout_p}"
    if scale == 0:
        return f"scale: must not be 0, got {scale}"
    if query.device.type not in _DEVICES:
        return f"query: must be on a CPU, CUDA or MPS device, got {query.device}"
    if query.dtype not in _DTYPES:
        return f"query.dtype: must be a floating-point type of 16, 32 or 64 bits, got {query.dtype}"
    if query.dtype == torch.float64 and query.device.type not in ("cpu", "meta"):
        return "query.dtype: must be of 16 or 32 bits on a GPU, got torch.float64"
    if not 0 < query.shape[-1] <= 1024 or not 0 < value.shape[-1] <= 1024:
        return f"head_dim: must be from 1 to 1024, got {query.shape[-1]} and {value.shape[-1]}"
    return None


def _unsupported_mask(mask, query, key):
    if isinstance(mask, CausalBias):
        lengths = (query.shape[-2], key.shape[-2])
        if (mask.seq_len_q, mask.seq_len_kv) != lengths:
            return f"attn_mask: must be of {lengths[0]} queries and {lengths[1]} keys"
        return None
    if not isinstance(mask, torch.Tensor):
        return f"attn_mask: must be None, a tensor or a CausalBias, got a {type(mask).__name__}"
    if mask.is_nested or mask.layout is not torch.strided:
        return "attn_mask: must be a dense tensor"
    if mask.device != query.device:
        return f"attn_mask: must be on the device of query, {query.device}, got {mask.device}"
    if mask.dtype not in _MASKS:
        return f"attn_mask.dtype: must be bool, float32, float16 or bfloat16, got {mask.dtype}"
    return None


def _is_probability(number):
    try:
        return not isinstance(number, bool) and isinstance(dropout_of(number), float)
    except InvalidArgument:
        return False


def _over_pairs(mask, full):
    """(None, a mask of two to four dimensions for operands with four), or (why not, None). full:
    what it must broadcast to, of as many dimensions as the operands had."""
    missing = len(full) - mask.dim()
    shape = (1,) * missing + tuple(mask.shape)
    if missing < 0 or any(n not in (1, m) for n, m in zip(shape, full, strict=True)):
        text = f"attn_mask.shape: must broadcast to {tuple(full)}, got {tuple(mask.shape)}"
        return text, None
    if len(full) > 4:
        mask = mask.reshape(shape)
        if any(n != 1 for n in shape[:-3]):
            mask = mask.expand(*full[:-3], *shape[-3:])
        return None, mask.flatten(0, -4)
    return None, mask if mask.dim() >= 2 else mask.reshape(shape)


def _aligned(operands, enable_gqa):
    """(None, shape of the result, q, k and v with four dimensions), or (why not, None, None).

    PyTorch broadcasts all dimensions but the last two, in GQA all but the last three."""
    leads = [x.shape[:-2] for x in operands]
    lead = leads[0]
    if not _as_ingot_has_it(*leads, enable_gqa):
        lead, leads, reason = _broadcast(leads, enable_gqa)
        if reason is not None:
            return reason, None, None
        operands = [
            _as_4d(x.expand(*one, *x.shape[-2:])) for x, one in zip(operands, leads, strict=True)
        ]
    query, _, value = operands
    return None, (*lead, query.shape[-2], value.shape[-1]), operands


def _as_ingot_has_it(lead_q, lead_k, lead_v, enable_gqa):
    """One batch and heads that fit: the common case, in which there is nothing to do."""
    if not len(lead_q) == len(lead_k) == 2 or lead_k != lead_v or lead_q[0] != lead_k[0]:
        return False
    heads, heads_kv = lead_q[1], lead_k[1]
    return heads > 0 and (heads_kv == heads or enable_gqa and heads_kv and heads % heads_kv == 0)


def _broadcast(leads, enable_gqa):
    """(the leading dimensions of the result, those of each operand, None) or (.., .., why not).
    Key heads stay as few as they are: one may serve all query heads."""
    all_heads = [lead[-1] if len(lead) > 0 else 1 for lead in leads]
    if min(all_heads) < 1:
        return None, None, f"query, key, value: must have heads, got {tuple(all_heads)}"
    heads, heads_kv, heads_v = all_heads
    common = _common(leads) if not enable_gqa else _common([lead[:-1] for lead in leads])
    if enable_gqa and (heads_kv != heads_v or heads % heads_kv != 0):
        return None, None, f"key, value: must have a divisor of {heads} heads, got {all_heads[1:]}"
    if common is None:
        shapes = ", ".join(str(tuple(lead)) for lead in leads)
        rule = "leading dimensions that broadcast (enable_gqa: but for the heads)"
        return None, None, f"query, key, value: must have {rule}, got {shapes}"
    if enable_gqa:
        batch = common
    else:
        batch, heads = common[:-1], common[-1] if common else 1
        heads_kv = heads_kv if heads_kv == heads_v else heads
    of_q, of_kv = (*batch, heads), (*batch, heads_kv)
    return of_q if any(leads) else (), (of_q, of_kv, of_kv), None


def _common(shapes):
    """The shape that all broadcast to, or None."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    common = ()
    for sizes in zip(*padded, strict=True):
        wide = [size for size in sizes if size != 1]
        if any(size != wide[0] for size in wide):
            return None
        common += (wide[0] if wide else 1,)
    return common


def _as_4d(x):
    if x.dim() == 4:
        return x
    if x.dim() == 3:
        return x.unsqueeze(0)
    return x.flatten(0, -4)


def _autocast(operands):
    """The operands as PyTorch's autocast hands them to its own attention."""
    device = operands[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return operands
    dtype = torch.get_autocast_dtype(device)
    return [
        x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in operands
    ]


class _Entered:
    """An sdpa() that has been entered and not been left."""

    def __init__(self, fallback):
        self.fallback = fallback


_entered = ()  # replaced, never changed: calls read it without the lock
_before = (_torch_sdpa, True)  # what was there: the function, and whether the fast path was on


def _routed(*args, **kwargs):
    entered = _entered
    if not entered:  # somebody has kept this function
        return _before[0](*args, **kwargs)
    return scaled_dot_product_attention(*args, fallback=entered[-1].fallback, **kwargs)


@contextlib.contextmanager
def sdpa(fallback=None):
    """torch.nn.functional.scaled_dot_product_attention is ingot's while this context is entered, in
    all threads; contexts may overlap, the one entered last decides on the fallback. fallback as in
    scaled_dot_product_attention.

    PyTorch's fused inference path of nn.TransformerEncoder and nn.MultiheadAttention, which does
    not call that function, is off meanwhile (torch.backends.mha). Not routed is what has been
    imported by name before (from torch.nn.functional import scaled_dot_product_attention)."""
    check_fallback(fallback)
    entry = _Entered(fallback)
    _enter(entry)
    try:
        yield
    finally:
        _leave(entry)


def _enter(entry):
    global _entered, _before
    functional, mha = torch.nn.functional, torch.backends.mha
    with _lock:
        if not _entered:
            if functional.scaled_dot_product_attention is not _routed:
                _before = (functional.scaled_dot_product_attention, _before[1])
            _before = (_before[0], mha.get_fastpath_enabled())
            mha.set_fastpath_enabled(False)
            functional.scaled_dot_product_attention = _routed
        _entered = (*_entered, entry)


def _leave(entry):
    global _entered
    functional = torch.nn.functional
    with _lock:
        _entered = tuple(other for other in _entered if other is not entry)
        if _entered:
            return
        torch.backends.mha.set_fastpath_enabled(_before[1])
        if functional.scaled_dot_product_attention is _routed:  # else another's, over this one
            functional.scaled_dot_product_attention = _before[0]
