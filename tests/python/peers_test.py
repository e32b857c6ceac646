"""The contestants of bench/peers compute the same as their references: on the CPU, in small."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench" / "peers"))
import contestants  # noqa: E402
import cuda_cases  # noqa: E402
import cuda_contestants  # noqa: E402
import cuda_errors  # noqa: E402
from cuda_cases import Case, square  # noqa: E402


@pytest.mark.parametrize("causal", [False, True], ids=["dense", "causal"])
@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_cpu_contestants(kind, causal):
    case = contestants.Case(kind, "f32", 1, 2, 40, 40, 16, causal)
    inputs = contestants.make_inputs(case)
    expected = contestants.reference(case, inputs)
    for contestant in (contestants.Ingot, contestants.Flash, contestants.Plain):
        entrant = contestant(case, inputs)
        entrant.run()
        assert contestants.max_error(entrant.results, expected) < 1e-5


CASES = [
    square("f32", 4, 64, 16),
    square("bf16", 4, 64, 24, 16, heads_kv=2, causal=True),
    Case("bf16", 1, 8, 2, 1, 64, 16),
    square("f32", 4, 64, 16, kind="backward"),
    square("bf16", 4, 64, 16, heads_kv=2, causal=True, kind="backward"),
    square("f32", 4, 64, 16, heads_kv=2, kind="step"),
    square("bf16", 4, 64, 16, causal=True, kind="step"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gpu_contestants(case, monkeypatch):
    # The back end of that name is for GPUs; PyTorch's plain formula stands in for it.
    monkeypatch.setitem(cuda_contestants.BACKENDS, "efficient", "MATH")
    monkeypatch.setattr(cuda_cases, "L2_BYTES", 4000)
    inputs = cuda_cases.make_inputs(case, "cpu")
    assert len(inputs.pairs) == {"step": 0}.get(case.kind, 2 if case.is_decode else 1)
    tolerance = 1e-5 if case.dtype == "f32" else 1e-2
    for name in ("ingot", "efficient"):
        entrant = cuda_contestants.make(name, case, inputs)
        entrant.run()  # as the script does, to see whether it can
        _, relative = cuda_errors.errors(case, inputs, entrant)
        assert relative < tolerance
        assert all(torch.isfinite(result).all() for result in entrant.results)


def test_work_of_the_passes():
    forward, backward, step = (
        square("bf16", 2, 64, 16, kind=k).work for k in cuda_contestants.KINDS
    )
    assert forward == 4 * 2 * 64 * 64 * 16
    assert backward == 2.5 * forward
    assert step == forward + backward + 3 * 2 * 64 * (4 * 32 * 32)
    assert square("bf16", 2, 64, 16, causal=True).work == forward / 2
