"""Draw README's chart of step times from results/step-time.json: seconds against width, both on logarithmic axes.

python scripts/step_time_chart.py
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from tightlip.records import BenchRow

ROOT = Path(__file__).parents[1]
NAMES = {
    "unconstrained": "unconstrained",
    "tightlip": "tightlip, |σ² − 1| < 1e-5 at every step",
    "torch spectral_norm": "torch spectral_norm (not orthonormal)",
    "torch cayley": "torch orthogonal, Cayley",
    "paper, 3 iterations": "the paper's 3 iterations",
    "deel-torchlip": "deel-torchlip",
    "orthogonium": "orthogonium",
    "paper, 15 iterations": "the paper's 15 iterations",
    "geotorch": "geotorch",
    "torch matrix_exp": "torch orthogonal, matrix_exp",
    "torch householder": "torch orthogonal, householder",
}


def draw(row: BenchRow) -> Figure:
    """One panel per batch size."""
    widths, batches = row.config["widths"], row.config["batches"]
    figure = Figure(figsize=(9.6, 4.4), dpi=160, layout="constrained")
    colors = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for panel, batch in zip(figure.subplots(1, len(batches), sharey=True, squeeze=False)[0], batches, strict=True):
        for color, (name, label) in zip(colors, NAMES.items(), strict=False):
            rows = [row.results["rows"][f"n={n} batch={batch}"] for n in widths]
            if not all(name in r for r in rows):
                continue
            times = [1e3 * r[name]["ratio"] * r["unconstrained_seconds"] for r in rows]
            ours = name in ("tightlip", "unconstrained")
            style = {"color": "black" if name == "unconstrained" else "#d6006e"} if ours else {"color": color}
            panel.plot(widths, times, "o-", label=label, linewidth=2.4 if ours else 1.1, markersize=4, **style)
        panel.set(xscale="log", yscale="log", xlabel="width n of 784-n-n-n-10", title=f"batch {batch}")
        panel.set_xticks(widths, map(str, widths))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    figure.axes[0].set_ylabel("milliseconds of a training step")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=8, frameon=False)
    return figure


def main() -> None:
    """From the committed row."""
    row = BenchRow.read(ROOT / "results" / "step-time.json")
    draw(row).savefig(ROOT / "docs" / "images" / "step-time.png")


if __name__ == "__main__":
    main()
