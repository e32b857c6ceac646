"""What differs between array packages: how memory is handed over, and on which stream work runs.

No package is imported here: an array brings its own.
"""

import functools
import sys

from ingot import _core
from ingot._errors import InvalidArgument, Unsupported

_FLOATS = "float32, float16, bfloat16 or float64"
MASK = "bool (bias adds numbers)"


class Adapter:
    """What all packages have. Of a package that is not known here, arrays can be read, by DLPack,
    but not be made."""

    def view(self, name, array, element="number"):
        """What _core takes for the argument `name`; raises where that would not be all of it.
        element: "number", "boolean" or "int32"."""
        return array

    def output(self, name, shape, like, dtype=None):
        """An array of like's type, or of float32: (what _core writes, None or a function that then
        returns what the caller gets instead)."""
        raise _not_an_array(name, like)

    def stream(self, _):
        return 0

    run = None  # run(compute, arrays): compute(*arrays), of a package that needs to know of it


class NumPy(Adapter):
    """ndarray. bfloat16 is ml_dtypes'; its bits are passed, NumPy exports no such type."""

    def __init__(self):
        self._empty = sys.modules["numpy"].empty

    def view(self, name, array, element="number"):
        dtype = array.dtype
        if dtype.kind == "f" and dtype.isnative or element != "number":
            return array
        if dtype.name == "bfloat16" and dtype.isnative:
            return _core.Bfloat16(array.view("uint16"))
        raise InvalidArgument(f"{name}.dtype: must be {_FLOATS} in native byte order, got {dtype}")

    def output(self, name, shape, like, dtype=None):
        array = self._empty(shape, dtype or like.dtype)
        view = self.view(name, array)
        return view, None if view is array else lambda: array


class Masked(Adapter):
    def view(self, name, array, element="number"):
        raise Unsupported(f"{name}: must be an array without a mask, got {type(array).__name__}")


class Torch(Adapter):
    """Tensors that are computed on where ingot.torch is not: on a device that was named, or beside
    arrays of another package."""

    def __init__(self):
        self._torch = sys.modules["torch"]

    def view(self, name, tensor, element="number"):
        torch = self._torch
        derived = tensor.requires_grad and torch.is_grad_enabled()
        if derived or torch.autograd.forward_ad._current_level >= 0:
            raise Unsupported(
                f"{name}: must not be differentiated here; ingot.torch.attention does it, where q, "
                "k and v are all PyTorch's and no device is named"
            )
        if tensor.layout is not torch.strided:
            raise Unsupported(f"{name}: must be a dense tensor, got layout {tensor.layout}")
        if tensor.numel() > 0:
            last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
            needed = (tensor.storage_offset() + last + 1) * tensor.element_size()
            if tensor.untyped_storage().nbytes() < needed:
                raise InvalidArgument(
                    f"{name}: must have a storage of at least {needed} bytes, got "
                    f"{tensor.untyped_storage().nbytes()}"
                )
        return tensor.resolve_neg()

    def output(self, name, shape, like, dtype=None):
        dtype = like.dtype if dtype is None else self._torch.float32
        tensor = self._torch.empty(shape, dtype=dtype, device=like.device)
        return tensor, None

    def stream(self, tensor):
        if tensor.is_cuda:
            return self._torch.cuda.current_stream(tensor.device).cuda_stream
        return 0


class CuPy(Adapter):
    def __init__(self):
        self._cupy = sys.modules["cupy"]

    def output(self, name, shape, like, dtype=None):
        with like.device:
            array = self._cupy.empty(shape, dtype or like.dtype)
        return array, None

    def stream(self, array):
        return self._cupy.cuda.get_current_stream(array.device.id).ptr


