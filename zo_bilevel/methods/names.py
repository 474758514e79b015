"""Methods by name, for the command line: the one place that turns names into methods."""

from __future__ import annotations

from collections.abc import Callable

from zo_bilevel.methods.base import Method
from zo_bilevel.support.errors import InputError, unknown_name_message


def _default() -> Method:
    from zo_bilevel.methods.default import DefaultMethod

    return DefaultMethod()


def _gauss_newton() -> Method:
    from zo_bilevel.methods.gauss_newton.gauss_newton import GaussNewton

    return GaussNewton()


def _trust_region() -> Method:
    from zo_bilevel.methods.trust_region.trust_region import TrustRegion

    return TrustRegion()


def _zo_adam() -> Method:
    from zo_bilevel.methods.gradient import GradientMethod

    return GradientMethod()


def _random() -> Method:
    from zo_bilevel.methods.baselines.random_search import RandomSearch

    return RandomSearch()


def _nevergrad(member: str) -> Method:
    from zo_bilevel.methods.baselines.nevergrad import Nevergrad

    optimizer, _, coordinates = member.partition(":")
    return Nevergrad(optimizer, coordinates or "scaled")


def _scipy(member: str) -> Method:
    from zo_bilevel.methods.baselines.scipy import Scipy

    solver, _, words = member.partition(":")
    coordinates, restarts = _coordinates_and_restarts(words)
    return Scipy(solver, coordinates, restarts=restarts)


def _coordinates_and_restarts(words: str) -> tuple[str, bool]:
    """What stands behind a solver's name: "", "prior", "restarts" or both."""
    found = words.split(":") if words else []
    return ":".join(word for word in found if word != "restarts") or "scaled", "restarts" in found


def _cma(coordinates: str = "scaled") -> Method:
    from zo_bilevel.methods.baselines.cma import CMA

    return CMA(coordinates)


def _dfols(coordinates: str = "scaled") -> Method:
    from zo_bilevel.methods.baselines.dfols import DFOLS

    return DFOLS(coordinates)


def _pounders(coordinates: str = "scaled") -> Method:
    from zo_bilevel.methods.baselines.pounders import POUNDERS

    return POUNDERS(coordinates)


def _bobyqa(coordinates: str = "scaled", *, restarts: bool = False) -> Method:
    from zo_bilevel.methods.baselines.bobyqa import BOBYQA

    return BOBYQA(coordinates, restarts=restarts)


def _lq_cma(coordinates: str = "scaled") -> Method:
    from zo_bilevel.methods.baselines.lq_cma import LqCMA

    return LqCMA(coordinates)


def _optuna(member: str) -> Method:
    """Optuna's samplers TPE, GP (a Gaussian process) and CMA; Hyperband on levels of fidelity."""
    from zo_bilevel.methods.baselines.optuna import Optuna
    from zo_bilevel.methods.baselines.optuna_hyperband import OptunaHyperband

    if member == "Hyperband":
        return OptunaHyperband()

    return Optuna(member)


def _botorch() -> Method:
    from zo_bilevel.methods.baselines.botorch import BoTorch

    return BoTorch()


def _multi_start(member: str) -> Method:
    """Ten starts of a method of any name here."""
    from zo_bilevel.methods.multi_start import MultiStart

    return MultiStart(method_from_name(member))


def _turbo() -> Method:
    from zo_bilevel.methods.baselines.turbo import TuRBO

    return TuRBO()


def _smac() -> Method:
    from zo_bilevel.methods.baselines.smac import SMAC

    return SMAC()


def _esmda() -> Method:
    from zo_bilevel.methods.baselines.esmda import ESMDA

    return ESMDA()


METHOD_FACTORIES: dict[str, Callable[[], Method]] = {
    "default": _default,
    "gauss-newton": _gauss_newton,
    "trust-region": _trust_region,
    "zo-adam": _zo_adam,
    "random": _random,
    "cma": _cma,
    "cma:prior": lambda: _cma("prior"),
    "dfols": _dfols,
    "dfols:prior": lambda: _dfols("prior"),
    "pounders": _pounders,
    "pounders:prior": lambda: _pounders("prior"),
    "bobyqa": _bobyqa,
    "bobyqa:prior": lambda: _bobyqa("prior"),
    "bobyqa:restarts": lambda: _bobyqa(restarts=True),
    "lq-cma": _lq_cma,
    "lq-cma:prior": lambda: _lq_cma("prior"),
    "botorch": _botorch,
    "turbo": _turbo,
    "smac": _smac,
    "esmda": _esmda,
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

    Returns:
        The method with its defaults.

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
