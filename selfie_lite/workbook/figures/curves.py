"""Numbers over steps, labels and locations, each beside chance."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from selfie_lite.workbook.figures.canvas import BLUE, GREEN, GREY, LINES, figure, show_legend


def draw_curves(
    curves: dict[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    title: str = "",
    chance: float | None = None,
    log_x: bool = False,
    marks: bool = True,
    width: float = 6,
) -> Figure:
    """Curves, told apart by colour, dash and marker, and chance as a dotted line: {name: (x, y)}."""
    with figure(1, 1, width, 3.4) as (fig, axes):
        ax = axes[0, 0]
        for (color, dash, marker), (name, (x, y)) in zip(LINES, curves.items(), strict=False):
            mark = marker if marks else None
            ax.plot(np.asarray(x), np.asarray(y), color=color, ls=dash, marker=mark, ms=4, label=name)
        if chance is not None:
            ax.axhline(chance, color="black", ls=":", label=f"chance: {chance:.3g}")
        ax.set(xlabel=x_label, ylabel=y_label, title=title)
        if log_x:
            ax.set_xscale("log")
        elif all(float(at).is_integer() for x, _ in curves.values() for at in x):  # steps, counts: no 1.5 of them
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        if len(curves) > 1 or chance is not None:
            show_legend(ax)
    return fig


def draw_training(steps: Sequence[int], loss: Sequence[float], held_out: dict[int, float], choices: int) -> Figure:
    """Training loss of every step, and accuracy on held-out images {step: accuracy}, each beside chance: that of one
    right answer among `choices`."""
    with figure(1, 2, 10, 3.2) as (fig, axes):
        left, right = axes[0]
        left.plot(steps, loss, color=BLUE, lw=1)
        left.axhline(np.log(choices), color="black", ls=":", label=f"chance: ln {choices} = {np.log(choices):.2f}")
        left.set(xlabel="step", ylabel="loss (nats)", title="training loss")
        right.plot(list(held_out), list(held_out.values()), color=GREEN, marker="o")
        right.axhline(1 / choices, color="black", ls=":", label=f"chance: 1/{choices} = {1 / choices:.2f}")
        right.set(xlabel="step", ylabel="accuracy", title="accuracy on held-out images", ylim=(0, None))
        for ax in axes[0]:
            ax.legend(framealpha=1)
    return fig


def draw_fractions(table: Sequence[dict], chance: float, title: str = "") -> Figure:
    """Test accuracy by the number of labels: every run a point, a bar at each arm's mean, and grey lines from the runs
    of the first arm, the baseline, to those of the same seed, which share labels, order and fresh weights.

    Args:
        table: of `fraction_table`.
        chance: accuracy of guessing.
    """
    counts, arms = sorted({row["images"] for row in table}), list(dict.fromkeys(row["arm"] for row in table))
    middle = (len(arms) - 1) // 2
    places = arms[1 : 1 + middle] + arms[:1] + arms[1 + middle :]  # the baseline stands in the middle
    with figure(1, 1, 7, 3.8) as (fig, axes):
        ax = axes[0, 0]
        points: dict[tuple, tuple[float, float]] = {}
        for arm, (color, _, marker) in zip(arms, LINES, strict=False):
            label: str | None = arm if arm == "scratch" else f"P of {arm}"
            for row in (row for row in table if row["arm"] == arm):
                x = counts.index(row["images"]) + 0.6 * (places.index(arm) + 0.5) / len(arms) - 0.3
                ax.plot([x - 0.07, x + 0.07], [row["mean"]] * 2, color=color, lw=2.5, zorder=1)
                ax.scatter([x] * len(row["runs"]), [*row["runs"].values()], color=color, marker=marker, s=28, ec="k",
                           lw=0.5, label=label, zorder=2)  # fmt: skip
                label = None
                points |= {(arm, row["images"], seed): (x, accuracy) for seed, accuracy in row["runs"].items()}
        for (arm, *pair), point in points.items():
            if arm != arms[0] and (base := points.get((arms[0], *pair))):
                ax.plot(*zip(base, point, strict=True), color=GREY, lw=0.7, zorder=0)
        ax.axhline(chance, color="black", ls=":", label=f"chance: {chance:.2f}")
        ax.set_xticks(range(len(counts)), [f"{n:,}" for n in counts])
        ax.set(xlabel="labelled images", ylabel="test accuracy", title=title, ylim=(0, None))
        show_legend(ax, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig
