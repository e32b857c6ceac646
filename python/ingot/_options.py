"""Options as people write them, and as the C interface takes them."""

import operator

from ingot._errors import InvalidArgument, Unsupported

_CAUSAL = {None: 0, False: 0, "none": 0, "top_left": 1, "bottom_right": 2}
_PRECISION = {None: 0, "highest": 0, "high": 1}
_LEAST, _MOST = 9.99999991e-38, 1e37  # what float32 rounds to the 1e-37 and 1e37 of the library

# What other packages' functions have: the argument of ingot that does it, or None.
_OTHER_NAMES = {
    "is_causal": 'causal="top_left"',
    "softmax_scale": "scale",
    "sm_scale": "scale",
    "window_size": "window",
    "sliding_window": "window",
    "local_window_size": "window",
    "logits_soft_cap": "softcap",
    "enable_gqa": "fewer heads in k and v",
    "return_attn_probs": "return_lse",
    "return_residual": "return_lse",
    "attention_mask": "mask (booleans) or bias (numbers)",
    "attn_mask": "mask (booleans) or bias (numbers)",
    "attn_bias": "bias",
    "position_bias": "bias",
    "alibi": "alibi_slopes",
    "dropout_p": "dropout",
    "dropout_rate": "dropout",
    "s_aux": "sinks",
    "learnable_sink": "sinks",
    **dict.fromkeys("block_mask block_table cu_seqlens score_mod".split()),
}


_PARTS = ("mask", "bias", "alibi_slopes", "sinks", "dropout", "seed", "prefix_len")


def refuse_unknown(unknown, has_parts=True):
    """Raises for the arguments that a function of ingot does not have, by name what it has.
    has_parts: whether it takes the parts of the score."""
    for name in unknown:
        if name in _PARTS:
            raise Unsupported(f"{name}: must be left out, parts of a batch have no such thing yet")
        instead = _OTHER_NAMES.get(name, "")
        if instead is None:
            raise Unsupported(f"{name}: must be left out, ingot has nothing of the kind yet")
        hint = f"; {instead} does it" if instead else ""
        raise InvalidArgument(
            f"{name}: must be one of causal, window, scale, softcap, precision, "
            f"{', '.join((*_PARTS, '')) * has_parts}workspace_limit, return_lse and device, got "
            f"another name{hint}"
        )


def shown(value):
    """The value in one line of some length."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of the value's own, or an integer of too many digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 100 else text[:97] + "..."


def integer(name, value, bits=64):
    """The value as an int that C's type of so many bits has."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except Exception:
        raise InvalidArgument(f"{name}: must be an integer, got {shown(value)}") from None
    if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise InvalidArgument(
            f"{name}: must be an integer of {bits} bits, with its sign, got {shown(value)}"
        )
    return number


def text(name, value, rule):
    """The value if it is a str that C can have; surrogates and NUL are not printable."""
    if not isinstance(value, str) or not value.isprintable():
        raise InvalidArgument(f"{name}: must be {rule}, got {shown(value)}")
    return value


def device_name(device):
    """The name of a device that was given; whether there is such a one, C says."""
    return text("device", device, "None or a name of ingot.devices()")


def causal_code(causal):
    """An ingot_causal. True has two meanings in the field, so it has none here."""
    try:
        return _CAUSAL[causal]
    except (KeyError, TypeError):
        raise InvalidArgument(
            f'causal: must be None, "top_left" or "bottom_right", got {shown(causal)}'
        ) from None


def window_pair(window):
    """(left, right) with -1 for unbounded."""
    try:
        if isinstance(window, str | bytes | dict | set | frozenset):
            raise TypeError
        left, right = window
    except Exception:
        raise InvalidArgument(
            "window: must be None or a pair (left, right) of integers or None, "
            f"got {shown(window)}"
        ) from None
    left = -1 if left is None else integer("window_left", left)
    return left, -1 if right is None else integer("window_right", right)


def precision_code(precision):
    """An ingot_precision."""
    try:
        return _PRECISION[precision]
    except (KeyError, TypeError):
        raise InvalidArgument(
            f'precision: must be None, "highest" or "high", got {shown(precision)}'
        ) from None


def _factor(name, value):
    """The value as a float that is neither 0, which means the default in C, nor what C refuses:
    compiled functions and fallbacks learn of that before they run."""
    number = value if isinstance(value, float) else as_float(name, value)
    if number == 0:
        raise InvalidArgument(
            f"{name}: must not be 0 (leave it out for the default), got {shown(value)}"
        )
    if not _LEAST <= abs(number) <= _MOST:
        raise InvalidArgument(
            f"{name}: its magnitude must be from 1e-37 to 1e37, got {shown(value)}"
        )
    return number


def as_float(name, value):
    """A number as a float; too large an integer is infinite."""
    if getattr(value, "requires_grad", False):
        raise Unsupported(f"{name}: must not require gradients, ingot has none for it")
    try:
        if isinstance(value, bool | str | bytes | bytearray):
            raise TypeError
        return float(value)
    except OverflowError:
        return float("inf")
    except Exception:
        raise InvalidArgument(f"{name}: must be a number, got {shown(value)}") from None


def option_values(causal, window, scale, softcap, precision, workspace_limit):
    """The numbers that _core takes: causal, window_left, window_right, scale, softcap, precision
    and workspace_limit. Of the factors and the limit 0 means the default, which is why one that is
    given may not be 0."""
    left, right = (-1, -1) if window is None else window_pair(window)
    return (
        0 if causal is None else causal_code(causal),
        left,
        right,
        0.0 if scale is None else _factor("scale", scale),
        0.0 if softcap is None else _factor("softcap", softcap),
        0 if precision is None else precision_code(precision),
        0 if workspace_limit is None else _limit(workspace_limit),
    )


def _limit(workspace_limit):
    limit = integer("workspace_limit", workspace_limit)
    if limit == 0:
        raise InvalidArgument(
            "workspace_limit: must not be 0 (leave it out for the default), "
            f"got {shown(workspace_limit)}"
        )
    return limit
