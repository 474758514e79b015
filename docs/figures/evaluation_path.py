"""The path of one evaluation, from the point a method asks for and back."""

from drawing import GREY, OTHER, OURS, THIRD, save
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

rcParams["svg.hashsalt"] = "zo_bilevel"
figure = Figure(figsize=(10.4, 3.9), layout="constrained")
panel = figure.subplots()
panel.set(xlim=(0, 113), ylim=(2, 41))
panel.axis("off")
BOXES = {
    "method": (2, 24, "methods/", "rounds(search)\nyields points,\nreceives evaluations", OURS),
    "loop": (32, 24, "run/loop.py", "asks, charges the\nledger, applies the\nstop rules", THIRD),
    "evaluator": (62, 24, "run/evaluator.py", "names, seeds,\nbatches, judges", THIRD),
    "store": (62, 4, "store/", "found: not solved again\nnew: on disk first", GREY),
    "dispatch": (92, 24, "solve/dispatch/", "in this process, in\nothers, as one batch", OTHER),
    "inner": (92, 4, "inner(phi)", "your solver", GREY),
    "outer": (32, 4, "problem/objectives/", "f(theta, phi) and its\nderivatives", GREY),
}
WIDTH, HEIGHT = 18, 12.6
for x, y, title, text, colour in BOXES.values():
    panel.add_patch(
        FancyBboxPatch((x, y), WIDTH, HEIGHT, "round,pad=0.6", fc=colour, ec=colour, alpha=0.12)
    )
    panel.text(x + WIDTH / 2, y + HEIGHT - 0.5, title, ha="center", va="top", weight="bold")
    panel.text(x + WIDTH / 2, y + HEIGHT - 3.6, text, ha="center", va="top", fontsize=8.5)


Place = tuple[float, float]


def arrow(start: Place, end: Place, label: str, where: Place, colour: str = GREY) -> None:
    """Draw an arrow and what goes along it."""
    panel.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.4})
    panel.text(*where, label, ha="center", va="center", fontsize=8.5, color=colour)


for left, right, forth, back in (
    ("method", "loop", "points", "evaluations"),
    ("loop", "evaluator", "points", "evaluations"),
    ("evaluator", "dispatch", "jobs", "outcomes"),
):
    start, end = BOXES[left][0] + WIDTH + 0.8, BOXES[right][0] - 0.8
    middle = (start + end) / 2
    arrow((start, 33.5), (end, 33.5), forth, (middle, 34.9), OURS)
    arrow((end, 27.5), (start, 27.5), back, (middle, 28.9), OTHER)
for x, label in ((71, "find, add"), (101, "phi in, theta out")):
    arrow((x, 23.2), (x, 17.8), label, (x + 6, 20.5))
arrow((63, 23.2), (50.6, 14), "theta in, loss out", (48, 20.5))
save(figure, __file__)
