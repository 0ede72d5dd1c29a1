"""The plot of benchmarks.kernels: milliseconds of every variant by shape, on log scales."""

from __future__ import annotations

from pathlib import Path

from benchmarks.kernel_table import Row


def plot(rows: list[Row], path: Path) -> bool:
    """Write one panel an operation and dtype to `path`; False where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys((r.what, r.dtype) for r in rows))
    figure, axes = pyplot.subplots(
        len(groups), 1, figsize=(9, 2.6 * len(groups)), squeeze=False, layout="constrained"
    )
    for axis, group in zip(axes[:, 0], groups, strict=True):
        mine = [r for r in rows if (r.what, r.dtype) == group]
        shapes = list(dict.fromkeys(r.shape for r in mine))
        variants = list(dict.fromkeys(r.variant for r in mine))
        for k, variant in enumerate(variants):
            heights = [r.p50 * 1e3 for r in mine if r.variant == variant]
            places = [i + 0.6 * (k / len(variants) - 0.4) for i in range(len(heights))]
            axis.plot(places, heights, "o", label=variant)  # a bar has no foot on a log scale
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.set_ylim(low / 2, high * 2)  # or two points 3 % apart would span the axis
        axis.grid(axis="y", which="both", alpha=0.3)
        axis.set_xlim(-0.6, len(shapes) - 0.1)
        axis.set_xticks(range(len(shapes)), shapes)
        axis.set_ylabel("ms")
        axis.set_title(f"{group[0]}, {group[1]}", loc="left", fontsize=10)
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)
    return True
