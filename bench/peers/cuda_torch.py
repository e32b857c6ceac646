#!/usr/bin/env python3
"""ingot against PyTorch's attention on an NVIDIA GPU: one process, turn by turn.

  python bench/peers/cuda_torch.py                          the rows that the targets name
  python bench/peers/cuda_torch.py --all                    and the grid of the papers
  python bench/peers/cuda_torch.py --backward               the backward pass, and steps of training
  python bench/peers/cuda_torch.py --filter 'bf16.*x128$' --json r.json --plot r.svg

Peers are PyTorch's back ends cuDNN, FlashAttention and memory-efficient, backward by its autograd.
Rates are medians, in TFLOP/s (4*B*H*N*N*D forward, 10*B*H*N*N*D backward, half of that when causal;
a step is both and the layer's projections, three times their products), or in GB/s of K and V for
decoding, which goes round caches larger than the L2 cache. Inputs are random normal.

Two protocols, because the chip is limited by power: `short`, 3 + 10 calls after a pause, each
waited for; `steady`, the contestants in turns of --seconds without a pause between them, the
second half of each turn counted. `ratio` is ingot over the best peer. Decoding runs as CUDA graphs,
so that Python's own time is not measured. Ceilings in the same run: an 8192^3 bf16 product, and a
copy of 1 GiB (bytes read plus bytes written).

Needs: pip install . torch (and matplotlib for --plot).
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import cuda_cases
import cuda_contestants
import measure
from cuda_errors import errors

torch = measure.require("torch")

PEERS = ("cudnn", "flash", "efficient")
GRAPH_CALLS = 16


def timed(calls, run):
    """Seconds of each of `calls` calls on the GPU, queued one behind the other."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1e3 for a, b in zip(marks[:-1], marks[1:], strict=True)]


def one_short(run, pause):
    time.sleep(pause)
    return [timed(1, run)[0] for _ in range(13)][3:]


def short(runs, pause):
    """{name: median seconds}, in the order A B, B A."""
    samples = {name: [] for name in runs}
    for order in (list(runs), list(runs)[::-1]):
        for name in order:
            samples[name] += one_short(runs[name], pause)
    return {name: statistics.median(times) for name, times in samples.items()}


