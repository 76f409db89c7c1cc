"""Memory over rows done, one line for each run, as a picture."""

from collections.abc import Sequence
from typing import Any

_TITLES = {"stage": "Staging (StageBatches)", "collect": "Collecting (CollectBatches)"}
_COLOURS = ("#e69f00", "#56b4e9", "#0b3c6f")
_INK = "#404040"


def draw(samples: Sequence[dict[str, Any]], path: str) -> None:
    """Draw each side's runs in a panel of its own.

    Args:
        samples: of `batch_path`: side, rows, base_mb, peak_mb and curve.
        path: the PNG.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    sides = [side for side in _TITLES if any(sample["side"] == side for sample in samples)]
    figure, panels = plt.subplots(1, len(sides), figsize=(12, 4.8), sharey=True, squeeze=False, layout="constrained")
    for side, panel in zip(sides, panels[0], strict=True):
        _draw_side(panel, [sample for sample in samples if sample["side"] == side])
        panel.set_title(_TITLES[side], loc="left", color=_INK)
    panels[0][0].set_ylabel("resident memory, MB", color=_INK)
    panels[0][0].set_ylim(bottom=0, top=1.35 * max(sample["peak_mb"] for sample in samples))
    figure.suptitle("Memory of the batch stages while rows pass through them", x=0.01, ha="left", weight="bold")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_side(panel: Any, samples: Sequence[dict[str, Any]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ordered = sorted(samples, key=lambda sample: sample["rows"])
    for place, (colour, sample) in enumerate(zip(_COLOURS, ordered, strict=False)):
        # The widest line below, so that runs that need the same can all be seen.
        width = 1.4 * (len(ordered) - place)
        rows, held = [max(1, point[1]) for point in sample["curve"]], [point[2] for point in sample["curve"]]
        above = sample["peak_mb"] - sample["base_mb"]
        label = f"{sample['rows']:,} rows: peak {sample['peak_mb']:.0f} MB, {above:.0f} MB above its start"
        panel.plot(rows, held, color=colour, linewidth=width, solid_capstyle="round", label=label)
        panel.plot(rows[-1], held[-1], "o", color=colour, markersize=width + 2.5)
    panel.axhline(ordered[0]["base_mb"], color="#999999", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    panel.annotate(
        "before the first row",
        (0.99, ordered[0]["base_mb"]),
        xycoords=panel.get_yaxis_transform(),
        xytext=(0, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8.5,
        color="#777777",
    )
    panel.set_xscale("log")
    panel.set_xlim(left=100 if ordered[-1]["rows"] > 10_000 else 1, right=1.6 * ordered[-1]["rows"])
    panel.xaxis.set_major_locator(LogLocator(base=10))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda rows, _: f"{rows:,.0f}"))
    panel.set_xlabel("rows done (logarithmic)", color=_INK)
    panel.grid(visible=True, color="#e6e6e6", linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(loc="upper left", frameon=False, fontsize=9)
