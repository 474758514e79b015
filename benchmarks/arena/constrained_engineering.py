"""Engineering design under constraints, each at most 0 where it holds, by its own right side."""

import math

from benchmarks.arena.constrained_case import ConstrainedProblem as P
from benchmarks.arena.constrained_case import Numbers


def welded_beam(x: Numbers) -> float:
    """Ragsdell, Phillips (1976); Deb (2000)."""
    h, long, t, b = x
    return 1.10471 * h**2 * long + 0.04811 * t * b * (14 + long)


def welded_beam_limits(x: Numbers) -> list[float]:
    """Shear, bending, thickness, cost, thickness, deflection, buckling."""
    h, long, t, b = x
    load, length, elastic, shear = 6000.0, 14.0, 30e6, 12e6
    first = load / (math.sqrt(2) * h * long)
    radius = math.sqrt(long**2 / 4 + ((h + t) / 2) ** 2)
    moment = load * (length + long / 2)
    polar = 2 * math.sqrt(2) * h * long * (long**2 / 12 + ((h + t) / 2) ** 2)
    second = moment * radius / polar
    stress = math.sqrt(first**2 + first * second * long / radius + second**2)
    bending = 6 * load * length / (b * t**2)
    deflection = 4 * load * length**3 / (elastic * t**3 * b)
    buckling = 4.013 * elastic * math.sqrt(t**2 * b**6 / 36) / length**2
    buckling *= 1 - t / (2 * length) * math.sqrt(elastic / (4 * shear))
    return [
        stress / 13600 - 1,
        bending / 30000 - 1,
        h - b,
        (0.10471 * h**2 + 0.04811 * t * b * (14 + long)) / 5 - 1,
        0.125 - h,
        deflection / 0.25 - 1,
        1 - buckling / load,
    ]


def spring(x: Numbers) -> float:
    """Tension or compression spring; Arora (1989)."""
    d, coil, turns = x
    return (turns + 2) * coil * d**2 * 100


def spring_limits(x: Numbers) -> list[float]:
    """Deflection, shear, frequency, diameter."""
    d, coil, turns = x
    shear = (4 * coil**2 - d * coil) / (12566 * (coil * d**3 - d**4)) + 1 / (5108 * d**2)
    return [
        1 - coil**3 * turns / (71785 * d**4),
        shear - 1,
        1 - 140.45 * d / (coil**2 * turns),
        (d + coil) / 1.5 - 1,
    ]


def vessel(x: Numbers) -> float:
    """Pressure vessel, thicknesses continuous; Kannan, Kramer (1994)."""
    shell, head, r, length = x
    return (
        0.6224 * shell * r * length
        + 1.7781 * head * r**2
        + 3.1661 * shell**2 * length
        + 19.84 * shell**2 * r
    )


def vessel_limits(x: Numbers) -> list[float]:
    """Thickness of shell and head, volume."""
    shell, head, r, length = x
    volume = math.pi * r**2 * length + 4 / 3 * math.pi * r**3
    return [0.0193 * r - shell, 0.00954 * r - head, 1 - volume / 1296000]


def truss(x: Numbers) -> float:
    """Three-bar truss; Nowacki (1973)."""
    return (2 * math.sqrt(2) * x[0] + x[1]) * 100


def truss_limits(x: Numbers) -> list[float]:
    """Stresses."""
    root = math.sqrt(2)
    below = root * x[0] ** 2 + 2 * x[0] * x[1]
    return [
        (root * x[0] + x[1]) / below - 1,
        x[1] / below - 1,
        1 / (root * x[1] + x[0]) - 1,
    ]


def reducer(x: Numbers) -> float:
    """Speed reducer, teeth continuous; Golinski (1970)."""
    a, b, c, d, e, f, g = x
    return (
        0.7854 * a * b**2 * (3.3333 * c**2 + 14.9334 * c - 43.0934)
        - 1.508 * a * (f**2 + g**2)
        + 7.4777 * (f**3 + g**3)
        + 0.7854 * (d * f**2 + e * g**2)
    )


def reducer_limits(x: Numbers) -> list[float]:
    """Bending and surface stress of teeth, deflections and stresses of shafts, sizes."""
    a, b, c, d, e, f, g = x
    return [
        27 / (a * b**2 * c) - 1,
        397.5 / (a * b**2 * c**2) - 1,
        1.93 * d**3 / (b * c * f**4) - 1,
        1.93 * e**3 / (b * c * g**4) - 1,
        math.sqrt((745 * d / (b * c)) ** 2 + 16.9e6) / (110 * f**3) - 1,
        math.sqrt((745 * e / (b * c)) ** 2 + 157.5e6) / (85 * g**3) - 1,
        b * c / 40 - 1,
        5 * b / a - 1,
        a / (12 * b) - 1,
        (1.5 * f + 1.9) / d - 1,
        (1.1 * g + 1.9) / e - 1,
    ]


