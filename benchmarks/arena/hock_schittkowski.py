"""Inequality-constrained problems of Hock and Schittkowski (1981), by their numbers there.

"Test examples for nonlinear programming codes". Boxes of problems that have none hold the minimum
and the start well inside.
"""

import math

from benchmarks.arena.constrained_case import ConstrainedProblem as P
from benchmarks.arena.constrained_case import Numbers


def _hs93(x: Numbers) -> float:
    a, b, c, d, e, f = x
    one, two = a + b + c, a + 1.57 * b + d
    return (
        0.0204 * a * d * one
        + 0.0187 * b * c * two
        + 0.0607 * a * d * e**2 * one
        + 0.0437 * b * c * f**2 * two
    )


def _hs93_limits(x: Numbers) -> list[float]:
    a, b, c, d, e, f = x
    one, two = a + b + c, a + 1.57 * b + d
    return [
        1 - 0.001 * a * b * c * d * e * f / 2.07,
        0.00062 * a * d * e**2 * one + 0.00058 * b * c * f**2 * two - 1,
    ]


def _hs100(x: Numbers) -> float:
    a, b, c, d, e, f, g = x
    return (
        (a - 10) ** 2
        + 5 * (b - 12) ** 2
        + c**4
        + 3 * (d - 11) ** 2
        + 10 * e**6
        + 7 * f**2
        + g**4
        - 4 * f * g
        - 10 * f
        - 8 * g
    )


def _hs100_limits(x: Numbers) -> list[float]:
    a, b, c, d, e, f, g = x
    return [
        (2 * a**2 + 3 * b**4 + c + 4 * d**2 + 5 * e) / 127 - 1,
        (7 * a + 3 * b + 10 * c**2 + d - e) / 282 - 1,
        (23 * a + b**2 + 6 * f**2 - 8 * g) / 196 - 1,
        (4 * a**2 + b**2 - 3 * a * b + 2 * c**2 + 5 * f - 11 * g) / 10,
    ]


def _hs113(x: Numbers) -> float:
    a, b, c, d, e, f, g, h, i, j = x
    return (
        a**2
        + b**2
        + a * b
        - 14 * a
        - 16 * b
        + (c - 10) ** 2
        + 4 * (d - 5) ** 2
        + (e - 3) ** 2
        + 2 * (f - 1) ** 2
        + 5 * g**2
        + 7 * (h - 11) ** 2
        + 2 * (i - 10) ** 2
        + (j - 7) ** 2
        + 45
    )


def _hs113_limits(x: Numbers) -> list[float]:
    a, b, c, d, e, f, g, h, i, j = x
    return [
        (4 * a + 5 * b - 3 * g + 9 * h) / 105 - 1,
        (10 * a - 8 * b - 17 * g + 2 * h) / 10,
        (-8 * a + 2 * b + 5 * i - 2 * j) / 12 - 1,
        (3 * (a - 2) ** 2 + 4 * (b - 3) ** 2 + 2 * c**2 - 7 * d) / 120 - 1,
        (5 * a**2 + 8 * b + (c - 6) ** 2 - 2 * d) / 40 - 1,
        (0.5 * (a - 8) ** 2 + 2 * (b - 4) ** 2 + 3 * e**2 - f) / 30 - 1,
        (a**2 + 2 * (b - 2) ** 2 - 2 * a * b + 14 * e - 6 * f) / 10,
        (-3 * a + 6 * b + 12 * (i - 8) ** 2 - 7 * j) / 10,
    ]


def _hs43(x: Numbers) -> float:
    a, b, c, d = x
    return a**2 + b**2 + 2 * c**2 + d**2 - 5 * a - 5 * b - 21 * c + 7 * d


def _hs43_limits(x: Numbers) -> list[float]:
    a, b, c, d = x
    return [
        (a**2 + b**2 + c**2 + d**2 + a - b + c - d) / 8 - 1,
        (a**2 + 2 * b**2 + c**2 + 2 * d**2 - a - d) / 10 - 1,
        (2 * a**2 + b**2 + c**2 + 2 * a - b - d) / 5 - 1,
    ]


