"""Which keys each query of a mask sees, as one range for each query.

transformers says a mask in three ways: as a predicate over (batch, head, query, key) with offsets,
as a tensor of padding (batch, keys), and as a tensor (batch, heads, queries, keys). All become
Rows; a mask that cannot be said so raises Unstructured with the place where it fails: it is
computed as the tensor that it is.
"""

from typing import NamedTuple

import numpy as np
import torch
from transformers import masking_utils

from ingot._errors import InvalidArgument, Unsupported

UNBOUNDED = 1 << 62
_BLOCK = 1 << 22  # booleans of a predicate that are looked at at a time


class Unstructured(Unsupported):
    """A mask that is no range of keys for each query."""


class Rows(NamedTuple):
    """Entry b, query i sees those of the keys in `keys[b]` that are number first[b, i] to
    end[b, i] - 1 of them. One entry stands for the whole batch."""

    first: np.ndarray  # (entries, queries) of numbers
    end: np.ndarray
    keys: np.ndarray  # (entries, all keys) of booleans
    own: int  # query i stands at key i + own: masks mostly bend where a query sees itself or not

    @property
    def shape(self):
        return (*self.first.shape, self.keys.shape[1])


def bounds_of(mask_function):
    """(left, right) of a predicate that is key >= query - left and key <= query + right; None if it
    is not known to be one. A predicate of transformers itself is known by its code."""
    if mask_function is masking_utils.causal_mask_function:
        return UNBOUNDED, 0
    if mask_function is masking_utils.bidirectional_mask_function:
        return UNBOUNDED, UNBOUNDED
    code = getattr(mask_function, "__code__", None)
    if code is None or code not in _KNOWN:
        return None
    variables = zip(code.co_freevars, mask_function.__closure__, strict=True)
    return _KNOWN[code](**{name: cell.cell_contents for name, cell in variables})


def _bounds_of_all(mask_functions):
    bounds = [bounds_of(function) for function in mask_functions]
    if None in bounds:
        return None
    return min(left for left, _ in bounds), min(right for _, right in bounds)


_KNOWN = {
    masking_utils.and_masks().__code__: _bounds_of_all,
    masking_utils.sliding_window_overlay(1).__code__: lambda sliding_window: (
        sliding_window - 1,
        UNBOUNDED,
    ),
    masking_utils.sliding_window_bidirectional_overlay(1).__code__: lambda sliding_window: (
        sliding_window,
        sliding_window,
    ),
}


def rows_of_bounds(bounds, queries, keys, own, padding=None):
    """Rows of a predicate with known bounds, without those keys that `padding` (entries, keys)
    has False."""
    seen = np.ones((1, keys), bool) if padding is None else padding.cpu().numpy()
    position = np.arange(queries) + own
    left, right = bounds
    first = np.zeros(queries, np.int64) if left >= UNBOUNDED else (position - left).clip(0, keys)
    end = np.full(queries, keys) if right >= UNBOUNDED else (position + right + 1).clip(0, keys)
    number = _numbers(seen)
    return _clean(Rows(number[:, first], number[:, end], seen, own))


def rows_of_predicate(arguments, mask_function, padding):
    """Rows of any predicate, evaluated as transformers does for sdpa; arguments are those of a mask
    function of transformers."""
    queries, keys = arguments["q_length"], arguments["kv_length"]
    offset, batch = arguments["q_offset"], arguments["batch_size"]

    def block(start, stop):
        changed = {"q_length": stop - start, "q_offset": offset + start, "attention_mask": padding}
        seen = masking_utils.sdpa_mask(
            **{**arguments, **changed},
            mask_function=mask_function,
            allow_is_causal_skip=False,
            allow_is_bidirectional_skip=False,
        )
        return seen.expand(batch, -1, -1, -1)[:, 0]

    return _scan(block, batch, queries, keys, offset - arguments["kv_offset"])


def booleans_of(rows, device):
    """The (entries, 1, queries, keys) mask that the rows say."""
    number = rows.keys.cumsum(1)[:, None, :] - 1
    seen = (rows.first[..., None] <= number) & (number < rows.end[..., None])
    return torch.from_numpy(seen & rows.keys[:, None, :]).unsqueeze(1).to(device)


