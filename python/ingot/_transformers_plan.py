"""From the ranges of keys that the queries of a mask see to calls of ingot.

Queries that follow one another and see keys between two lines are one part: the lines are its
window, counted from the part's last query and key as ingot counts them. Parts with one window that
have no key in common are one call of ragged_attention.
"""

from typing import NamedTuple

import numpy as np
import torch

from ingot._errors import Internal
from ingot._options import option_values
from ingot._torch_parts import parts_of_tensors
from ingot._transformers_rows import UNBOUNDED, Unstructured, rows_of_tensor
from ingot.torch import attention, ragged_attention

_MOST_CALLS = 256  # of a mask: beyond, PyTorch's own is faster


class Part(NamedTuple):
    """What attends to what; pairs are (first, end). left and right are (least, most) of the keys
    before and behind its own position that a query sees: any number between gives the same pairs.
    columns: the keys by number where they have gaps, and `keys` counts these; else None."""

    entries: tuple
    queries: tuple
    keys: tuple
    left: tuple
    right: tuple
    columns: np.ndarray | None


class Plan(NamedTuple):
    shape: tuple  # (entries, queries, keys); one entry stands for the whole batch
    calls: list  # of Call


def plan_of(rows):
    """The Plan of Rows."""
    parts = []
    for first, end in _alike(rows):
        columns = np.flatnonzero(rows.keys[first])
        start = int(columns[0]) if len(columns) else 0
        gaps = len(columns) and columns[-1] + 1 - start != len(columns)
        for queries, keys, left, right in _parts_of(rows, first):
            if not gaps:
                keys = (keys[0] + start, keys[1] + start)
            columns_of_part = columns if gaps else None
            parts.append(Part((first, end), queries, keys, left, right, columns_of_part))
    calls = _calls_of(parts)
    if len(calls) > _MOST_CALLS:
        raise Unstructured(
            f"attention_mask: must fall into at most {_MOST_CALLS} parts that see the same keys, "
            f"got {len(calls)}"
        )
    _check(rows, calls)
    return Plan(rows.shape, calls)


def _check(rows, calls):
    """That the calls compute the rows and nothing else, from what a call's options mean."""
    first, end = np.zeros_like(rows.first), np.zeros_like(rows.end)
    for call in calls:
        left, right = call.sides()
        for part in call.parts:
            (start, stop), (begin, most) = part.queries, part.keys
            if part.columns is None:  # count those before that are seen
                begin, most = (int(rows.keys[part.entries[0], :x].sum()) for x in (begin, most))
            position = np.arange(start, stop) - stop + most
            where = (slice(*part.entries), slice(start, stop))
            if end[where].any():
                raise Internal("attention_mask: a query is computed twice")
            first[where] = begin if left is None else np.maximum(begin, position - left)
            end[where] = most if right is None else np.minimum(most, position + right + 1)
    if not (np.array_equal(first, rows.first) and np.array_equal(end, rows.end)):
        raise Internal("attention_mask: its parts do not give the mask again")


def _alike(rows):
    """(first, end) of entries side by side that see the same."""
    same = np.ones(len(rows.first) - 1, bool)
    for x in (rows.first, rows.end, rows.keys):
        same &= (x[1:] == x[:-1]).all(1)
    starts = [0, *(np.flatnonzero(~same) + 1).tolist(), len(rows.first)]
    return zip(starts[:-1], starts[1:], strict=True)


def _parts_of(rows, entry):
    """(queries, keys, left, right) of the parts of one entry."""
    first, end = rows.first[entry], rows.end[entry]
    parts = []
    pieces, fit = [], None
    for piece, joins in _pieces_of(rows, entry):
        if pieces and joins:
            both = _fit(first, end, [*pieces, piece])
            if both is not None:
                pieces, fit = [*pieces, piece], both
                continue
        if fit is not None:
            parts.append(fit)
        pieces, fit = [], None
        if end[piece[0]] > 0:
            # The lines begin at the piece's first query, so that is a piece of its own.
            pieces = [(piece[0], piece[0])] + [(piece[0] + 1, piece[1])] * (piece[1] > piece[0])
            fit = _fit(first, end, pieces)
    if fit is not None:
        parts.append(fit)
    return parts


