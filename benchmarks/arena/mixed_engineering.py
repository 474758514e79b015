"""Mixed problems of engineering: integers, lists of what can be bought, and a few reals.

A constraint `g <= 0` that is broken adds its violation times a penalty to what is minimized, as
users write them. Beside each problem its source and the lowest known value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import zo_bilevel as zb

Phi = Mapping[str, Any]


def penalized(value: float, constraints: Sequence[float], penalty: float) -> float:
    """The value, and the penalty for each unit of violation.

    Args:
        value: What is minimized.
        constraints: At most 0 where they hold.
        penalty: > 0.
    """
    return value + penalty * sum(max(0.0, g) for g in constraints)


def pressure_vessel(phi: Phi) -> float:
    """Kannan and Kramer (1994); thicknesses in sixteenths of an inch; 6059.714."""
    shell, head = 0.0625 * phi["shell"], 0.0625 * phi["head"]
    radius, length = phi["radius"], phi["length"]
    cost = 0.6224 * shell * radius * length + 1.7781 * head * radius**2
    cost += 3.1661 * shell**2 * length + 19.84 * shell**2 * radius
    volume = math.pi * radius**2 * length + 4 / 3 * math.pi * radius**3
    thin = [0.0193 * radius / shell - 1, 0.00954 * radius / head - 1]
    return penalized(cost, [*thin, 1 - volume / 1296000], 1e5)


VESSEL = zb.Space(
    shell=zb.Integer(1, 99),
    head=zb.Integer(1, 99),
    radius=zb.Real(10, 200),
    length=zb.Real(10, 200),
)

# fmt: off
WIRES = (
    0.009, 0.0095, 0.0104, 0.0118, 0.0128, 0.0132, 0.014, 0.015, 0.0162, 0.0173, 0.018, 0.020,
    0.023, 0.025, 0.028, 0.032, 0.035, 0.041, 0.047, 0.054, 0.063, 0.072, 0.080, 0.092, 0.105,
    0.120, 0.135, 0.148, 0.162, 0.177, 0.192, 0.207, 0.225, 0.244, 0.263, 0.283, 0.307, 0.331,
    0.362, 0.394, 0.4375, 0.5,
)
# fmt: on
"""Diameters that are sold, in inches."""


def coil_spring(phi: Phi) -> float:
    """Sandgren (1990), volume of wire; 2.65856."""
    coils, coil, wire = phi["coils"], phi["coil"], WIRES[phi["wire"]]
    volume = math.pi**2 * coil * wire**2 * (coils + 2) / 4
    index = coil / wire
    if index <= 1.01:
        return float(volume + 1e3)
    factor = (4 * index - 1) / (4 * index - 4) + 0.615 / index
    stiffness = 11.5e6 * wire**4 / (8 * coils * coil**3)
    free = 1000 / stiffness + 1.05 * (coils + 2) * wire
    preload = 300 / stiffness
    constraints = [
        8 * factor * 1000 * coil / (math.pi * wire**3) / 189000 - 1,
        free / 14 - 1,
        0.2 / wire - 1,
        (coil + wire) / 3 - 1,
        3 / index - 1,
        preload / 6 - 1,
        (preload + 700 / stiffness + 1.05 * (coils + 2) * wire - free) / 14,
        (1.25 - 700 / stiffness) / 1.25,
    ]
    return penalized(volume, constraints, 10.0)


SPRING = zb.Space(
    coils=zb.Integer(1, 70), coil=zb.Real(0.6, 3.0), wire=zb.Integer(0, len(WIRES) - 1)
)

METALS = {
    "steel": (0.1047, 0.0481, 30e3, 30e6, 12e6),
    "cast iron": (0.0489, 0.0224, 8e3, 14e6, 6e6),
    "aluminium": (0.5235, 0.2405, 5e3, 10e6, 4e6),
    "brass": (0.5584, 0.2566, 8e3, 16e6, 6e6),
}
"""Cost of welding and of the bar, design stress, Young's and shear modulus (psi)."""


def welded_beam(phi: Phi) -> float:
    """After Deb and Goyal (1996): metal, two welds or four, sixteenths of an inch; 1.6218."""
    weld, thick = 0.0625 * phi["weld"], 0.0625 * phi["thick"]
    length, depth = phi["length"], phi["depth"]
    welding, bar, strength, young, shear = METALS[phi["metal"]]
    run = length + depth if phi["sides"] == 4 else length
    cost = (1 + welding) * weld**2 * run + bar * depth * thick * (14 + length)
    area, arm, polar = _weld_section(phi["sides"], weld, length, depth)
    first, second = 6000 / area, 6000 * (14 + length / 2) * arm / polar
    stress = math.sqrt(first**2 + second**2 + first * second * length / arm)
    buckling = 4.013 * depth * thick**3 * math.sqrt(young * shear) / (6 * 14**2)
    buckling *= 1 - depth / (2 * 14) * math.sqrt(young / (4 * shear))
    constraints = [
        stress / (0.577 * strength) - 1,
        6 * 6000 * 14 / (thick * depth**2) / strength - 1,
        weld / thick - 1,
        1 - buckling / 6000,
        4 * 6000 * 14**3 / (young * thick * depth**3) / 0.25 - 1,
    ]
    return penalized(cost, constraints, 10.0)


def _weld_section(
    sides: int, weld: float, length: float, depth: float
) -> tuple[float, float, float]:
    """Area, lever arm and polar moment of two welds along the length, or of all four sides."""
    arm = math.sqrt(length**2 / 4 + (weld + depth) ** 2 / 4)
    if sides == 2:
        polar = 2 * math.sqrt(2) * weld * length * (length**2 / 12 + (weld + depth) ** 2 / 4)
        return math.sqrt(2) * weld * length, arm, polar
    other = math.sqrt(depth**2 / 4 + (weld + length) ** 2 / 4)
    polar = math.sqrt(2) * weld * (length + depth) ** 3 / 6
    return math.sqrt(2) * weld * (depth + length), max(arm, other), polar


