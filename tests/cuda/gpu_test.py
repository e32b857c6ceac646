"""What only an NVIDIA GPU can show, by programs that are built already: the whole table of cases,
the tests on the GPU (50 runs with equal bits among them), and compute-sanitizer over every family
of kernels.

    INGOT_CLI=build/release/ingot python -m pytest -s tests/cuda     # ./dev test --cuda does it

Beside the program lies its folder tests/ with ingot_tests. Neither a compiler nor a toolkit is
needed, but for compute-sanitizer, which is skipped where it is not installed.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(os.environ.get("INGOT_CLI", "build/release/ingot")).resolve()
TESTS = PROGRAM.parent / "tests" / "ingot_tests"
ON_GPU = "*OnGpu*:CudaDevice.*:*CudaFusedRepeated*:CudaUnfusedSameBits.*"
JOBS = os.cpu_count() or 1

# A few rows for every kernel family: sanitizers are a hundred times as slow.
CHECK_ROWS = ["d64_", "d128", "d512", "q1_k1030", "b2_h6x2", "padded_rows"]
TEST_ROWS = [
    "*CudaForwardSm90OnGpu*d128*",
    "*CudaForwardSm90OnGpu*d512*",
    "*CudaForwardSm90OnGpu*f32*high*",
    "*CudaFusedOnGpu*d64_topleft*",
    "*CudaFusedOnGpu*d40x24*",
    "*CudaStoredOnGpu*d128*top*",
    "*CudaStoredOnGpu*d256*top*",
    "*CudaUnfusedOnGpu*d320*",
    "*CudaUnfusedOnGpu*f32*_d128*",
]


def run(*command, timeout=1800):
    """The lines that a program printed; fails with their end where it does."""
    words = [str(word) for word in command]
    output = subprocess.run(words, capture_output=True, text=True, timeout=timeout)
    lines = (output.stdout + output.stderr).splitlines()
    assert output.returncode == 0, "\n".join([" ".join(words), *lines[-30:]])
    return lines


@pytest.fixture(scope="module", autouse=True)
def gpu():
    found = [line for line in run(PROGRAM, "devices") if line.startswith("cuda:0")]
    if not found:
        pytest.skip("skipped: no NVIDIA GPU")
    print("\n" + found[0])


def test_the_whole_table():
    lines = run(PROGRAM, "check", "--full", "--device", "cuda", "--jobs", JOBS)
    print("\n".join(lines[-2:]))
    assert re.fullmatch(r"[1-9]\d+ passed, 0 failed, 0 skipped", lines[-1])


def test_everything_on_the_gpu():
    def shard(index):
        shards = {"GTEST_TOTAL_SHARDS": str(JOBS), "GTEST_SHARD_INDEX": str(index)}
        command = [TESTS, f"--gtest_filter={ON_GPU}", "--gtest_brief=1"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env={**os.environ, **shards}, **pipes)

    processes = [shard(index) for index in range(JOBS)]
    texts = [process.communicate()[0] for process in processes]
    failed = [t for p, t in zip(processes, texts, strict=True) if p.returncode != 0]
    assert not failed, "\n".join(text[-3000:] for text in failed)
    passed = sum(int(n) for text in texts for n in re.findall(r"PASSED  \] (\d+) test", text))
    print(f"{passed} passed on the GPU")
    assert passed > 0


def sanitized(tool, *command):
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(sanitizer).exists():
        pytest.skip("skipped: compute-sanitizer is not installed")
    lines = run(sanitizer, "--tool", tool, "--error-exitcode", "1", *command)
    summary = [line for line in lines if "SUMMARY" in line]
    assert summary and all(" 0 " in line for line in summary)
    return lines


@pytest.mark.parametrize("row", CHECK_ROWS)
@pytest.mark.parametrize("tool", ["memcheck", "synccheck"])
def test_sanitizers_over_the_table(tool, row):
    command = [PROGRAM, "check", "--quick", "--device", "cuda", "--filter", row]
    lines = sanitized(tool, *command)
    assert any(re.fullmatch(r"[1-9]\d* passed, 0 failed, 0 skipped", line) for line in lines)


@pytest.mark.parametrize("rows", TEST_ROWS)
@pytest.mark.parametrize("tool", ["memcheck", "synccheck"])
def test_sanitizers_over_large_cases(tool, rows):
    lines = sanitized(tool, TESTS, f"--gtest_filter={rows}", "--gtest_brief=1")
    text = "\n".join(lines)
    if re.search(r"PASSED  \] 0 test", text) and re.search(r"SKIPPED \] [1-9]\d* test", text):
        pytest.skip("skipped: kernels of another GPU")
    assert re.search(r"PASSED  \] [1-9]\d* test", text)
