"""Small problems for the tests of torch.ops.ingot.*: plain and ragged attention."""

import ingot.torch
import pytest
import torch

OPTIONS = (2, -1, -1, 0.0, 0.0, 0, 0)
# Entries 0 and 1 with their first 3 queries and 5 keys, nothing of entry 2.
BLOCKS = [0, 2, 0, 3, 0, 5]
KINDS = {
    "plain": (torch.ops.ingot.attention_forward, torch.ops.ingot.attention_backward, ()),
    "ragged": (
        torch.ops.ingot.attention_ragged_forward,
        torch.ops.ingot.attention_ragged_backward,
        (BLOCKS,),
    ),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def operands(requires_grad=False, dtype=torch.float32, samples=()):
    """Three entries, 4 heads of queries and 2 of keys."""
    generator = torch.Generator().manual_seed(5)
    shapes = ((3, 4, 4, 16), (3, 2, 6, 16), (3, 2, 6, 8))
    return [
        torch.randn(*samples, *shape, generator=generator).to(dtype).requires_grad_(requires_grad)
        for shape in shapes
    ]


def function_of(kind):
    """o of q, k, v."""
    if kind == "plain":
        return lambda q, k, v: ingot.torch.attention(q, k, v, causal="bottom_right")
    return lambda q, k, v: ingot.torch.ragged_attention(q, k, v, BLOCKS, causal="bottom_right")
