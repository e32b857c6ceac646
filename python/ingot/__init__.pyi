from typing import Any, Literal, TypeVar, overload

Array = TypeVar("Array")
Causal = Literal["top_left", "bottom_right"] | None
Precision = Literal["highest", "high"] | None
Window = tuple[int | None, int | None] | None
Seed = int | tuple[int, int] | None

__version__: str

class Error(Exception): ...
class InvalidArgument(Error, ValueError): ...
class Unsupported(Error, NotImplementedError): ...
class OutOfMemory(Error, MemoryError): ...
class CompileFailed(Error, RuntimeError): ...
class DeviceError(Error, RuntimeError): ...
class Internal(Error, RuntimeError): ...
class Cancelled(Error, RuntimeError): ...

@overload
def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: Any | None = None,
    bias: Any | None = None,
    alibi_slopes: Any | None = None,
    sinks: Any | None = None,
    dropout: float = 0.0,
    seed: Seed = None,
    prefix_len: Any | None = None,
    workspace_limit: int | None = None,
    return_lse: Literal[False] = False,
    device: str | None = None,
) -> Array: ...
@overload
def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: Any | None = None,
    bias: Any | None = None,
    alibi_slopes: Any | None = None,
    sinks: Any | None = None,
    dropout: float = 0.0,
    seed: Seed = None,
    prefix_len: Any | None = None,
    workspace_limit: int | None = None,
    return_lse: Literal[True],
    device: str | None = None,
) -> tuple[Array, Array]: ...
@overload
def attention_backward(
    q: Array,
    k: Array,
    v: Array,
    o: Array,
    lse: Array,
    dout: Array,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: Any | None = None,
    bias: Any | None = None,
    alibi_slopes: Any | None = None,
    sinks: Any | None = None,
    dropout: float = 0.0,
    seed: Seed = None,
    prefix_len: Any | None = None,
    workspace_limit: int | None = None,
    bias_grad: Literal[False] = False,
    sinks_grad: Literal[False] = False,
    device: str | None = None,
) -> tuple[Array, Array, Array]: ...
@overload
def attention_backward(
    q: Array,
    k: Array,
    v: Array,
    o: Array,
    lse: Array,
    dout: Array,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: Any | None = None,
    bias: Any | None = None,
    alibi_slopes: Any | None = None,
    sinks: Any | None = None,
    dropout: float = 0.0,
    seed: Seed = None,
    prefix_len: Any | None = None,
    workspace_limit: int | None = None,
    bias_grad: Literal[True],
    sinks_grad: Literal[False] = False,
    device: str | None = None,
) -> tuple[Array, Array, Array, Array]: ...
@overload
def attention_backward(
    q: Array,
    k: Array,
    v: Array,
    o: Array,
    lse: Array,
    dout: Array,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: Any | None = None,
    bias: Any | None = None,
    alibi_slopes: Any | None = None,
    sinks: Any | None = None,
    dropout: float = 0.0,
    seed: Seed = None,
    prefix_len: Any | None = None,
    workspace_limit: int | None = None,
    bias_grad: Literal[False] = False,
    sinks_grad: Literal[True],
    device: str | None = None,
) -> tuple[Array, Array, Array, Array]: ...
@overload
def attention_backward(
    q: Array,
    k: Array,
    v: Array,
    o: Array,
    lse: Array,
    dout: Array,
    *,
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    mask: Any | None = None,
    bias: Any | None = None,
    alibi_slopes: Any | None = None,
    sinks: Any | None = None,
    dropout: float = 0.0,
    seed: Seed = None,
    prefix_len: Any | None = None,
    workspace_limit: int | None = None,
    bias_grad: Literal[True],
    sinks_grad: Literal[True],
    device: str | None = None,
) -> tuple[Array, Array, Array, Array, Array]: ...
def set_num_threads(num_threads: int) -> None: ...
def devices() -> list[tuple[str, str]]: ...
@overload
def explain(
    *,
    seqlen_q: int,
    seqlen_k: int | None = None,
    head_dim: int,
    head_dim_v: int | None = None,
    batch: int = 1,
    num_heads: int = 1,
    num_heads_kv: int | None = None,
    dtype: str = "float32",
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    workspace_limit: int | None = None,
    device: str = "auto",
    format: Literal["text"] = "text",
) -> str: ...
@overload
def explain(
    *,
    seqlen_q: int,
    seqlen_k: int | None = None,
    head_dim: int,
    head_dim_v: int | None = None,
    batch: int = 1,
    num_heads: int = 1,
    num_heads_kv: int | None = None,
    dtype: str = "float32",
    causal: Causal = None,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision = None,
    workspace_limit: int | None = None,
    device: str = "auto",
    format: Literal["json"],
) -> dict[str, Any]: ...
