"""Directions drawn from a field's prior, smooth first, beside directions drawn evenly."""

import numpy as np
from drawing import OTHER, OURS, THIRD, make_figure, save

import zo_bilevel as zb
from zo_bilevel.estimators.directions import draw_directions

SIZE = 64
space = zb.Space(field=zb.Real(-5, 5, shape=(SIZE,), correlation_length=0.1))
cells = (np.arange(SIZE) + 0.5) / SIZE
figure, panels = make_figure(2)
titles = {"prior": "from the prior", "orthogonal": "drawn evenly"}
for panel, (family, title) in zip(panels, titles.items(), strict=True):
    directions, _ = draw_directions(family, 3, space.prior, np.random.default_rng(3))
    pairs = zip(directions.T, (OURS, OTHER, THIRD), strict=True)
    for place, (direction, colour) in enumerate(pairs):
        panel.plot(cells, direction / np.abs(direction).max() - 2.5 * place, color=colour)
    panel.set(title=f"three directions {title}", xlabel="place in the field", yticks=[])
save(figure, __file__)