BEAM = zb.Space(
    metal=zb.Choice(list(METALS)),
    sides=zb.Choice([2, 4]),
    weld=zb.Integer(2, 32),
    thick=zb.Integer(2, 32),
    length=zb.Real(0.1, 10),
    depth=zb.Real(0.1, 10),
)


def speed_reducer(phi: Phi) -> float:
    """Golinski (1970), weight; an integer number of teeth; 2994.47."""
    face, module, teeth = phi["face"], phi["module"], phi["teeth"]
    span1, span2, shaft1, shaft2 = phi["span1"], phi["span2"], phi["shaft1"], phi["shaft2"]
    weight = 0.7854 * face * module**2 * (3.3333 * teeth**2 + 14.9334 * teeth - 43.0934)
    weight += -1.508 * face * (shaft1**2 + shaft2**2) + 7.4777 * (shaft1**3 + shaft2**3)
    weight += 0.7854 * (span1 * shaft1**2 + span2 * shaft2**2)
    constraints = [
        27 / (face * module**2 * teeth) - 1,
        397.5 / (face * module**2 * teeth**2) - 1,
        1.93 * span1**3 / (module * teeth * shaft1**4) - 1,
        1.93 * span2**3 / (module * teeth * shaft2**4) - 1,
        math.sqrt((745 * span1 / (module * teeth)) ** 2 + 16.9e6) / (110 * shaft1**3) - 1,
        math.sqrt((745 * span2 / (module * teeth)) ** 2 + 157.5e6) / (85 * shaft2**3) - 1,
        module * teeth / 40 - 1,
        5 * module / face - 1,
        face / (12 * module) - 1,
        (1.5 * shaft1 + 1.9) / span1 - 1,
        (1.1 * shaft2 + 1.9) / span2 - 1,
    ]
    return penalized(weight, constraints, 1e4)


REDUCER = zb.Space(
    face=zb.Real(2.6, 3.6),
    module=zb.Real(0.7, 0.8),
    teeth=zb.Integer(17, 28),
    span1=zb.Real(7.3, 8.3),
    span2=zb.Real(7.3, 8.3),
    shaft1=zb.Real(2.9, 3.9),
    shaft2=zb.Real(5.0, 5.5),
)


def gear_train(phi: Phi) -> float:
    """Sandgren (1990): a ratio of 1 / 6.931 by four gears; 2.70e-12."""
    return float((1 / 6.931 - phi["a"] * phi["b"] / (phi["c"] * phi["d"])) ** 2)


GEARS = zb.Space({name: zb.Integer(12, 60) for name in "abcd"})

BAR_AREAS = [6.0, 6.16, 6.32, 6.6, 7.0, 7.11, 7.2, 7.8, 7.9, 8.0, 8.4]


def concrete_beam(phi: Phi) -> float:
    """Amir and Hasegawa (1989): a list of steel areas, an integer width, a real depth; 359.208."""
    steel, width, depth = BAR_AREAS[phi["steel"]], phi["width"], phi["depth"]
    cost = 29.4 * steel + 0.6 * width * depth
    bending = 180 + 7.375 * steel**2 / depth - steel * width
    return penalized(cost, [width / depth / 4 - 1, bending / 180], 1e3)


CONCRETE = zb.Space(
    steel=zb.Integer(0, len(BAR_AREAS) - 1), width=zb.Integer(28, 40), depth=zb.Real(5, 10)
)


def clutch_brake(phi: Phi) -> float:
    """Osyczka (2002), mass of a brake of several discs; five integers; 0.313657."""
    inner, outer = float(phi["inner"]), float(phi["outer"])
    thick, force, discs = 1 + 0.5 * phi["thick"], 600 + 10.0 * phi["force"], phi["discs"]
    ring = outer**2 - inner**2
    mass = math.pi * ring * thick * (discs + 1) * 7.8e-6
    if ring <= 0:
        return 10.0
    pressure = force / (math.pi * ring)
    torque = 2 / 3 * 0.5 * force * discs * (outer**3 - inner**3) / ring  # N mm
    speed = 2 * math.pi * 250 / 60
    slip = 2 * math.pi / 90 * 250 * (outer**3 - inner**3) / ring  # mm / s
    stop = 55 * speed / (torque / 1000 + 3)  # s, with 3 N m of friction
    constraints = [
        (20 - (outer - inner)) / 20,
        ((discs + 1) * (thick + 0.5) - 30) / 30,
        pressure - 1,
        pressure * slip / 1e4 - 1,
        slip / 1e4 - 1,
        stop / 15 - 1,
        1 - torque / 1000 / (1.5 * 40),
    ]
    return penalized(mass, constraints, 10.0)


CLUTCH = zb.Space(
    inner=zb.Integer(60, 80),
    outer=zb.Integer(90, 110),
    thick=zb.Integer(0, 4),
    force=zb.Integer(0, 40),
    discs=zb.Integer(2, 9),
)

PROBLEMS = {
    "pressure vessel": (pressure_vessel, VESSEL),
    "coil spring": (coil_spring, SPRING),
    "welded beam": (welded_beam, BEAM),
    "speed reducer": (speed_reducer, REDUCER),
    "gear train": (gear_train, GEARS),
    "concrete beam": (concrete_beam, CONCRETE),
    "clutch brake": (clutch_brake, CLUTCH),
}
