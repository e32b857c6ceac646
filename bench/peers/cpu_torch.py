#!/usr/bin/env python3
"""ingot against PyTorch's attention on the CPU: one process, the same threads, turn by turn.

  python bench/peers/cpu_torch.py                         everything
  python bench/peers/cpu_torch.py --filter 'f32/.*causal' cases whose name matches the expression
  python bench/peers/cpu_torch.py --json r.json --plot r.svg

Rates are medians, in GFLOP/s, or in GB/s for decoding. `ratio` is ingot over PyTorch's flash back
end, `math` PyTorch's plain formula. The percentiles are parts of the median time. `ceiling` is the
part that ingot reaches of what this machine did in the same run: torch.mm in the dtype of the case
or in f32, whichever is faster, or, for decoding, reads of an array far larger than the caches.

FLOPs: forward 4*B*H*N*N*D, backward 10*B*H*N*N*D, half of that when causal. Decoding counts the
bytes of K and V, and goes round so many caches that no K or V is still in the processor's cache.
Inputs are random normal. Errors are the largest absolute difference from float64 on the first
head, over o or over dq, dk and dv.

Both sides make their outputs in each call, as their users' calls do.

Needs: pip install . torch numpy (and matplotlib for --plot).
"""

import argparse
import itertools
import json
import re
import statistics
import sys
import time
from pathlib import Path

import contestants
import measure
from contestants import Case, Flash, Ingot, Plain

numpy = measure.require("numpy")
torch = measure.require("torch")

HEADER = (
    f"{'case':38} {'ingot':>7} {'torch':>7} {'ratio':>6} {'math':>7} {'ceiling':>7}"
    f"  {'ingot p10-p90':>13} {'torch p10-p90':>13} {'ingot err':>9} {'torch err':>9}"
)


def run_case(case, options):
    """{contestant: its times, rate and error}."""
    inputs = contestants.make_inputs(case)
    entrants = {} if options.peers_only else {"ingot": Ingot(case, inputs)}
    entrants["torch"] = Flash(case, inputs)
    if not options.no_math:
        entrants["math"] = Plain(case, inputs)
    samples = measure.interleave({name: e.run for name, e in entrants.items()}, options.seconds)
    expected = contestants.reference(case, inputs)
    result = {}
    for name, entrant in entrants.items():
        timing = measure.spread(samples[name])
        timing["rate"] = case.work / timing["median_s"] / 1e9
        timing["max_error"] = contestants.max_error(entrant.results, expected)
        result[name] = timing
    return result


def ceiling(case, machine):
    if case.kind == "decode":
        return machine["read_gbps"]
    products = machine["matrix_product_gflops"]
    return max(products[case.dtype], products["f32"])


def row(case, result, machine):
    """One line of the table; '-' for whoever did not run."""

    def shown(name, key, form):
        return format(result[name][key], form) if name in result else "-"

    def percentiles(name):
        if name not in result:
            return "-"
        times = result[name]
        return f"{times['p10_s'] / times['median_s']:.2f}-{times['p90_s'] / times['median_s']:.2f}"

    first = "ingot" if "ingot" in result else "torch"
    ratio = f"{result['ingot']['rate'] / result['torch']['rate']:.2f}" if first == "ingot" else "-"
    part = f"{result[first]['rate'] / ceiling(case, machine):.0%}"
    return (
        f"{case.name:38} {shown('ingot', 'rate', '.1f'):>7} {shown('torch', 'rate', '.1f'):>7}"
        f" {ratio:>6} {shown('math', 'rate', '.1f'):>7} {part:>7}"
        f"  {percentiles('ingot'):>13} {percentiles('torch'):>13}"
        f" {shown('ingot', 'max_error', '.1e'):>9} {shown('torch', 'max_error', '.1e'):>9}"
    )


def microseconds(call, times):
    samples = []
    for _ in range(times):
        before = time.perf_counter()
        call()
        samples.append(time.perf_counter() - before)
    return statistics.median(samples) * 1e6


def overhead():
    """Median microseconds of calls on 1x1x1x1, outputs included, and with lengths not seen for
    long: a hundred in a circle, more than the plans that are kept."""
    result = {}
    for kind in ("forward", "backward"):
        tiny = Case(kind, "f32", 1, 1, 1, 1, 1)
        result[f"{kind}_us"] = microseconds(Ingot(tiny, contestants.make_inputs(tiny)).run, 20000)
    cases = [Case("forward", "f32", 1, 1, 1, n, 1) for n in range(1, 101)]
    circle = itertools.cycle([Ingot(case, contestants.make_inputs(case)) for case in cases])
    result["new_lengths_us"] = microseconds(lambda: next(circle).run(), 20000)
    return result


def workspace_bytes(case):
    import ingot

    shape = {"batch": case.batch, "num_heads": case.heads, "head_dim": case.head_dim}
    lengths = {"seqlen_q": case.seqlen_q, "seqlen_k": case.seqlen_k}
    plan = ingot.explain(**shape, **lengths, device="cpu", format="json")
    return plan[case.kind]["workspace_bytes"]