def steady(runs, expected, seconds, rounds=3):
    samples = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            calls = max(8, min(2000, round(seconds / expected[name])))
            samples[name] += timed(calls, run)[calls // 2 :]
    return {name: measure.spread(times) for name, times in samples.items()}


def graphed(entrant):
    """A graph of several calls; (run, calls)."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(2):
            entrant.run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(GRAPH_CALLS):
            entrant.run()
    return graph.replay, graph


def make_entrants(case, inputs, names):
    """({name: contestant}, {name: why it is not there})."""
    entrants, absent = {}, {}
    for name in names:
        try:
            entrant = cuda_contestants.make(name, case, inputs)
            entrant.run()
            torch.cuda.synchronize()
            entrants[name] = entrant
        except (
            RuntimeError,
            MemoryError,
        ) as error:  # PyTorch's, and those of ingot that a case can bring
            absent[name] = " ".join(str(error).split())[:300]
    return entrants, absent


def run_case(case, options):
    """{contestant: its times, rates and errors}, and why others are absent."""
    inputs = cuda_cases.make_inputs(case)
    names = PEERS if options.peers_only else ("ingot", *PEERS)
    entrants, absent = make_entrants(case, inputs, names)
    result = {}
    for name, entrant in entrants.items():
        worst, relative = errors(case, inputs, entrant)
        result[name] = {"max_error": worst, "relative_error": relative}
    graphs = {n: graphed(e) for n, e in entrants.items()} if case.is_decode else {}
    runs = {n: graphs[n][0] if graphs else e.run for n, e in entrants.items()}
    calls = GRAPH_CALLS if graphs else 1
    unit = 1e9 if case.is_decode else 1e12
    short_times = short(runs, options.pause)
    steady_times = steady(runs, short_times, options.seconds)
    for name in entrants:
        once = short_times[name] / calls
        spread = {k: v / calls if k.endswith("_s") else v for k, v in steady_times[name].items()}
        result[name] |= {"short_s": once, "short_rate": case.work / once / unit, **spread}
        result[name]["steady_rate"] = case.work / spread["median_s"] / unit
    return {"name": case.name, "unit": case.unit, **result, "absent": absent}


def best_peer(result, key):
    rates = {name: result[name][key] for name in PEERS if name in result}
    return max(rates.values()) if rates else None


HEADER = (
    f"{'case':38} {'ingot':>13} {'cudnn':>13} {'flash':>13} {'efficient':>13}"
    f" {'ratio':>11}  {'ingot err':>9} {'peer err':>9}"
)


def row(result):
    """short/steady rates, and their ratio to the best peer."""

    def rates(name):
        if name not in result:
            return "-"
        return f"{result[name]['short_rate']:.0f}/{result[name]['steady_rate']:.0f}"

    def ratio(key):
        peer = best_peer(result, key)
        return f"{result['ingot'][key] / peer:.2f}" if "ingot" in result and peer else "-"

    peers = [result[n]["relative_error"] for n in PEERS if n in result]
    ours = f"{result['ingot']['relative_error']:.1e}" if "ingot" in result else "-"
    return (
        f"{result['name']:38} {rates('ingot'):>13} {rates('cudnn'):>13} {rates('flash'):>13}"
        f" {rates('efficient'):>13} {ratio('short_rate') + '/' + ratio('steady_rate'):>11}"
        f"  {ours:>9} {min(peers, default=float('nan')):>9.1e}"
    )


def ceilings(options):
    """TFLOP/s of a bf16 product and TB/s of a copy, short and steady."""
    a, b = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    out = torch.empty_like(a)
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    runs = {"product": lambda: torch.mm(a, b, out=out), "copy": lambda: target.copy_(source)}
    result = {}
    for name, run in runs.items():
        work = 2 * 8192**3 / 1e12 if name == "product" else 2 * source.nbytes / 1e12
        once = short({name: run}, options.pause)
        full = steady({name: run}, once, options.seconds)
        result[name] = {"short": work / once[name], "steady": work / full[name]["median_s"]}
    return result


def first_calls():
    """Milliseconds of a process's first call: compiled, and with its kernels on disk; microseconds
    of a small call."""
    script = Path(__file__).with_name("cuda_first_call.py")
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"INGOT_CACHE_DIR": folder}
        for name in ("compiled_ms", "from_disk_ms"):
            ran = subprocess.run(
                [sys.executable, script], env=environment, capture_output=True, text=True
            )
            if ran.returncode != 0:
                raise OSError(f"{script.name}: {ran.stderr.strip().splitlines()[-1]}")
            told = json.loads(ran.stdout)
            result |= {name: told["first_ms"], "call_us": told["call_us"]}
    return result


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers-only", action="store_true", help="run PyTorch alone")
    parser.add_argument("--all", action="store_true", help="the grid of the papers too")
    parser.add_argument("--backward", action="store_true", help="backward and steps of training")
    parser.add_argument("--filter", default="", help="regular expression on the names of the cases")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and end")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a steady turn (default 0.2)")
    parser.add_argument("--pause", type=float, default=0.2, help="before short calls (default 0.2)")
    parser.add_argument("--budget", type=float, default=1e9, help="start no case after SECONDS")
    parser.add_argument("--json", metavar="FILE", help="write everything measured")
    parser.add_argument("--plot", metavar="FILE", help="write a chart (svg, png, pdf)")
    options = parser.parse_args()
    try:
        cases = cuda_cases.all_cases(options.all, options.backward)
        chosen = [c for c in cases if re.search(options.filter, c.name)]
    except re.error as error:
        parser.error(f"--filter must be a regular expression: {error}")
    if not chosen:
        parser.error(f"--filter must match a case (see --list), is {options.filter!r}")
    return options, chosen


def facts(options):
    properties = torch.cuda.get_device_properties(0)
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": measure.commit(),
        "command": " ".join(["python", *sys.argv]),
        "gpu": f"{properties.name}, {properties.multi_processor_count} multiprocessors",
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "ingot": None if options.peers_only else measure.require("ingot", ".").__version__,
    }


def write(report, options):
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    if options.plot:
        import cuda_plot

        cuda_plot.draw(report, options.plot)


def measured(options, chosen):
    start = time.perf_counter()
    report = {"facts": facts(options), "ceilings": ceilings(options), "cases": []}
    product, copy = report["ceilings"]["product"], report["ceilings"]["copy"]
    print(f"{report['facts']['gpu']}, torch {torch.__version__}, {report['facts']['date']}")
    print(f"8192^3 bf16 product {product['short']:.0f}/{product['steady']:.0f} TFLOP/s, ", end="")
    print(f"copy {copy['short']:.2f}/{copy['steady']:.2f} TB/s (short/steady)\n\n{HEADER}")
    for case in chosen:
        if time.perf_counter() - start > options.budget:
            print(f"{case.name:38} not run: {options.budget:.0f} s are over")
            continue
        result = run_case(case, options)
        report["cases"].append(result)
        print(row(result), flush=True)
        if "ingot" in result["absent"]:
            print(f"  ingot: {result['absent']['ingot']}")
        torch.cuda.empty_cache()
    if not (options.peers_only or options.backward):
        report["calls"] = first_calls()
        print("\n" + ", ".join(f"{k} {v:.1f}" for k, v in report["calls"].items()))
    return report


def main():
    options, chosen = parse_arguments()
    warnings.simplefilter("ignore")  # PyTorch's long words where a back end cannot do a case
    if options.list:
        print("\n".join(case.name for case in chosen))
        return
    if not torch.cuda.is_available():
        sys.exit("error: PyTorch finds no NVIDIA GPU")
    if options.plot:
        measure.require("matplotlib")
    write(measured(options, chosen), options)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"error: {error}")
