"""What differs between array packages: how an output is made, and on which stream work runs.

No package is imported here: an array brings its own.
"""

import functools
import sys

from ingot import _core
from ingot._errors import BY_STATUS, InvalidArgument, Unsupported

_core.set_exceptions(BY_STATUS)


class Adapter:
    """What all packages have; view and finish are None where arrays go in and out as they are."""

    view = None
    finish = None
    forward = staticmethod(_core.forward)
    backward = staticmethod(_core.backward)

    def stream(self, _):
        return 0


class NumPy(Adapter):
    """ndarray. bfloat16 is ml_dtypes'; its bits are passed, NumPy exports no such type."""

    def __init__(self):
        self._numpy = sys.modules["numpy"]

    def empty(self, shape, like):
        return self._numpy.empty(shape, like.dtype)

    def empty_float32(self, shape, like):
        return self._numpy.empty(shape, "float32")


class NumPyBfloat16(NumPy):
    def view(self, array):
        return array.view("uint16") if array.dtype.name == "bfloat16" else array


class Torch(Adapter):
    def __init__(self):
        self._torch = sys.modules["torch"]

    def empty(self, shape, like):
        return self._torch.empty(shape, dtype=like.dtype, device=like.device)

    def empty_float32(self, shape, like):
        return self._torch.empty(shape, dtype=self._torch.float32, device=like.device)

    def view(self, tensor):
        return tensor.detach() if tensor.requires_grad else tensor

    def stream(self, tensor):
        if tensor.is_cuda:
            return self._torch.cuda.current_stream(tensor.device).cuda_stream
        return 0


class TorchMps(Torch):
    """Tensors on Apple's GPU: work is encoded into PyTorch's own command buffer."""

    def __init__(self):
        super().__init__()
        from ingot import _torch_mps

        self.view, self._encode = _torch_mps.view, _torch_mps.encode

    def forward(self, *arguments):
        self._encode(lambda commands: _core.forward(*arguments[:-1], commands))

    def backward(self, *arguments):
        self._encode(lambda commands: _core.backward(*arguments[:-1], commands))


class CuPy(Adapter):
    def __init__(self):
        self._cupy = sys.modules["cupy"]

    def empty(self, shape, like):
        with like.device:
            return self._cupy.empty(shape, like.dtype)

    def empty_float32(self, shape, like):
        with like.device:
            return self._cupy.empty(shape, "float32")

    def stream(self, array):
        return self._cupy.cuda.get_current_stream(array.device.id).ptr


class Jax(Adapter):
    """Arrays of JAX cannot be written: the output is made beside them and taken over. In jit, grad
    and vmap use ingot.jax.attention."""

    def __init__(self):
        self._jax = sys.modules["jax"]
        import numpy

        self._numpy = numpy

    def _check(self, like):
        if isinstance(like, self._jax.core.Tracer):
            raise Unsupported("q: is traced by JAX; use ingot.jax.attention")
        if next(iter(like.devices())).platform != "cpu":
            raise Unsupported("q: is on a GPU of JAX; use ingot.jax.attention")

    def empty(self, shape, like):
        self._check(like)
        return self._numpy.empty(shape, like.dtype)

    def empty_float32(self, shape, like):
        return self._numpy.empty(shape, "float32")

    def view(self, array):
        array = self._numpy.asarray(array)
        return array.view("uint16") if array.dtype.name == "bfloat16" else array

    def finish(self, array, _):
        return self._jax.numpy.asarray(array)


class Mlx(Adapter):
    """Arrays of MLX cannot be written either, and NumPy cannot hold its bfloat16."""

    def __init__(self):
        self._mlx = sys.modules["mlx.core"]
        import numpy

        self._numpy = numpy

    def empty(self, shape, like):
        names = {"float32": "float32", "float16": "float16", "bfloat16": "uint16"}
        name = str(like.dtype).rpartition(".")[2]
        if name not in names:
            raise InvalidArgument(
                f"dtype: must be float32, float16 or bfloat16 with MLX, got {name}"
            )
        return self._numpy.empty(shape, names[name])

    def empty_float32(self, shape, like):
        return self._numpy.empty(shape, "float32")

    def view(self, array):
        if isinstance(array, self._numpy.ndarray):
            return array
        if array.dtype == self._mlx.bfloat16:
            array = array.view(self._mlx.uint16)
        return self._numpy.asarray(array)

    def finish(self, array, _):
        if array.dtype == "uint16":
            return self._mlx.array(array).view(self._mlx.bfloat16)
        return self._mlx.array(array)


_PACKAGES = {"torch": Torch, "cupy": CuPy, "jaxlib": Jax, "jax": Jax, "mlx": Mlx}
_adapters: dict[type, Adapter] = {}


def adapter_of(q):
    """The adapter of the package that q is of."""
    kind = type(q)
    adapter = _adapters.get(kind)
    if adapter is None:
        adapter = _adapters[kind] = _make_adapter(kind)
    if type(adapter) is NumPy:
        return _numpy_adapter(adapter, q)
    if type(adapter) is Torch and q.is_mps:
        return _mps_adapter()
    return adapter


def _make_adapter(kind):
    for base in kind.__mro__:
        root = base.__module__.partition(".")[0]
        if root == "numpy" and base.__name__ == "ndarray":
            return NumPy()
        if root in _PACKAGES:
            return _PACKAGES[root]()
    name = f"{kind.__module__}.{kind.__name__}"
    raise InvalidArgument(f"q: must be an array of NumPy, PyTorch, JAX, CuPy or MLX, got {name}")


@functools.cache
def _mps_adapter():
    return TorchMps()


_bfloat16_adapter = None


def _numpy_adapter(adapter, q):
    dtype = q.dtype
    if dtype.kind == "f" and dtype.isnative:
        return adapter
    if dtype.name == "bfloat16":
        global _bfloat16_adapter
        if _bfloat16_adapter is None:
            _bfloat16_adapter = NumPyBfloat16()
        return _bfloat16_adapter
    raise InvalidArgument(
        f"q.dtype: must be float32, float16, bfloat16 or float64 in native byte order, got {dtype}"
    )