def memory_of(case):
    """Peak extra bytes of one call of each side, beyond the tensors that it gives back."""

    def extra(entrant):
        peak = measure.peak_extra_bytes(entrant.run)
        size = sum(t.numel() * t.itemsize for t in entrant.results)
        return None if peak is None else max(0, peak - size)

    inputs = contestants.make_inputs(case)
    return {
        "case": case.name,
        "workspace_bytes": workspace_bytes(case),
        "ingot_peak_bytes": extra(Ingot(case, inputs)),
        "torch_peak_bytes": extra(Flash(case, inputs)),
    }


def memory():
    """Two lengths of each pass: what grows with the length squared shows at once."""
    cases = itertools.product(("forward", "backward"), (2048, 16384))
    memory_of(Case("backward", "f32", 1, 1, 64, 64, 64))  # brings the code itself into memory
    return [memory_of(Case(kind, "f32", 1, 2, n, n, 64)) for kind, n in cases]


def kib(size):
    return "unknown" if size is None else f"{size / 1024:.0f} KiB"


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers-only", action="store_true", help="run PyTorch alone")
    parser.add_argument("--no-math", action="store_true", help="leave PyTorch's plain formula out")
    parser.add_argument("--no-extras", action="store_true", help="leave out call costs and memory")
    parser.add_argument("--filter", default="", help="regular expression on the names of the cases")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and end")
    parser.add_argument("--threads", type=int, default=measure.usable_threads())
    parser.add_argument("--seconds", type=float, default=1.0, help="per case (default 1)")
    parser.add_argument("--json", metavar="FILE", help="write everything measured")
    parser.add_argument("--plot", metavar="FILE", help="write a chart (svg, png, pdf)")
    options = parser.parse_args()
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, is {options.threads}")
    if options.seconds <= 0:
        parser.error(f"--seconds must be above 0, is {options.seconds}")
    try:
        chosen = [c for c in contestants.all_cases() if re.search(options.filter, c.name)]
    except re.error as error:
        parser.error(f"--filter must be a regular expression: {error}")
    if not chosen:
        parser.error(f"--filter must match a case (see --list), is {options.filter!r}")
    return options, chosen


def print_machine(report):
    machine, facts = report["ceilings"], report["facts"]
    products = ", ".join(
        f"{name} {rate:.1f}" for name, rate in machine["matrix_product_gflops"].items()
    )
    reads = ", ".join(f"{n} {rate:.1f}" for n, rate in machine["read_gbps_by_method"].items())
    print(f"{facts['cpu']}, {facts['threads']} threads, {facts['date']}, commit {facts['commit']}")
    print(f"torch {facts['torch']}, ingot {facts.get('ingot', '-')}: {facts.get('device', '-')}")
    print(f"matrix product, GFLOP/s: {products}")
    print(f"memory reads, GB/s: {reads}\n\n{HEADER}")


def print_extras(report):
    cost = report["overhead"]
    print(
        f"\ncall on 1x1x1x1: forward {cost['forward_us']:.1f} us,"
        f" backward {cost['backward_us']:.1f} us; with new lengths {cost['new_lengths_us']:.1f} us"
    )
    for entry in report["memory"]:
        print(
            f"peak extra memory, {entry['case']}: ingot {kib(entry['ingot_peak_bytes'])}"
            f" (workspace {kib(entry['workspace_bytes'])}), torch {kib(entry['torch_peak_bytes'])}"
        )


def ingot_facts(threads):
    """Limits ingot to `threads` as well; its version and what it says of the device."""
    ingot = measure.require("ingot", ".")
    ingot.set_num_threads(threads)
    return {"ingot": ingot.__version__, "device": f"cpu: {dict(ingot.devices())['cpu']}"}


def measured(options, chosen):
    """Runs everything, printing as it goes; returns the report."""
    versions = {"torch": torch.__version__, "numpy": numpy.__version__}
    if not options.peers_only:
        versions |= ingot_facts(options.threads)
    machine = measure.ceilings(torch, numpy, options.threads, max(1.0, options.seconds))
    report = {"facts": measure.facts(options.threads, versions), "ceilings": machine, "cases": []}
    print_machine(report)
    for case in chosen:
        result = run_case(case, options)
        report["cases"].append({"name": case.name, "ceiling": ceiling(case, machine), **result})
        print(row(case, result, machine), flush=True)
    if not (options.peers_only or options.no_extras):
        report["overhead"] = overhead()
        report["memory"] = memory()
        print_extras(report)
    return report


def main():
    options, chosen = parse_arguments()
    if options.list:
        print("\n".join(case.name for case in chosen))
        return
    if options.plot:
        measure.require("matplotlib")
    torch.set_num_threads(options.threads)
    report = measured(options, chosen)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    if options.plot:
        import plot

        plot.draw(report, options.plot)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"error: {error}")
