"""The extension module (python/src): arrays are anything that speaks DLPack; no defaults here."""

from typing import Any

version: str

def set_exceptions(types: tuple[type[Exception], ...]) -> None: ...
def devices() -> list[tuple[str, str]]: ...
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
    device: str,
    stream: int,
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
    device: str,
    json: bool,
) -> str: ...
