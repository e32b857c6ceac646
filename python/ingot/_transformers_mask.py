"""The mask that ingot's mask function hands to a model of transformers."""

import torch
from torch.utils._pytree import tree_map
from transformers import masking_utils

from ingot._transformers_plan import plan_of
from ingot._transformers_rows import (
    UNBOUNDED,
    Unstructured,
    bounds_of,
    rows_of_bounds,
    rows_of_predicate,
)

# What a caller may ask without a mask that is a tensor.
_PROPERTIES = "shape dtype device ndim layout requires_grad is_leaf is_sparse is_quantized grad"
_METHODS = "size dim numel stride storage_offset __len__ is_floating_point"
_HARMLESS = {getattr(torch.Tensor, name).__get__ for name in _PROPERTIES.split()}
_HARMLESS |= {getattr(torch.Tensor, name) for name in _METHODS.split()}


class Mask(torch.Tensor):
    """A (batch, 1, queries, keys) mask as eager attention has it, 0 where a pair is seen and the
    least number of the dtype elsewhere, which takes memory only once somebody computes with it:
    models do that whose attention is code of their own, and some that change it for ingot, too.
    ingot itself reads what each query sees."""

    @staticmethod
    def __new__(cls, arguments, mask_function, padding, may_be_none):
        shape = (arguments["batch_size"], 1, arguments["q_length"], arguments["kv_length"])
        # Not a number, so that what reads it past __torch_function__ shows.
        dtype, device = arguments["dtype"], arguments["device"]
        nothing = torch.full((), float("nan"), dtype=dtype, device=device)
        return torch.Tensor._make_subclass(cls, nothing.expand(shape))

    def __init__(self, arguments, mask_function, padding, may_be_none):
        """may_be_none: eager attention has None, whatever the number of keys, if all is seen."""
        self._dense, self._written, self._booleans = None, None, None
        self._make_dense = lambda: masking_utils.eager_mask(
            **arguments, mask_function=mask_function, attention_mask=padding
        )
        self._make_booleans = lambda: masking_utils.sdpa_mask(
            **arguments,
            mask_function=mask_function,
            attention_mask=padding,
            allow_is_causal_skip=False,
            allow_is_bidirectional_skip=False,
        )
        if padding is not None and padding.all():
            padding = None
        self.sees_all = (
            may_be_none and padding is None and bounds_of(mask_function) == (UNBOUNDED, UNBOUNDED)
        )
        try:
            self.rows = _rows_of(arguments, mask_function, padding)
            self.plan, self.reason = plan_of(self.rows), None
        except Unstructured as reason:
            self.rows, self.plan, self.reason = None, None, reason

    def dense(self):
        """The mask as a tensor of its own."""
        with torch._C.DisableTorchFunctionSubclass():
            if self._dense is None:
                self._dense = self._make_dense()
                self._written = _writes(self._dense)
            return self._dense

    def booleans(self):
        """The mask as a (batch, 1, queries, keys) tensor, made once for all layers."""
        with torch._C.DisableTorchFunctionSubclass():
            if self._booleans is None:
                self._booleans = self._make_booleans()
            return self._booleans

    def changed(self):
        """Whether somebody may have written to the mask."""
        with torch._C.DisableTorchFunctionSubclass():
            if self._dense is None:
                return False
            return self._written is None or _writes(self._dense) != self._written

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _HARMLESS:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **kwargs)
        args, kwargs = tree_map(lambda x: x.dense() if isinstance(x, cls) else x, (args, kwargs))
        return function(*args, **kwargs)


def _writes(tensor):
    """How often the tensor was written to; None where PyTorch does not count."""
    return None if tensor.is_inference() else tensor._version


def _rows_of(arguments, mask_function, padding):
    bounds = bounds_of(mask_function)
    if bounds is None:
        return rows_of_predicate(arguments, mask_function, padding)
    queries, keys = arguments["q_length"], arguments["kv_length"]
    start = arguments["kv_offset"]
    if padding is not None:
        padding = masking_utils.prepare_padding_mask(padding, keys, start)
        padding = padding[:, start : start + keys]
    return rows_of_bounds(bounds, queries, keys, arguments["q_offset"] - start, padding)
