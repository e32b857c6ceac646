#!/usr/bin/env python3
"""Draws what cuda_torch.py --json wrote: steady rates, ingot beside PyTorch's back ends.

  python bench/peers/cuda_plot.py result.json chart.svg

The dashed line is the ceiling of the same run: the bf16 product, or the copy for decoding.
Needs: pip install matplotlib.
"""

import measure

BARS = {"ingot": "#b5651d", "cudnn": "#5b7083", "flash": "#8a9ba8", "efficient": "#bcc8d1"}


def panels(report):
    """{kind: [case, ...]}, in the order of the table."""
    found = {}
    for case in report["cases"]:
        found.setdefault(case["name"].split("/", 1)[0], []).append(case)
    return found


def draw_panel(axes, title, cases, limit):
    height = 0.8 / len(BARS)
    for index, (name, color) in enumerate(BARS.items()):
        rows = [r for r, case in enumerate(cases) if name in case]
        places = [row + (index - (len(BARS) - 1) / 2) * height for row in rows]
        rates = [cases[row][name]["steady_rate"] for row in rows]
        axes.barh(places, rates, height, color=color, label=name)
    axes.axvline(limit, color="black", linestyle="--", linewidth=1, label="ceiling")
    names = [case["name"].split("/", 1)[1] for case in cases]
    axes.set_yticks(range(len(cases)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(f"{cases[0]['unit']}, steady", fontsize=7)
    axes.tick_params(axis="x", labelsize=7)


def draw(report, path):
    """Writes the chart; the file's ending says the format."""
    measure.require("matplotlib")
    from matplotlib.figure import Figure

    ceilings, groups = report["ceilings"], panels(report)
    product, copy = ceilings["product"]["steady"], ceilings["copy"]["steady"] * 1e3
    heights = [len(cases) + 1 for cases in groups.values()]
    figure = Figure(figsize=(8, 0.42 * sum(heights) + 1), layout="constrained")
    grid = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights).flatten()
    for axes, (title, cases) in zip(grid, groups.items(), strict=True):
        draw_panel(axes, title, cases, copy if title == "decode" else product)
    facts = report["facts"]
    figure.suptitle(f"{facts['gpu']}, torch {facts['torch']}, {facts['date'][:10]}", fontsize=9)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    measure.chart_main(__doc__, draw)
