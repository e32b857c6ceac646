"""The parts of the score and of the softmax that have inputs of their own, as people give them."""

from typing import Any, NamedTuple

from ingot._errors import InvalidArgument
from ingot._options import as_float, integer, shown

_LEAST = 2.0**-16  # weights are dropped by numbers of 16 bits
ELEMENTS = {
    "alibi_slopes": "number",
    "bias": "number",
    "mask": "boolean",
    "sinks": "number",
    "prefix_len": "int32",
}
"""The arrays in the order of Parts, and what each holds."""


class Parts(NamedTuple):
    """What _core takes."""

    alibi_slopes: Any
    bias: Any
    mask: Any
    sinks: Any
    prefix_len: Any
    dropout: float
    seed: Any  # with its offset and state: whatever the door makes of them
    offset: int = 0
    state: int = 0

    @property
    def arrays(self):
        return self[:5]


def parts_of(mask, bias, alibi_slopes, sinks, dropout, seed, prefix_len, draw=None):
    """Parts, or None where all are off. draw: makes the seed if there is dropout and none is given;
    None: that raises."""
    arrays = (alibi_slopes, bias, mask, sinks, prefix_len)
    dropout = dropout_of(dropout)
    numbers = (0, 0) if seed is None else seed_pair(seed)
    if dropout and seed is None:
        if draw is None:
            raise InvalidArgument("seed: must be given with dropout, got None")
        numbers = draw()
    if not dropout and all(x is None for x in arrays):
        return None
    return Parts(*arrays, dropout, *numbers)


def dropout_of(dropout, name="dropout"):
    """The probability as a float; None is 0. name: of the argument."""
    if dropout is None:
        return 0.0
    number = dropout if type(dropout) is float else as_float(name, dropout)
    if number != 0.0 and not _LEAST <= number <= 1 - _LEAST:
        raise InvalidArgument(f"{name}: must be 0 or from 2^-16 to 1 - 2^-16, got {shown(dropout)}")
    return number


def seed_pair(seed):
    """(seed, offset), each of 64 bits without a sign."""
    pair = seed if isinstance(seed, tuple | list) else (seed, 0)
    if len(pair) != 2:
        raise InvalidArgument(
            f"seed: must be an integer or a pair (seed, offset) of integers, got {shown(seed)}"
        )
    numbers = [integer("seed", x, bits=128) for x in pair]
    if min(numbers) < 0 or max(numbers) >= 2**64:
        raise InvalidArgument(f"seed: must be from 0 to 2^64 - 1, got {shown(seed)}")
    return tuple(numbers)


def wanted_gradients(parts, bias_grad, sinks_grad):
    """The two as booleans; what has no input has no gradient."""
    for name, wanted, x in (
        ("bias_grad", bias_grad, parts and parts.bias),
        ("sinks_grad", sinks_grad, parts and parts.sinks),
    ):
        if not isinstance(wanted, bool):
            raise InvalidArgument(f"{name}: must be True or False, got {shown(wanted)}")
        if wanted and x is None:
            of = name.removesuffix("_grad")
            raise InvalidArgument(f"{name}: must be False without {of}, got True")
    return bias_grad, sinks_grad