def cantilever_limits(x: Numbers) -> list[float]:
    """Deflection of five hollow blocks; Svanberg (1987)."""
    return [61 / x[0] ** 3 + 37 / x[1] ** 3 + 19 / x[2] ** 3 + 7 / x[3] ** 3 + 1 / x[4] ** 3 - 1]


def column_limits(x: Numbers) -> list[float]:
    """Yield and buckling of a tubular column; Rao (1996)."""
    d, t = x
    return [
        2500 / (math.pi * d * t * 500) - 1,
        8 * 2500 * 250**2 / (math.pi**3 * 0.85e6 * d * t * (d**2 + t**2)) - 1,
    ]


def himmelblau(x: Numbers) -> float:
    """Himmelblau (1972), problem 11."""
    return 5.3578547 * x[2] ** 2 + 0.8356891 * x[0] * x[4] + 37.293239 * x[0] - 40792.141


def himmelblau_limits(x: Numbers) -> list[float]:
    """Three quantities between bounds."""
    a, b, c, d, e = x
    one = 85.334407 + 0.0056858 * b * e + 0.0006262 * a * d - 0.0022053 * c * e
    two = 80.51249 + 0.0071317 * b * e + 0.0029955 * a * b + 0.0021813 * c**2
    three = 9.300961 + 0.0047026 * c * e + 0.0012547 * a * c + 0.0019085 * c * d
    return [
        -one / 92,
        one / 92 - 1,
        1 - two / 90,
        two / 110 - 1,
        1 - three / 20,
        three / 25 - 1,
    ]


def bulkhead(x: Numbers) -> float:
    """Corrugated bulkhead of a tanker; Kvalie and others (1967)."""
    b, h, length, t = x
    return 5.885 * t * (b + length) / (b + math.sqrt(abs(length**2 - h**2)))


def bulkhead_limits(x: Numbers) -> list[float]:
    """Strength, stiffness, thicknesses, length."""
    b, h, length, t = x
    side = b + math.sqrt(abs(length**2 - h**2))
    return [
        1 - t * h * (0.4 * b + length / 6) / (8.94 * side),
        1 - t * h**2 * (0.2 * b + length / 12) / (2.2 * (8.94 * side) ** (4 / 3)),
        0.0156 * b + 0.15 - t,
        0.0156 * length + 0.15 - t,
        1.05 - t,
        (h - length) / 100,
    ]


ENGINEERING = (
    P("welded-beam", welded_beam, welded_beam_limits, [0.1] * 4, [2, 10, 10, 2], [1, 7, 4, 2],
      1.724852309),
    P("spring", spring, spring_limits, [0.05, 0.25, 2], [2, 1.3, 15], [0.1, 0.5, 10], 1.266523279),
    P("pressure-vessel", vessel, vessel_limits, [0.1, 0.1, 10, 10], [6, 6, 200, 200],
      [2, 2, 60, 100], 5885.332774),
    P("three-bar-truss", truss, truss_limits, [0.01] * 2, [1] * 2, [0.5, 0.5], 263.8958434),
    P("speed-reducer", reducer, reducer_limits, [2.6, 0.7, 17, 7.3, 7.3, 2.9, 5],
      [3.6, 0.8, 28, 8.3, 8.3, 3.9, 5.5], [3.1, 0.75, 22, 7.8, 7.8, 3.4, 5.25], 2994.471066),
    P("cantilever", lambda x: 0.0624 * sum(x), cantilever_limits, [1] * 5, [10] * 5, [5] * 5,
      1.339956361),
    P("tubular-column", lambda x: 9.8 * x[0] * x[1] + 2 * x[0], column_limits, [2, 0.2],
      [14, 0.8], [8, 0.5], 26.49949689),
    P("himmelblau", himmelblau, himmelblau_limits, [78, 33, 27, 27, 27], [102, 45, 45, 45, 45],
      [90, 39, 36, 36, 36], -30665.53867),
    P("bulkhead", bulkhead, bulkhead_limits, [1, 1, 1, 0.1], [100, 100, 100, 5],
      [50, 30, 60, 2], 6.842958),
)  # fmt: skip