class Jax(Adapter):
    """Arrays of JAX cannot be written: the output is made beside them and taken over. In jit, grad
    and vmap use ingot.jax.attention."""

    def __init__(self):
        self._jax = sys.modules["jax"]
        import numpy

        self._numpy, self._host = numpy, NumPy()

    def view(self, name, array, element="number"):
        if isinstance(array, self._jax.core.Tracer):
            raise Unsupported(f"{name}: is traced by JAX; use ingot.jax.attention")
        if next(iter(array.devices())).platform != "cpu":
            raise Unsupported(f"{name}: is on a GPU of JAX; use ingot.jax.attention")
        return self._host.view(name, self._numpy.asarray(array), element)

    def output(self, name, shape, like, dtype=None):
        array = self._numpy.empty(shape, dtype or like.dtype)
        return self._host.view(name, array), lambda: self._jax.numpy.asarray(array)


class Mlx(Adapter):
    """Arrays of MLX cannot be written either, and NumPy cannot hold its bfloat16."""

    def __init__(self):
        self._mlx = sys.modules["mlx.core"]
        import numpy

        self._numpy = numpy

    def view(self, name, array, element="number"):
        mlx = self._mlx
        is_bfloat16 = array.dtype == mlx.bfloat16
        known = {"boolean": (mlx.bool_,), "int32": (mlx.int32,)}
        if array.dtype not in known.get(element, (mlx.float32, mlx.float16, mlx.bfloat16)):
            rule = {"boolean": MASK, "int32": "int32"}.get(element, "float32, float16 or bfloat16")
            raise InvalidArgument(f"{name}.dtype: must be {rule} with MLX, got {array.dtype}")
        try:
            host = self._numpy.asarray(array.view(mlx.uint16) if is_bfloat16 else array)
        except (RuntimeError, ValueError) as error:
            raise Unsupported(f"{name}: must have values, not be traced by MLX: {error}") from None
        return _core.Bfloat16(host) if is_bfloat16 else host

    def output(self, name, shape, like, dtype=None):
        mlx = self._mlx
        if dtype is None and like.dtype == mlx.bfloat16:
            bits = self._numpy.empty(shape, "uint16")
            return _core.Bfloat16(bits), lambda: mlx.array(bits).view(mlx.bfloat16)
        array = self._numpy.empty(shape, dtype or str(like.dtype).rpartition(".")[2])
        return array, lambda: mlx.array(array)

    def run(self, compute, arrays):
        """MLX does not tell which arrays it differentiates, and those computed outside of it are
        constants to it: it is told that there is no derivative."""
        array = self._mlx.array
        own = [i for i, x in enumerate(arrays) if isinstance(x, array)]
        results = []

        @self._mlx.custom_function
        def run(*given):
            every = list(arrays)
            for i, x in zip(own, given, strict=True):
                every[i] = x
            results[:] = compute(*every)
            return tuple(x for x in results if isinstance(x, array))

        def refuse(*_):
            raise Unsupported("q, k, v: must not be differentiated here; use ingot.mlx.attention")

        run.vjp(refuse)
        run.jvp(refuse)
        made = iter(run(*(arrays[i] for i in own)))
        return tuple(next(made) if isinstance(x, array) else x for x in results)


_PACKAGES = {"torch": Torch, "cupy": CuPy, "jaxlib": Jax, "jax": Jax, "mlx": Mlx}


def adapter_of(name, array):
    """The adapter of the package that an argument is of; raises where it is of none."""
    adapter = any_adapter_of(array)
    if type(adapter) is Adapter:
        raise _not_an_array(name, array)
    return adapter


def any_adapter_of(array):
    """The adapter of the package that an array is of."""
    return adapter_of_type(type(array))


@functools.lru_cache(maxsize=64)  # types may be made again and again
def adapter_of_type(kind):
    for base in kind.__mro__:
        root = base.__module__.partition(".")[0]
        if root == "numpy" and base.__name__ == "MaskedArray":
            return Masked()
        if root == "numpy" and base.__name__ == "ndarray":
            return NumPy()
        if root in _PACKAGES and hasattr(base, "shape"):
            return _PACKAGES[root]()
    return Adapter()


def _not_an_array(name, array):
    kind = f"{type(array).__module__}.{type(array).__name__}"
    return InvalidArgument(
        f"{name}: must be an array of NumPy, PyTorch, JAX, CuPy or MLX, got {kind}"
    )
