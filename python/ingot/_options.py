"""Options as people write them, and as the C interface takes them."""

from ingot._errors import InvalidArgument

_CAUSAL = {None: 0, False: 0, "none": 0, "top_left": 1, "bottom_right": 2}
_PRECISION = {None: 0, "highest": 0, "high": 1}


def causal_code(causal):
    """An ingot_causal. True has two meanings in the field, so it has none here."""
    try:
        return _CAUSAL[causal]
    except (KeyError, TypeError):
        raise InvalidArgument(
            f'causal: must be None, "top_left" or "bottom_right", got {causal!r}'
        ) from None


def window_pair(window):
    """(left, right) with -1 for unbounded."""
    try:
        left, right = window
        pair = tuple(-1 if side is None else int(side) for side in (left, right))
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"window: must be None or a pair (left, right) of numbers or None, got {window!r}"
        ) from None
    return pair


def precision_code(precision):
    """An ingot_precision."""
    try:
        return _PRECISION[precision]
    except (KeyError, TypeError):
        raise InvalidArgument(
            f'precision: must be None, "highest" or "high", got {precision!r}'
        ) from None


def option_values(causal, window, scale, softcap, precision, workspace_limit):
    """The numbers that _core takes: causal, window_left, window_right, scale, softcap, precision
    and workspace_limit. Of the factors and the limit 0 means the default, which is why one that is
    given may not be 0."""
    factors = (("scale", scale), ("softcap", softcap), ("workspace_limit", workspace_limit))
    for name, factor in factors:
        if factor == 0:
            raise InvalidArgument(
                f"{name}: must not be 0 (leave it out for the default), got {factor}"
            )
    left, right = (-1, -1) if window is None else window_pair(window)
    return (
        causal_code(causal),
        left,
        right,
        0.0 if scale is None else float(scale),
        0.0 if softcap is None else float(softcap),
        precision_code(precision),
        0 if workspace_limit is None else int(workspace_limit),
    )
