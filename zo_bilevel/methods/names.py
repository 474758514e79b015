"""Methods by name, for the command line: the one place that turns names into methods."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, final

from zo_bilevel.methods.base import Method, Rounds, Search
from zo_bilevel.support.errors import InputError, MissingPackageError, unknown_name_message


def _make(place: str, *options: Any, **more: Any) -> Method:  # noqa: ANN401 - the method's own
    """A method of a module below `zo_bilevel.methods`, which is imported now."""
    module, _, name = place.rpartition(".")
    method: Method = getattr(import_module(f"zo_bilevel.methods.{module}"), name)(*options, **more)
    return method


def _nevergrad(member: str) -> Method:
    optimizer, _, coordinates = member.partition(":")
    return _make("baselines.nevergrad.Nevergrad", optimizer, coordinates or "scaled")


def _scipy(member: str) -> Method:
    solver, _, words = member.partition(":")
    found = words.split(":") if words else []
    coordinates = ":".join(word for word in found if word != "restarts") or "scaled"
    return _make("baselines.scipy.Scipy", solver, coordinates, restarts="restarts" in found)


def _optuna(member: str) -> Method:
    """Optuna's samplers TPE, GP (a Gaussian process) and CMA; Hyperband on levels of fidelity."""
    if member == "Hyperband":
        return _make("baselines.optuna.OptunaHyperband")
    return _make("baselines.optuna.Optuna", member)


def _multi_start(member: str) -> Method:
    """Ten starts of a method of any name here."""
    return _make("multi_start.MultiStart", method_from_name(member))


METHOD_FACTORIES: dict[str, Callable[[], Method]] = {
    "default": partial(_make, "default.DefaultMethod"),
    "gauss-newton": partial(_make, "gauss_newton.gauss_newton.GaussNewton"),
    "trust-region": partial(_make, "trust_region.trust_region.TrustRegion"),
    "zo-adam": partial(_make, "gradient.GradientMethod"),
    "random": partial(_make, "baselines.random_search.RandomSearch"),
    "cma": partial(_make, "baselines.cma.CMA"),
    "cma:prior": partial(_make, "baselines.cma.CMA", "prior"),
    "dfols": partial(_make, "baselines.dfols.DFOLS"),
    "dfols:prior": partial(_make, "baselines.dfols.DFOLS", "prior"),
    "pounders": partial(_make, "baselines.pounders.POUNDERS"),
    "pounders:prior": partial(_make, "baselines.pounders.POUNDERS", "prior"),
    "bobyqa": partial(_make, "baselines.bobyqa.BOBYQA"),
    "bobyqa:prior": partial(_make, "baselines.bobyqa.BOBYQA", "prior"),
    "bobyqa:restarts": partial(_make, "baselines.bobyqa.BOBYQA", restarts=True),
    "lq-cma": partial(_make, "baselines.cma.LqCMA"),
    "lq-cma:prior": partial(_make, "baselines.cma.LqCMA", "prior"),
    "botorch": partial(_make, "baselines.botorch.BoTorch"),
    "turbo": partial(_make, "baselines.botorch.TuRBO"),
    "smac": partial(_make, "baselines.smac.SMAC"),
    "esmda": partial(_make, "baselines.esmda.ESMDA"),
}
METHOD_FAMILIES: dict[str, Callable[[str], Method]] = {
    "multi-start": _multi_start,
    "nevergrad": _nevergrad,
    "scipy": _scipy,
    "optuna": _optuna,
}


def method_from_name(name: str) -> Method:
    """Make a method from its name on the command line.

    Args:
        name: A plain name ("gauss-newton"), or a family and a member ("nevergrad:CMA").

    Raises:
        InputError: If the name is unknown, with the nearest ones.
    """
    family, colon, member = name.partition(":")
    if colon and family in METHOD_FAMILIES and member:
        return METHOD_FAMILIES[family](member)
    if name in METHOD_FACTORIES:
        return METHOD_FACTORIES[name]()
    known = [*METHOD_FACTORIES, *(f"{family}:NAME" for family in METHOD_FAMILIES)]
    raise InputError(unknown_name_message("method", name, known))


def method_or_its_absence(name: str) -> Method:
    """The method of a name, or one that refuses every problem since its package is missing.

    Raises:
        InputError: If the name is unknown, with the nearest ones.
    """
    try:
        return method_from_name(name)
    except MissingPackageError as error:
        return MissingMethod(name, error)


@final
class MissingMethod(Method):
    """Stands in a comparison for one whose package is not installed: it refuses every problem."""

    def __init__(self, name: str, error: MissingPackageError) -> None:
        self._name, self._error = name, error

    @property
    def name(self) -> str:
        """Name of the method that is missing."""
        return self._name

    def rounds(self, search: Search) -> Rounds:  # noqa: ARG002 - there is nothing to search
        """Refuse with `MissingPackageError`."""
        raise self._error
        yield []
