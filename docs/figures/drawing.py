"""What the figures of the documentation have in common."""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib import rcParams
from matplotlib.figure import Figure

OURS, OTHER, THIRD, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"


def make_figure(num_panels: int) -> tuple[Figure, list]:
    """Panels side by side, with nothing in the file that changes from run to run."""
    rcParams["svg.hashsalt"] = "zo_bilevel"
    figure = Figure(figsize=(4.2 * num_panels, 3.3), layout="constrained")
    panels = list(figure.subplots(1, num_panels, squeeze=False)[0])
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def save(figure: Figure, script: str) -> None:
    """Write the figure beside its script, or into the folder given on the command line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(script).parent
    suffix = sys.argv[2] if len(sys.argv) > 2 else ".svg"
    metadata = {"Date": None} if suffix == ".svg" else None
    figure.savefig(folder / (Path(script).stem + suffix), metadata=metadata, dpi=110)
