"""A problem once its outer objective and the structure of theta are known."""

from typing import final

from zo_bilevel.problem.objectives.base import OuterContext, OuterObjective
from zo_bilevel.problem.objectives.squared_error import SquaredError
from zo_bilevel.problem.prior_term import PriorTerm, prior_share
from zo_bilevel.problem.space import Space
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.support.arrays import FloatArray


@final
class BoundProblem:
    """A problem whose outer objective and structure of theta are known: pure numbers."""

    def __init__(
        self, space: Space, outer: OuterObjective, context: OuterContext, is_scalar: bool
    ) -> None:
        self.space = space
        self.outer = outer
        self.prior = PriorTerm(space) if space.has_prior else None
        self._share = 0.0 if self.prior is None else prior_share(outer)
        self.context = context
        self.is_vector = outer.is_vector and not is_scalar

    @property
    def layout(self) -> ThetaLayout:
        """Structure of the inner solution."""
        return self.context.layout

    def value(self, theta: FloatArray, x: FloatArray) -> float:
        """Loss of an inner solution solved at `x`, the prior's part included."""
        return self.outer.value(theta, x, self.context) + self.prior_loss(x)

    def prior_loss(self, x: FloatArray) -> float:
        """The prior's part of the loss at `x`; 0 without a prior."""
        if self.prior is None:
            return 0.0
        residuals = self.prior.residuals(x)
        return self._share * float(residuals @ residuals)

    def parts(self, theta: FloatArray, x: FloatArray) -> dict[str, float]:
        """What the loss is made of: each named part of the data, "prior"; empty if undivided."""
        data = self.outer.value(theta, x, self.context)
        found: dict[str, float] = {}
        if isinstance(self.outer, SquaredError) and self.outer.layout.names:
            shares = self.outer.shares(self.layout.pack(theta))
            found = {name: share * data for name, share in shares.items()}
        if self.prior is None:
            return found
        return {**(found or {"data": data}), "prior": self.prior_loss(x)}

    def gradient(self, theta: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Derivatives of the loss in theta, `(m,)`, and explicitly in x, `(N,)`."""
        return self._with_prior(x, self.outer.gradient(theta, x, self.context))

    def value_and_gradient(
        self, theta: FloatArray, x: FloatArray
    ) -> tuple[float, tuple[FloatArray, FloatArray]]:
        """The loss, and its derivatives as `gradient` has them."""
        value, pair = self.outer.value_and_gradient(theta, x, self.context)
        return value + self.prior_loss(x), self._with_prior(x, pair)

    def _with_prior(
        self, x: FloatArray, pair: tuple[FloatArray, FloatArray]
    ) -> tuple[FloatArray, FloatArray]:
        if self.prior is None:
            return pair
        pulled = self.prior.pulled(x, self.prior.residuals(x))
        return pair[0], pair[1] + 2 * self._share * pulled

    def hessian_product(
        self,
        theta: FloatArray,
        x: FloatArray,
        theta_tangents: FloatArray,
        x_tangents: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Hessian of f applied to tangents `(m, b)`, `(N, b)`: its parts in theta and x."""
        tangents = theta_tangents, x_tangents
        found = self.outer.hessian_product((theta, x), tangents, self.context)
        if self.prior is None:
            return found
        bent = self.prior.pulled(x, self.prior.tangents(x, x_tangents))
        return found[0], found[1] + 2 * self._share * bent
