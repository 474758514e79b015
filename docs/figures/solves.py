"""Loss against solves on the rod of 64 unknowns, next to methods that see theta or one number."""

import numpy as np
from drawing import GREY, OTHER, OURS, THIRD, make_figure, save

import zo_bilevel as zb
from zo_bilevel import tasks

SOLVES = 200
methods = {
    "zo_bilevel": zb.DefaultMethod(),
    "DFO-LS": zb.DFOLS("prior"),
    "(FG)²U-ZO + Adam": zb.GradientMethod(zb.FG2UZO(), lr=0.1),
    "Nevergrad CMA": zb.Nevergrad("CMA", "prior"),
    "Nevergrad Cobyla": zb.Nevergrad("Cobyla", "prior"),
}
styles = ((OURS, "-"), ("#CC79A7", "--"), (OTHER, "--"), (THIRD, "-."), (GREY, ":"))
comparison = zb.compare(tasks.load("heat-field"), methods, max_solves=SOLVES, seeds=range(5))
figure, (panel,) = make_figure(1)
for (label, _), (colour, line) in zip(methods.items(), styles, strict=True):
    curves = np.empty((len(comparison.seeds), SOLVES))
    for row, run in zip(curves, comparison.runs_of(label), strict=True):
        for step in run.improvements:
            row[step.solve - 1 :] = step.loss
    low, middle, high = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
    solves = np.arange(1, SOLVES + 1)
    panel.fill_between(solves, low, high, color=colour, alpha=0.15, lw=0)
    panel.plot(solves, middle, color=colour, ls=line, label=label)
panel.set(xlabel="solves", ylabel="best loss so far", yscale="log", ylim=(1e-16, 0.1))
panel.legend(frameon=False, fontsize=8)
figure.set_size_inches(6.0, 3.8)
save(figure, __file__)
