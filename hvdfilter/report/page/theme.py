"""The colours of the page and of its figures, in light and in dark, and how figures are set.

On the page a figure names its colours as CSS variables, so that a switch of theme, or printing,
redraws nothing; a figure in a file of its own has the light ones. Lines differ in dash too, for
those who do not tell colours apart.
"""

from __future__ import annotations

from typing import Any

# Text of 4.5:1 and lines of 3:1 against the background (WCAG 2.2, 1.4.3 and 1.4.11).
LIGHT = {
    "back": "#ffffff",
    "text": "#1d1f23",
    "quiet": "#54585f",
    "rule": "#d6d9de",
    "link": "#0a58a8",
    "soft": "#f2f4f7",
    "alarm": "#a8320a",
    **{"line1": "#0a62b0", "line2": "#c2480a", "line3": "#08795a"},
    **{"line4": "#8b3a96", "line5": "#6b6410", "line6": "#50545c"},
}
DARK = {
    "back": "#14161a",
    "text": "#e9eaec",
    "quiet": "#a9aeb8",
    "rule": "#3b3f47",
    "link": "#82bcff",
    "soft": "#1f2228",
    "alarm": "#ff9d73",
    **{"line1": "#69b1ff", "line2": "#ff9a55", "line3": "#3fcf9f"},
    **{"line4": "#d99be3", "line5": "#d3cb58", "line6": "#c3c7ce"},
}
LINES = 6
DASHES = ([1, 0], [7, 3], [2, 2], [8, 2, 2, 2], [14, 4], [8, 2, 2, 2, 2, 2])
SEQUENTIAL = "viridis"  # grows in lightness alone too, and shows on white as on black
FONT = "system-ui, sans-serif"


def line(number: int) -> tuple[int, int]:
    """(colour from 1, dash from 0) of the n-th line; six differ in both, 36 in one of them."""
    return number % LINES + 1, (number + number // LINES) % len(DASHES)


def scales(labels: list[str]) -> dict[str, Any]:
    """The channels of a Vega-Lite encoding by which lines of so many groups are told apart."""
    looks = [line(number) for number in range(len(labels))]
    colours = [f"var(--line{colour})" for colour, _ in looks]
    dashes = [DASHES[dash] for _, dash in looks]
    common = {"field": "run", "type": "nominal", "title": None}
    return {
        "color": {**common, "scale": {"domain": labels, "range": colours}},
        "strokeDash": {**common, "scale": {"domain": labels, "range": dashes}},
    }


def config() -> dict[str, Any]:
    """What all figures have in common, as Vega-Lite's `config`."""
    text = {"labelColor": "var(--quiet)", "titleColor": "var(--quiet)", "titleFontWeight": "normal"}
    return {
        "background": "transparent",
        "font": FONT,
        "aria": False,  # the figure has a text alternative of its own, and a table
        "view": {"stroke": None},
        "axis": {
            **text,
            **{"gridColor": "var(--rule)", "domainColor": "var(--rule)"},
            **{"tickColor": "var(--rule)", "labelFontSize": 12, "titleFontSize": 12},
            **{"labelOverlap": "greedy", "labelSeparation": 6, "tickCount": 5},
        },
        "legend": {
            **text,
            **{"orient": "top", "direction": "vertical", "labelLimit": 400, "labelFontSize": 12},
            **{"titleFontSize": 12, "symbolType": "stroke", "symbolSize": 300},
            **{"gradientLength": 160, "gradientThickness": 10},
            **{"labelOverlap": "greedy", "labelSeparation": 6},
        },
    }


def resolved(spec: Any, colours: dict[str, str] = LIGHT) -> Any:
    """A copy of a specification with each `var(--name)` replaced by its colour."""
    if isinstance(spec, dict):
        return {key: resolved(value, colours) for key, value in spec.items()}
    if isinstance(spec, list):
        return [resolved(value, colours) for value in spec]
    if isinstance(spec, str) and spec.startswith("var(--"):
        return colours[spec.removeprefix("var(--").removesuffix(")")]
    return spec
