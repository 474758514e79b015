"""One pair of solves: a slope of the loss, or a parabola from the whole inner solution."""

import numpy as np
from drawing import GREY, OTHER, OURS, make_figure, save

times = np.linspace(0, 5, 200)
TRUE, HERE, STEP = 1.0, 1.35, 0.15


def simulate(frequency: float) -> np.ndarray:
    """A damped oscillation."""
    return np.exp(-0.3 * times) * np.cos(2 * frequency * times)


target = simulate(TRUE)
theta, moved = simulate(HERE), simulate(HERE + STEP)
column = (simulate(HERE + 1e-6) - theta) / 1e-6


def loss(answer: np.ndarray) -> np.ndarray:
    """Mean squared error of each row."""
    return np.mean((answer - target) ** 2, axis=-1)


figure, (left, right) = make_figure(2)
left.plot(times, theta, color=OURS, label="theta at phi")
left.plot(times, moved, color=OURS, ls="--", label="theta at phi + mu v")
left.fill_between(times, theta, moved, color=OURS, alpha=0.2, label="their difference")
left.set(xlabel="time", title="what two solves return", ylim=(-1.05, 1.9))
left.legend(frameon=False, fontsize=8)

phi = np.linspace(0.75, 1.75, 200)
right.plot(phi, [loss(simulate(value)) for value in phi], color=GREY, label="loss")
linear = theta + (phi - HERE)[:, None] * column
right.plot(phi, loss(linear), color=OURS, ls="--", label="from theta: a parabola")
slope = 2 * np.mean((theta - target) * column)
line = loss(theta) + (phi - HERE) * slope
right.plot(phi, line, color=OTHER, ls=":", label="from the loss: a slope")
right.plot([HERE], [loss(theta)], "o", color=OURS)
right.set(xlabel="phi", title="what is known of the loss", ylim=(-0.05, 0.7))
right.legend(frameon=False, fontsize=8)
save(figure, __file__)
