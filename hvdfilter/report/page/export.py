"""vl-convert, which brings Vega-Lite: its JavaScript for the page, and figures as SVG or PNG files.

Nothing is ever fetched, neither here nor by the page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvdfilter import files
from hvdfilter.errors import InputError
from hvdfilter.report.page import theme
from hvdfilter.report.page.figure import Panel

WIDTH = 640  # pixels of a figure in a file of its own
KINDS = ("svg", "png")


def converter() -> Any:
    """The module `vl_convert`; `InputError` where it is not installed."""
    try:
        import vl_convert
    except ModuleNotFoundError:
        raise InputError(
            "the report's figures need vl-convert: pip install 'hvdfilter[report]'"
        ) from None
    return vl_convert


def script() -> str:
    """The JavaScript that draws figures: Vega, Vega-Lite and Vega-Embed in one."""
    bundle = str(converter().javascript_bundle())
    # These would end or change the element that they are written in; in a string they are the same.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def export(panels: Sequence[Panel], folder: Path, kind: str) -> list[Path]:
    """Write each figure to `folder`, as `report-NAME.svg` or `.png`; returns the paths."""
    convert, paths = converter(), []
    for panel in panels:
        for figure in panel.figures:
            whole = {
                **figure.spec,
                "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
                "title": figure.title,
                "width": WIDTH,
                "config": theme.config() | {"background": "white"},
                "datasets": panel.data,
            }
            spec = json.dumps(theme.resolved(whole))
            if kind == "svg":
                drawn = convert.vegalite_to_svg(spec).encode()
            else:
                drawn = convert.vegalite_to_png(spec, scale=2)
            path = folder / f"report-{figure.name}.{kind}"
            files.write(path, drawn)
            paths.append(path)
    return paths
