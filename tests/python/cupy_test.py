"""CuPy arrays in ingot.attention; all of it needs an NVIDIA GPU."""

import ingot
import numpy as np
import plain
import pytest

cupy = pytest.importorskip("cupy", reason="skipped: CuPy is not installed")


def has_gpu():
    try:
        return cupy.cuda.runtime.getDeviceCount() > 0
    except cupy.cuda.runtime.CUDARuntimeError:
        return False


pytestmark = pytest.mark.skipif(not has_gpu(), reason="skipped: no NVIDIA GPU")
OPTIONS = [{}, {"causal": "bottom_right"}, {"causal": "top_left", "softcap": 2.0}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype,tolerance", [("float32", 5e-6), ("float16", 4e-3)])
def test_forward_and_backward(make, dtype, tolerance, options):
    arrays = make(2, 4, 2, 33, 40, 64)
    q, k, v = (cupy.asarray(x, dtype) for x in arrays)
    o, lse = ingot.attention(q, k, v, return_lse=True, **options)
    assert isinstance(o, cupy.ndarray)
    assert (o.dtype, lse.dtype) == (np.dtype(dtype), np.float32)
    want, want_lse = plain.attention(*arrays, **options)
    np.testing.assert_allclose(o.get(), want, atol=tolerance)
    np.testing.assert_allclose(lse.get(), want_lse, atol=tolerance)
    gradients = ingot.attention_backward(q, k, v, o, lse, cupy.ones_like(o), **options)
    host = ingot.attention(*arrays, return_lse=True, **options)
    wanted = ingot.attention_backward(*arrays, *host, np.ones_like(host[0]), **options)
    for gradient, want in zip(gradients, wanted, strict=True):
        assert gradient.dtype == np.dtype(dtype)
        np.testing.assert_allclose(gradient.get(), want, atol=12 * tolerance)


def test_strides_and_the_current_stream(make):
    arrays = make(2, 3, 3, 20, 20, 32)
    want = plain.attention(*arrays)[0]
    with cupy.cuda.Stream(non_blocking=True) as stream:
        bshd = [cupy.asarray(x.swapaxes(1, 2).copy()).swapaxes(1, 2) for x in arrays]
        o = ingot.attention(bshd[0] * 1, bshd[1], bshd[2])
        stream.synchronize()
    np.testing.assert_allclose(o.get(), want, atol=5e-6)


def test_memory_of_two_devices(make):
    q, k, v = make(1, 1, 1, 4, 4, 8)
    with pytest.raises(ingot.InvalidArgument, match="k: must be on the device of q"):
        ingot.attention(cupy.asarray(q), k, v)
    on_gpu = [cupy.asarray(x) for x in (q, k, v)]
    with pytest.raises(ingot.InvalidArgument, match="device: must be cuda:0, whose memory holds q"):
        ingot.attention(*on_gpu, device="cpu")
