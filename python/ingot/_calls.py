"""ingot.attention and its gradient: from arrays of any package to _core and back."""

import sys

from ingot import _core
from ingot._arrays import adapter_of, any_adapter_of
from ingot._errors import Error, InvalidArgument, OutOfMemory
from ingot._parts import ELEMENTS

_SAVED = ("q", "k", "v", "o", "lse", "dout")


def forward(arrays, parts, *call):
    """(o, lse or None). arrays: q, k, v; parts: Parts or None; call: options, device,
    return_lse."""
    return _run(_forward, arrays, parts, call)


def _run(compute, arrays, parts, call):
    adapter = adapter_of("q", arrays[0])
    if adapter.run is None:
        return compute(adapter, parts, call, *arrays)
    return adapter.run(
        lambda *x: compute(
            adapter,
            parts and parts._make((*x[len(arrays) :], *parts[len(ELEMENTS) :])),
            call,
            *x[: len(arrays)],
        ),
        (*arrays, *(parts.arrays if parts else ())),
    )


def _forward(adapter, parts, call, q, k, v):
    options, device, return_lse = call
    views = _views(adapter, (q, k, v))
    parts = _part_views(adapter, q, parts)
    shape = _shape("q", q)[:3]
    o, made = _output(adapter, "o", (*shape, _shape("v", v)[3]), q)
    lse, made_lse = None, None
    if return_lse:
        lse, made_lse = _output(adapter, "lse", shape, q, "float32")
    _core.forward(*views, o, lse, *options, device, adapter.stream(q), parts)
    return o if made is None else made(), lse if made_lse is None else made_lse()


def backward(arrays, parts, *call):
    """(dq, dk, dv) and what of (dbias, dsinks) is wanted. arrays: q, k, v, o, lse, dout; parts:
    Parts or None; call: options, device, which of the two are wanted."""
    return _run(_backward, arrays, parts, call)


def _backward(adapter, parts, call, *arrays):
    options, device, wanted = call
    views = _views(adapter, arrays)
    part_views = _part_views(adapter, arrays[0], parts)
    inputs = {
        name: (x, _shape(name, x)) for name, x in zip(("q", "k", "v"), arrays[:3], strict=True)
    }
    for name, is_wanted in zip(("bias", "sinks"), wanted, strict=True):
        if is_wanted:
            x = getattr(parts, name)
            inputs[name] = (x, adapter_of(name, x) and x.shape)
    outputs = {
        name: _output(adapter_of(name, x), f"d{name}", shape, x)
        for name, (x, shape) in inputs.items()
    }
    dq, dk, dv, dbias, dsinks = (
        outputs[name][0] if name in outputs else None for name in ("q", "k", "v", "bias", "sinks")
    )
    stream = adapter.stream(arrays[0])
    _core.backward(*views, dq, dk, dv, *options, device, stream, part_views, dbias, dsinks)
    return tuple([view if made is None else made() for view, made in outputs.values()])


def in_torch(arrays, device):
    """Whether PyTorch shall do it by ingot's operators: they are what its autograd, torch.func,
    torch.compile and lazy tensors know of. Raises for a tensor on MPS that is wanted elsewhere.
    arrays: q first; those that are not given are None."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(arrays[0], torch.Tensor):
        return False
    if not all(x is None or isinstance(x, torch.Tensor) for x in arrays):
        return False
    if device in ("", "auto", "metal:0") and arrays[0].is_mps:
        return True
    if device != "" and arrays[0].is_mps:
        raise InvalidArgument(f"device: must be metal:0, whose memory holds q, got {device}")
    return device == ""


def backward_in_torch(arrays, parts, options, wanted):
    """backward() by ingot's operator."""
    torch = sys.modules["torch"]
    import ingot.torch  # noqa: F401 - registers it

    for name, x in zip(_SAVED, arrays, strict=True):
        if x.is_nested:
            raise InvalidArgument(f"{name}: must be a dense tensor, got a nested one")
    if parts is not None:
        from ingot._torch_parts import backward

        return backward(arrays, parts, options, wanted)
    return torch.ops.ingot.attention_backward(*arrays, *options)


def _views(adapter, arrays):
    """What _core takes for arrays, which are q, k, v and what follows them; adapter is q's."""
    views, kind = [], type(arrays[0])
    for name, array in zip(_SAVED, arrays, strict=False):
        own = adapter if type(array) is kind else any_adapter_of(array)
        views.append(_view(own, name, array, "number"))
    return views


def _view(adapter, name, array, element):
    try:
        return adapter.view(name, array, element)
    except Error:
        raise
    except Exception as error:  # the package's own: an array that was deleted, for example
        text = str(error).partition("\n")[0]
        raise InvalidArgument(
            f"{name}: must be readable, got {type(error).__name__}: {text}"
        ) from error


def _part_views(adapter, q, parts):
    """Parts whose arrays are what _core takes."""
    if parts is None:
        return None
    views = []
    for (name, element), array in zip(ELEMENTS.items(), parts.arrays, strict=True):
        if array is not None:
            own = adapter if type(array) is type(q) else any_adapter_of(array)
            array = _view(own, name, array, element)
        views.append(array)
    return (*views, *parts[len(ELEMENTS) :])


def _shape(name, array):
    """The four sizes of an array; _core looks at them once more."""
    shape = getattr(array, "shape", None)
    if isinstance(shape, tuple) and len(shape) == 4:
        return shape
    if not isinstance(shape, tuple):
        kind = f"{type(array).__module__}.{type(array).__name__}"
        raise InvalidArgument(f"{name}: must be an array with a shape, got {kind}")
    raise InvalidArgument(
        f"{name}: must have 4 dimensions (batch, heads, seqlen, head_dim), got {len(shape)}"
    )


def _output(adapter, name, shape, like, dtype=None):
    try:
        return adapter.output(name, shape, like, dtype)
    except Error:
        raise
    except Exception as error:  # each package has another one for too much memory
        text = str(error).partition("\n")[0]
        raise OutOfMemory(f"{name}: no memory for the shape {tuple(shape)}: {text}") from error