def _hs76(x: Numbers) -> float:
    a, b, c, d = x
    return a**2 + 0.5 * b**2 + c**2 + 0.5 * d**2 - a * c + c * d - a - 3 * b + c - d


HOCK_SCHITTKOWSKI = (
    P("hs11", lambda x: (x[0] - 5) ** 2 + x[1] ** 2 - 25, lambda x: [x[0] ** 2 - x[1]],
      [-5, -5], [5, 5], [4.9, 0.1], -8.498464223),
    P("hs12", lambda x: 0.5 * x[0] ** 2 + x[1] ** 2 - x[0] * x[1] - 7 * x[0] - 7 * x[1],
      lambda x: [(4 * x[0] ** 2 + x[1] ** 2) / 25 - 1], [-10] * 2, [10] * 2, [0, 0], -30),
    P("hs22", lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2,
      lambda x: [(x[0] + x[1]) / 2 - 1, x[0] ** 2 - x[1]], [-5] * 2, [5] * 2, [2, 2], 1),
    P("hs23", lambda x: x[0] ** 2 + x[1] ** 2,
      lambda x: [1 - x[0] - x[1], 1 - x[0] ** 2 - x[1] ** 2, 1 - x[0] ** 2 - x[1] ** 2 / 9,
                 x[1] - x[0] ** 2, x[0] - x[1] ** 2], [-50] * 2, [50] * 2, [3, 1], 2),
    P("hs29", lambda x: -x[0] * x[1] * x[2],
      lambda x: [(x[0] ** 2 + 2 * x[1] ** 2 + 4 * x[2] ** 2) / 48 - 1], [-10] * 3, [10] * 3,
      [1, 1, 1], -16 * math.sqrt(2)),
    P("hs30", lambda x: x[0] ** 2 + x[1] ** 2 + x[2] ** 2, lambda x: [1 - x[0] ** 2 - x[1] ** 2],
      [1, -10, -10], [10, 10, 10], [1, 1, 1], 1),
    P("hs31", lambda x: 9 * x[0] ** 2 + x[1] ** 2 + 9 * x[2] ** 2, lambda x: [1 - x[0] * x[1]],
      [-10, 1, -10], [10, 10, 1], [1, 1, 1], 6),
    P("hs35", lambda x: 9 - 8 * x[0] - 6 * x[1] - 4 * x[2] + 2 * x[0] ** 2 + 2 * x[1] ** 2
      + x[2] ** 2 + 2 * x[0] * x[1] + 2 * x[0] * x[2],
      lambda x: [(x[0] + x[1] + 2 * x[2]) / 3 - 1], [0] * 3, [3] * 3, [0.5] * 3, 1 / 9),
    P("hs43", _hs43, _hs43_limits, [-5] * 4, [5] * 4, [0] * 4, -44),
    P("hs65", lambda x: (x[0] - x[1]) ** 2 + (x[0] + x[1] - 10) ** 2 / 9 + (x[2] - 5) ** 2,
      lambda x: [(x[0] ** 2 + x[1] ** 2 + x[2] ** 2) / 48 - 1], [-4.5, -4.5, -5], [4.5, 4.5, 5],
      [-4.5, 4.5, 0], 0.9535288567),
    P("hs76", _hs76, lambda x: [(x[0] + 2 * x[1] + x[2] + x[3]) / 5 - 1,
                                (3 * x[0] + x[1] + 2 * x[2] - x[3]) / 4 - 1,
                                1 - (x[1] + 4 * x[2]) / 1.5],
      [0] * 4, [5] * 4, [0.5] * 4, -4.681818182),
    P("hs93", _hs93, _hs93_limits, [0.1] * 6, [20, 20, 20, 20, 5, 5],
      [5.54, 4.4, 12.02, 11.82, 0.702, 0.852], 135.075961),
    P("hs100", _hs100, _hs100_limits, [-10] * 7, [10] * 7, [1, 2, 0, 4, 0, 1, 1], 680.6300573),
    P("hs113", _hs113, _hs113_limits, [-10] * 10, [20] * 10, [2, 3, 5, 5, 1, 2, 7, 3, 6, 10],
      24.3062091),
)  # fmt: skip
