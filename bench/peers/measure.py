"""Fair timing in one process, the machine's ceilings, and what the machine is."""

import argparse
import ctypes
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TURN_SECONDS = 0.02
INSTRUCTION_SETS = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "bf16",
    "sve",
)


def require(package, pip_name=None):
    """Imports a package, or ends the program with the line that says how to get it."""
    try:
        return __import__(package)
    except ImportError:
        script = Path(sys.argv[0]).name
        sys.exit(f"error: {script} needs the package {package}: pip install {pip_name or package}")


def usable_threads():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def interleave(contestants, seconds, rounds_min=3):
    """Times callables in turns A B, B A, ... for about `seconds`: {name: [seconds per call]}.

    Each turn starts with one call that is not counted: by its end the threads that the other side
    left spinning are asleep, and this side's are awake. Short calls are repeated within a turn.
    """
    samples = {name: [] for name in contestants}
    order = list(contestants)
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < rounds_min or time.perf_counter() < end:
        for name in order:
            samples[name] += one_turn(contestants[name])
        order.reverse()
        rounds += 1
    return samples


def one_turn(call):
    call()
    times = []
    start = now = time.perf_counter()
    while not times or now - start < TURN_SECONDS:
        before = now
        call()
        now = time.perf_counter()
        times.append(now - before)
    return times


def spread(times):
    """Median, 10th and 90th percentile, and their number."""
    ordered = sorted(times)
    last = len(ordered) - 1
    return {
        "median_s": statistics.median(ordered),
        "p10_s": ordered[round(0.1 * last)],
        "p90_s": ordered[round(0.9 * last)],
        "samples": len(ordered),
    }


def best_seconds(call, seconds):
    """The fastest call of about `seconds` of them: what the machine can do, noise taken away."""
    return min(interleave({"": call}, seconds)[""])


def matrix_product_gflops(torch, dtype, seconds, size=2048):
    """GFLOP/s of torch.mm on square matrices of random normal data."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype)
    return 2 * size**3 / best_seconds(lambda: torch.mm(a, b, out=out), seconds) / 1e9


def l3_bytes():
    """Size of the last-level cache, 0 where the system does not tell."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
    except OSError:
        return 0
    return int(text[:-1]) * {"K": 2**10, "M": 2**20}[text[-1]]


def out_of_cache_bytes():
    """Enough memory that reading it in a circle finds nothing of it in a cache."""
    return max(2**30, 4 * l3_bytes())


def read_bandwidth(torch, numpy, threads, seconds):
    """{method: GB/s} of reading an array much larger than the last-level cache."""
    columns = 4096
    rows = out_of_cache_bytes() // (4 * columns)
    matrix = torch.ones(rows, columns)
    vector = torch.ones(columns)
    parts = numpy.array_split(matrix.numpy().reshape(-1), threads)
    with ThreadPoolExecutor(threads) as pool:
        methods = {
            "torch.sum": lambda: torch.sum(matrix),
            "torch.mv": lambda: torch.mv(matrix, vector),
            "numpy.max": lambda: list(pool.map(numpy.max, parts)),
        }
        size = matrix.numel() * 4
        return {
            name: size / best_seconds(call, seconds / len(methods)) / 1e9
            for name, call in methods.items()
        }


def ceilings(torch, numpy, threads, seconds):
    """GFLOP/s of matrix products per dtype, and GB/s of memory reads, best of each."""
    dtypes = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
    methods = read_bandwidth(torch, numpy, threads, seconds)
    return {
        "matrix_product_gflops": {
            name: matrix_product_gflops(torch, dtype, seconds) for name, dtype in dtypes.items()
        },
        "read_gbps": max(methods.values()),
        "read_gbps_by_method": methods,
        "read_bytes": out_of_cache_bytes(),
    }


def peak_extra_bytes(call):
    """How far resident memory rose above its level while call() ran; None without Linux's /proc.

    The kernel counts pages in batches per processor, so this is good to some 256 KiB each.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    before = status_bytes("VmRSS")
    call()
    return max(0, status_bytes("VmHWM") - before)


def status_bytes(field):
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def cpu_model():
    """The processor's name and the instruction sets that matter here."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    found = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
    flags = found[1].split() if found else []
    sets = " ".join(name for name in INSTRUCTION_SETS if name in flags)
    return f"{name[1] if name else platform.machine()} ({sets})"


def commit():
    """Short hash of the commit, '+' behind it when files differ from it; '' without git."""
    here = Path(__file__).parent

    def git(*words):
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def facts(threads, versions):
    """What a reader of the figures has to know about where they come from."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "command": " ".join(["python", *sys.argv]),
        "cpu": cpu_model(),
        "l3_bytes": l3_bytes(),
        "threads": threads,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **versions,
    }


def chart_main(documentation, draw):
    """The command line of a script that draws what another one's --json wrote."""
    parser = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path, help="what --json wrote")
    parser.add_argument("chart", help="svg, png or pdf")
    options = parser.parse_args()
    try:
        draw(json.loads(options.result.read_text()), options.chart)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: {options.result} to {options.chart}: {error!r}")
