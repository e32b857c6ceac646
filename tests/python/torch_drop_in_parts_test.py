"""Masks, biases and dropout of torch.nn.functional.scaled_dot_product_attention, by ingot."""

import ingot.torch
import pytest
import torch
import torch.nn.functional as F

drop_in = ingot.torch.scaled_dot_product_attention

MASKS = {
    "booleans": ((3, 4, 5, 8), lambda: torch.rand(3, 1, 5, 6) < 0.7),
    "numbers": ((3, 4, 5, 8), lambda: torch.randn(4, 5, 6)),
    "numbers of two dimensions": ((3, 4, 5, 8), lambda: torch.randn(5, 6)),
    "numbers of one dimension": ((3, 4, 5, 8), lambda: torch.randn(6)),
    "with rank 2": ((5, 8), lambda: torch.randn(5, 6)),
    "with rank 3": ((4, 5, 8), lambda: torch.randn(4, 1, 6)),
    "with rank 5": ((2, 3, 4, 5, 8), lambda: torch.randn(2, 1, 4, 5, 6)),
    "with rank 5, broadcast": ((2, 3, 4, 5, 8), lambda: torch.rand(5, 6) < 0.7),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_as_pytorch_has_them_and_their_gradients(name):
    torch.manual_seed(1)
    shape, make = MASKS[name]
    q, k, v = (torch.randn(*shape[:-2], n, 8, requires_grad=True) for n in (5, 6, 6))
    inputs, mask = [q, k, v], make()
    if mask.is_floating_point():
        inputs.append(mask.requires_grad_())
    results = []
    for function in (F.scaled_dot_product_attention, drop_in):
        o = function(q, k, v, attn_mask=mask)
        results.append([o, *torch.autograd.grad(o.square().sum(), inputs)])
    for want, got in zip(*results, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_dropout_takes_weights_and_is_repeatable():
    q, k = torch.randn(2, 2, 4, 40, 8)
    one_hot = torch.eye(40).expand(2, 4, 40, 40)
    torch.manual_seed(5)
    with ingot.torch.sdpa():
        got = F.scaled_dot_product_attention(q, k, one_hot, dropout_p=0.25)
        other = F.scaled_dot_product_attention(q, k, one_hot, dropout_p=0.25)
        torch.manual_seed(5)
        again = F.scaled_dot_product_attention(q, k, one_hot, dropout_p=0.25)
    assert torch.equal(got, again) and not torch.equal(got, other)
    want = F.scaled_dot_product_attention(q, k, one_hot)
    assert abs((got == 0).float().mean() - 0.25) < 0.02
    torch.testing.assert_close(got[got != 0], want[got != 0] / 0.75, atol=1e-5, rtol=1e-4)
