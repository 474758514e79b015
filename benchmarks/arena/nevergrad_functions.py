"""Nevergrad's real-world functions that answer in milliseconds: optics, planning, fitting, a game.

Left out because one call takes a tenth of a second or needs data of the net: the power systems,
the larger games, `morpho`, clustering, Sammon's map, the landscape. Cycling, because a random ride
never arrives.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import zo_bilevel as zb
from benchmarks.arena.case import Case

BUDGETS = (50, 200)
BOX = 5.0
"""Bounds of numbers that have none in Nevergrad, whose own step is 1."""
FAILED_LOSS = 1e12
FUNCTIONS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "Bragg mirror, N = 10": ("photonics", "Photonics", ("bragg", 10)),
    "Bragg mirror, N = 20": ("photonics", "Photonics", ("bragg", 20)),
    "chirped mirror, N = 10": ("photonics", "Photonics", ("chirped", 10)),
    "chirped mirror, N = 20": ("photonics", "Photonics", ("chirped", 20)),
    "coating, N = 10": ("arcoating", "ARCoating", (10, 400)),
    "coating, N = 35": ("arcoating", "ARCoating", (35, 700)),
    "topology, N = 16": ("topology_optimization", "TO", (4,)),
    "topology, N = 25": ("topology_optimization", "TO", (5,)),
    "fishing, N = 17": ("fishing", "OptimizeFish", (17,)),
    "fishing, N = 35": ("fishing", "OptimizeFish", (35,)),
    "unit commitment, N = 45": ("unitcommitment", "UnitCommitmentProblem", ("semi-continuous", 5)),
    "perceptron quadratic, N = 10": ("mlda", "Perceptron.from_mlda", ("quadratic",)),
    "perceptron sine, N = 10": ("mlda", "Perceptron.from_mlda", ("sine",)),
    "perceptron abs, N = 10": ("mlda", "Perceptron.from_mlda", ("abs",)),
    "perceptron heaviside, N = 10": ("mlda", "Perceptron.from_mlda", ("heaviside",)),
    "tour of 12 towns, N = 12": ("stsp", "STSP", (12,)),
    "guess who, N = 8": ("games.game", "Game", ("guesswho",)),
}
"""Module, class and arguments; a game is noisy, and is judged by the mean of fresh rounds."""
GAME_ROUNDS = 200


def _make(name: str, seed: int) -> Any:
    module, path, arguments = FUNCTIONS[name]
    maker: Any = importlib.import_module(f"nevergrad.functions.{module}")
    for part in path.split("."):
        maker = getattr(maker, part)
    state = np.random.get_state()  # noqa: NPY002 - instances are drawn from the global generator
    np.random.seed(seed)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return maker(*arguments)
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _bounded_space(parametrization: Any) -> tuple[zb.Space, Callable[[Mapping[str, Any]], Any]]:
    """The space, and from its values to those of Nevergrad."""
    try:
        space = zb.Space.from_nevergrad(parametrization)
    except zb.InputError:  # no bounds, or other ones in each row: one parameter a number
        return _by_number(parametrization)
    from zo_bilevel.bridges.nevergrad_space import value_of

    return space, partial(value_of, parametrization)


def _by_number(array: Any) -> tuple[zb.Space, Callable[[Mapping[str, Any]], Any]]:
    shape = array.value.shape
    low, high = (
        np.broadcast_to(limit if given is None else given, shape).ravel()
        for given, limit in zip(array.bounds, (-BOX, BOX), strict=True)
    )
    names = [f"x{k:02}" for k in range(low.size)]
    space = zb.Space(
        {n: zb.Real(float(a), float(b)) for n, a, b in zip(names, low, high, strict=True)}
    )
    return space, lambda phi: np.array([phi[name] for name in names]).reshape(shape)


def real_world_task(name: str, seed: int) -> zb.Task:
    """One function; instance and start follow the seed.

    Args:
        name: Of the function.
        seed: >= 0.
    """
    function = _make(name, seed)
    space, value_of = _bounded_space(function.parametrization)

    def call(phi: Mapping[str, Any]) -> float:
        value = value_of(phi)
        is_named = isinstance(value, tuple)
        loss = function.function(*value[0], **value[1]) if is_named else function.function(value)
        return float(loss) if np.isfinite(loss) else FAILED_LOSS

    exact = zb.Problem(space, call)
    problem = exact
    if "guess who" in name:
        problem = zb.Problem(space, partial(_rounds, call, 1))
        exact = zb.Problem(space, lambda phi: _rounds(call, GAME_ROUNDS, phi, seed=seed))
    start = space.decode(np.random.default_rng([13, seed]).uniform(space.lower, space.upper))
    return zb.Task(name, "", problem, start=lambda _: start, exact=exact)


def _rounds(
    call: Callable[[Mapping[str, Any]], float], count: int, phi: Mapping[str, Any], *, seed: int
) -> float:
    state = np.random.get_state()  # noqa: NPY002 - Nevergrad's games draw from it
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        return float(np.mean([call(phi) for _ in range(count)]))
    finally:
        np.random.set_state(state)  # noqa: NPY002


def cases() -> list[Case]:
    """Every function with every budget; a function is in one half in all sizes."""
    return [
        Case(
            "real-world",
            name,
            f"nevergrad-{name.partition(',')[0]}",
            "real world",
            partial(real_world_task, name),
            budget,
        )
        for budget in BUDGETS
        for name in FUNCTIONS
    ]
