#!/usr/bin/env python3
"""Draws what cpu_torch.py --json wrote: a panel for each pass and dtype, ingot beside PyTorch.

  python bench/peers/plot.py result.json chart.svg

The dashed line is the measured ceiling: matrix product, or memory reads for decoding.
Needs: pip install matplotlib.
"""

import measure

BARS = {"ingot": "#b5651d", "torch": "#8a9ba8"}


def panels(report):
    """{"forward/f32": [case, ...]}, in the order of the table."""
    found = {}
    for case in report["cases"]:
        kind, dtype, _ = case["name"].split("/", 2)
        found.setdefault(f"{kind}/{dtype}", []).append(case)
    return found


def draw_panel(axes, title, cases):
    names = [name for name in BARS if name in cases[0]]
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        places = [row + (index - (len(names) - 1) / 2) * width for row in range(len(cases))]
        rates = [case[name]["rate"] for case in cases]
        axes.barh(places, rates, width, color=BARS[name], label=name)
    axes.axvline(cases[0]["ceiling"], color="black", linestyle="--", linewidth=1, label="ceiling")
    axes.set_yticks(
        range(len(cases)), [case["name"].split("/", 2)[2] for case in cases], fontsize=7
    )
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("GB/s" if title.startswith("decode") else "GFLOP/s", fontsize=7)
    axes.tick_params(axis="x", labelsize=7)


def draw(report, path):
    """Writes the chart; the file's ending says the format."""
    measure.require("matplotlib")
    from matplotlib.figure import Figure

    groups = panels(report)
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.6 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, cases) in zip(grid, groups.items(), strict=False):
        draw_panel(axes, title, cases)
    for axes in grid[len(groups) :]:
        axes.axis("off")
    facts = report["facts"]
    figure.suptitle(
        f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}", fontsize=9
    )
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    measure.chart_main(__doc__, draw)
