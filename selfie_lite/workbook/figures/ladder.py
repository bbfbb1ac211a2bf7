"""Arms of an experiment against a baseline, every run a point."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from selfie_lite.workbook.figures.canvas import BLUE, GREY, ORANGE, figure, show_legend


def draw_differences(rows: Sequence[dict], label: str, title: str = "") -> Figure:
    """Each arm's difference to a baseline: every seed a point, the mean, and its interval where there is one.

    Args:
        rows: of `evaluation.ladder.paired_differences`.
    """
    with figure(1, 1, 7.5, 1.2 + 0.42 * len(rows)) as (fig, axes):
        ax = axes[0, 0]
        for y, row in enumerate(rows):
            if row["low"] is not None:
                ax.plot([row["low"], row["high"]], [y, y], color=GREY, lw=5, alpha=0.45, solid_capstyle="butt")
            ax.plot([row["mean"]] * 2, [y - 0.28, y + 0.28], color="black", lw=1.5)
            ax.scatter(list(row["differences"].values()), [y] * len(row["differences"]), color=BLUE, ec="black", lw=0.5)
        ax.axvline(0, color="black", ls=":")
        ax.set_yticks(range(len(rows)), [row["arm"] for row in rows])
        ax.set(xlabel=label, title=title, ylim=(len(rows) - 0.4, -0.6))
        ax.plot([], [], color="black", lw=1.5, label="mean")
        ax.scatter([], [], color=BLUE, ec="black", lw=0.5, label="one seed")
        if any(row["low"] is not None for row in rows):
            ax.plot([], [], color=GREY, lw=5, alpha=0.45, label="95 % interval")
        show_legend(ax, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def draw_points(
    points: dict[str, tuple[float, float]], x_label: str, y_label: str, floors: dict[str, float], title: str = ""
) -> Figure:
    """Arms as points {name: (x, y)} with their names; `floors` are levels of y, as dotted lines."""
    with figure(1, 1, 7.5, 4.2) as (fig, axes):
        ax = axes[0, 0]
        for number, (name, (x, y)) in enumerate(sorted(points.items(), key=lambda item: item[1])):
            ax.scatter(x, y, color=ORANGE, ec="black", s=45)
            side = ("right", -8) if number % 2 == 0 else ("left", 8)  # so that names of neighbours do not collide
            ax.annotate(name, (x, y), xytext=(side[1], 6), textcoords="offset points", fontsize=9, ha=side[0])
        for name, level in floors.items():
            ax.axhline(level, color="black", ls=":", lw=1)
            ax.annotate(
                name, (1, level), xycoords=("axes fraction", "data"), xytext=(4, -3), textcoords="offset points"
            )
        ax.set(xlabel=x_label, ylabel=y_label, title=title)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.15 * max([*(y for _, y in points.values()), *floors.values()]))
    return fig