def _pieces_of(rows, entry):
    """((first, last), whether it may join the piece before): queries that follow one another and
    whose ranges move alike, by 0 or 1 on either side."""
    first, end = rows.first[entry], rows.end[entry]
    if len(first) == 0:
        return
    yield (0, 0), False
    if len(first) == 1:
        return
    some = end > first
    own = _own(rows, entry)
    steps = np.diff(first), np.diff(end)
    joins = some[1:] & some[:-1]
    for step in steps:
        joins &= (step == 0) | (step == 1)
    bends = own[1:] != own[:-1]
    kind = np.where(joins & ~bends, steps[0] + 2 * steps[1], -1 - np.arange(len(joins)))
    kind[~some[1:] & ~some[:-1]] = 4
    starts = [0, *(np.flatnonzero(kind[1:] != kind[:-1]) + 1).tolist()]
    for start, stop in zip(starts, [*starts[1:], len(kind)], strict=True):
        piece = (start + 1, stop)
        full = bool(joins[start]) and steps[0][start] == 0 and steps[1][start] == 0
        yield piece, bool(joins[start]) and (not bends[start] or (full and _is_full(rows, entry)))


def _is_full(rows, entry):
    """Whether all queries of the entry that see anything see the same, so that nothing bends."""
    some = rows.end[entry] > 0
    return all(len(np.unique(x[entry][some])) == 1 for x in (rows.first, rows.end))


def _own(rows, entry):
    """Whether each query sees the key at its own position."""
    queries, keys = len(rows.first[entry]), rows.keys[entry]
    position = np.arange(queries) + rows.own
    inside = (position >= 0) & (position < len(keys))
    position = np.where(inside, position, 0)
    if len(keys) == 0:
        return inside
    number = keys.cumsum()[position] - 1
    seen = (rows.first[entry] <= number) & (number < rows.end[entry])
    return inside & keys[position] & seen


def _fit(first, end, pieces):
    """((first query, end), (first key, end), left, right) of these pieces, if they are one part."""
    last = pieces[-1][1]
    begin, stop = int(first[pieces[0][0]]), int(end[last])
    left, right = (0, UNBOUNDED), (0, UNBOUNDED)
    for piece in pieces:
        for query in piece:  # between them the ranges move evenly
            position = stop - 1 - (last - query)
            left = _narrow(left, position - int(first[query]), first[query] > begin)
            right = _narrow(right, int(end[query]) - 1 - position, end[query] < stop)
    if left[0] > left[1] or right[0] > right[1]:
        return None
    return (pieces[0][0], last + 1), (begin, stop), left, right


def _narrow(between, number, exactly):
    least, most = between
    return max(least, number), min(most, number) if exactly else most


def _calls_of(parts):
    """Parts that can share a call, which has one window and takes parts in ascending order."""
    calls = []
    for part in parts:
        for call in calls:
            if _joins(call, part):
                call.parts.append(part)
                call.left, call.right = _meet(call.left, part.left), _meet(call.right, part.right)
                break
        else:
            calls.append(Call(part))
    return calls


class Call:
    """Parts that one call of ingot computes, under one window."""

    def __init__(self, part):
        self.parts, self.left, self.right = [part], part.left, part.right

    def sides(self):
        """The window's left and right. If no bound would do, that is the cheaper one."""
        return [None if most >= UNBOUNDED else most for _, most in (self.left, self.right)]

    def options(self):
        """The window as ingot's arguments say it."""
        left, right = self.sides()
        causal = "bottom_right" if right == 0 else None
        bounded = left is not None or (right is not None and not causal)
        return {"causal": causal, "window": (left, right) if bounded else None}

    def blocks(self, entries):
        """What ragged_attention takes."""
        return [
            number
            for part in self.parts
            for pair in (entries or part.entries, part.queries, part.keys)
            for number in pair
        ]


def _meet(a, b):
    return max(a[0], b[0]), min(a[1], b[1])


def _joins(call, part):
    before = call.parts[-1]
    if before.columns is not None or part.columns is not None:
        return False
    sides = _meet(call.left, part.left), _meet(call.right, part.right)
    if any(least > most for least, most in sides):
        return False
    if part.entries[0] >= before.entries[1]:
        return True
    return (
        part.entries == before.entries
        and part.queries[0] >= before.queries[1]
        and part.keys[0] >= before.keys[1]
    )


def plan_of_tensor(seen):
    """The Plan of a (batch, heads, queries, keys) mask of booleans; None if it has no structure."""
    try:
        return plan_of(rows_of_tensor(seen))
    except Unstructured:
        return None


def takes_parts(plan):
    """Whether attend() is one call for all queries, to which the parts of the score can be
    added."""
    return len(plan.calls) == 1 and _is_whole(plan, plan.calls[0].parts)


def attend(plan, query, key, value, options, parts=None):
    """(batch, heads, queries, head_dim_v): attention under the plan. A query that sees nothing has
    the output 0. parts: bias, sinks and dropout, if takes_parts(plan)."""
    batch = query.shape[0]
    if takes_parts(plan):
        parts = parts or {}
        first, end = plan.calls[0].parts[0].keys
        if (first, end) != (0, key.shape[2]):
            key, value = key[:, :, first:end], value[:, :, first:end]
            if "bias" in parts and parts["bias"].shape[-1] > 1:
                parts = parts | {"bias": parts["bias"][..., first:end]}
        return attention(query, key, value, **plan.calls[0].options(), **options, **parts)
    sums, rest = None, None
    for call in plan.calls:
        if call.parts[0].columns is None:
            blocks = call.blocks(_everywhere(plan, batch))
            o = ragged_attention(query, key, value, blocks, **call.options(), **options)
            sums = o if sums is None else sums + o
            continue
        if rest is None:
            rest = query.new_zeros((*query.shape[:3], value.shape[3]))
        entries, rows, cols = _places(plan, call.parts[0], query)
        q, k, v = query[entries, :, rows], key[entries, :, cols], value[entries, :, cols]
        rest[entries, :, rows] = attention(q, k, v, **call.options(), **options)
    if sums is None and rest is None:
        return ragged_attention(query, key, value, [], **options)
    return sums + rest if sums is not None and rest is not None else sums if rest is None else rest


def differentiate(plan, query, key, value, dout, options):
    """dq, dk and dv of attend, without autograd: the outputs are computed again."""
    gradients = [torch.zeros_like(x) for x in (query, key, value)]
    ops = torch.ops.ingot
    for call in plan.calls:
        numbers = option_values(**call.options(), **options, workspace_limit=None)
        tensors = (query, key, value)
        if call.parts[0].columns is None:
            blocks = call.blocks(_everywhere(plan, query.shape[0]))
            saved = ops.attention_ragged_forward(*tensors, blocks, *numbers)
            found = ops.attention_ragged_backward(*tensors, *saved, dout, blocks, *numbers)
            for gradient, x in zip(gradients, found, strict=True):
                gradient += x
            continue
        entries, rows, cols = _places(plan, call.parts[0], query)
        places = [(entries, slice(None), x) for x in (rows, cols, cols)]
        tensors = [x[place] for x, place in zip(tensors, places, strict=True)]
        saved = ops.attention_forward(*tensors, *numbers)
        found = ops.attention_backward(*tensors, *saved, dout[places[0]], *numbers)
        for gradient, place, x in zip(gradients, places, found, strict=True):
            gradient[place] += x
    return tuple(gradients)


def differentiate_over_pairs(over_pairs, query, key, value, dout, options):
    """dq, dk and dv of attention with a mask or a bias, without autograd."""
    ops, tensors = torch.ops.ingot, (query, key, value)
    numbers = option_values(causal=None, window=None, **options, workspace_limit=None)
    parts = parts_of_tensors(**over_pairs)
    given = (*parts.arrays, None, 0.0)
    saved = ops.attention_parts_forward(*tensors, *given, *numbers)
    found = ops.attention_parts_backward(*tensors, *saved, dout, *given, False, False, *numbers)
    return tuple(found[:3])


def _everywhere(plan, batch):
    return (0, batch) if plan.shape[0] == 1 else None


def _places(plan, part, query):
    """Entries, queries and keys of a part with gaps, as indices of tensors."""
    entries = _everywhere(plan, query.shape[0]) or part.entries
    cols = torch.from_numpy(part.columns[slice(*part.keys)]).to(query.device)
    return slice(*entries), slice(*part.queries), cols


def _is_whole(plan, parts):
    entries, queries, _ = plan.shape
    only = parts[0]
    return (
        len(parts) == 1
        and only.columns is None
        and only.entries == (0, entries)
        and only.queries == (0, queries)
    )
