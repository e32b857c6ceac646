"""Options as people write them, and as the C interface takes them."""

from ingot._errors import InvalidArgument

_CAUSAL = {None: 0, False: 0, "none": 0, "top_left": 1, "bottom_right": 2}


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
