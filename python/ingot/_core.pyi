"""The extension module (python/src): arrays are anything that speaks DLPack; no defaults here."""

from collections.abc import Sequence
from typing import Any

version: str

class MetalTensor:
    """A tensor in an MTLBuffer, of at most 4 dimensions; offset in bytes, strides in elements."""

    def __init__(
        self, buffer: int, offset: int, dtype: str, shape: Sequence[int], strides: Sequence[int]
    ) -> None: ...

class Bfloat16:
    def __init__(self, bits: Any) -> None: ...

def set_num_threads(num_threads: int) -> None: ...
def use_openmp_of(library: str) -> bool: ...
def set_exceptions(types: tuple[type[Exception], ...]) -> tuple[type[Exception], ...]: ...
def devices() -> list[tuple[str, str]]: ...
def jax_check(
    shape: list[int],
    dtypes: list[str],
    arrays: list[tuple[list[int], str] | None],
    dropout: float,
    causal: int,
    window_left: int,
    window_right: int,
    scale: float,
    softcap: float,
    precision: int,
    workspace_limit: int,
) -> None: ...
def jax_handlers() -> tuple[tuple[str, str, Any], ...]: ...
def forward(
    q: Any,
    k: Any,
    v: Any,
    o: Any,
    lse: Any,
    causal: int,
    window_left: int,
    window_right: int,
    scale: float,
    softcap: float,
    precision: int,
    workspace_limit: int,
    device: str,
    stream: int,
    parts: tuple[Any, ...] | None = None,
) -> None: ...
def backward(
    q: Any,
    k: Any,
    v: Any,
    o: Any,
    lse: Any,
    dout: Any,
    dq: Any,
    dk: Any,
    dv: Any,
    causal: int,
    window_left: int,
    window_right: int,
    scale: float,
    softcap: float,
    precision: int,
    workspace_limit: int,
    device: str,
    stream: int,
    parts: tuple[Any, ...] | None = None,
    dbias: Any = None,
    dsinks: Any = None,
) -> None: ...
def forward_ragged(
    q: Any,
    k: Any,
    v: Any,
    o: Any,
    lse: Any,
    blocks: Sequence[int],
    causal: int,
    window_left: int,
    window_right: int,
    scale: float,
    softcap: float,
    precision: int,
    workspace_limit: int,
    device: str,
    stream: int,
) -> None: ...
def backward_ragged(
    q: Any,
    k: Any,
    v: Any,
    o: Any,
    lse: Any,
    dout: Any,
    dq: Any,
    dk: Any,
    dv: Any,
    blocks: Sequence[int],
    causal: int,
    window_left: int,
    window_right: int,
    scale: float,
    softcap: float,
    precision: int,
    workspace_limit: int,
    device: str,
    stream: int,
) -> None: ...
def explain(
    shape: list[int],
    dtype: str,
    causal: int,
    window_left: int,
    window_right: int,
    scale: float,
    softcap: float,
    precision: int,
    workspace_limit: int,
    device: str,
    json: bool,
) -> str: ...