def over_pairs(mask, queries, keys):
    """A (batch, heads, queries, keys) mask as ingot's arguments say it: True, or 0 of a
    floating-point type, where a pair is seen, and False, or a number that no score outweighs, where
    not, is {"mask": booleans}; other numbers are {"bias": numbers}."""
    mask = _expanded(mask, queries, keys)
    if mask.dtype == torch.bool:
        return {"mask": mask}
    if not mask.is_floating_point():
        raise Unsupported(f"attention_mask: must be of booleans or floats, got {mask.dtype}")
    seen = None if mask.requires_grad else _as_booleans(mask)
    return {"bias": mask} if seen is None else {"mask": seen}


def rows_of_tensor(seen):
    """Rows of a (batch, heads, queries, keys) mask of booleans."""
    if seen.shape[1] > 1 and not (seen == seen[:, :1]).all():
        raise Unstructured("attention_mask: must be the same for all heads, got one that differs")
    batch, _, queries, keys = seen.shape
    block = lambda start, stop: seen[:, 0, start:stop]  # noqa: E731
    return _scan(block, batch, queries, keys, keys - queries)


def _expanded(mask, queries, keys):
    if mask.dim() != 4:
        raise Unsupported(
            "attention_mask: must be None, a (batch, keys) mask of padding or a (batch, heads, "
            f"queries, keys) mask, got {mask.dim()} dimensions"
        )
    try:
        return mask.expand(-1, -1, queries, keys)
    except RuntimeError:
        raise InvalidArgument(
            f"attention_mask: must be for {queries} queries and {keys} keys, got "
            f"{mask.shape[2]} and {mask.shape[3]}"
        ) from None


def _as_booleans(mask):
    """Where a mask is 0; None if it has numbers that are neither 0 nor hide a pair."""
    seen = mask == 0
    # The least number of float16: what is added to a score then leaves no weight beside it.
    return seen if (seen | (mask <= torch.finfo(torch.float16).min)).all() else None


def _scan(block, batch, queries, keys, own):
    """Rows of the booleans (batch, stop - start, keys) that block(start, stop) returns."""
    if 0 in (batch, queries, keys):
        nothing = np.zeros((batch, queries), np.int64)
        return Rows(nothing, nothing, np.zeros((batch, keys), bool), own)
    step = max(1, _BLOCK // (batch * keys))
    found = [_ranges(block(start, min(start + step, queries))) for start in range(0, queries, step)]
    seen = torch.stack([used for _, used in found]).any(0).cpu().numpy()
    first, last, count = torch.cat([ranges for ranges, _ in found], 1).cpu().numpy().T
    number = _numbers(seen)
    entries = np.arange(batch)[:, None]
    rows = _clean(Rows(number[entries, first.T], number[entries, last.T], seen, own))
    wrong = np.argwhere(rows.end - rows.first != count.T)
    if len(wrong):
        entry, query = wrong[0]
        raise Unstructured(
            "attention_mask: each query must see keys that follow one another, got "
            f"{count.T[entry, query]} of the keys {first.T[entry, query]} to "
            f"{last.T[entry, query] - 1} for query {query} of entry {entry}"
        )
    return rows


def _ranges(seen):
    """(entries, queries, 3): the first key that is seen, the end, how many; and the keys that some
    query sees."""
    keys = seen.shape[2]
    number = torch.arange(keys, device=seen.device, dtype=torch.int32)
    first = torch.where(seen, number, keys).amin(-1)
    end = torch.where(seen, number + 1, 0).amax(-1)
    return torch.stack((first, end, seen.sum(-1, dtype=torch.int32)), -1), seen.any(1)


def _numbers(seen):
    """How many keys are seen before each one, and in all."""
    return np.pad(seen.cumsum(1), ((0, 0), (1, 0)))


def _clean(rows):
    """Queries that see nothing have the range 0 to 0."""
    some = rows.end > rows.first
    return rows._replace(first=np.where(some, rows.first, 0), end=np.where(some, rows.end, 0))
