"""Evolution strategies that update phi while the loop runs, a window of steps at a time.

Vicol, Metz, Sohl-Dickstein (2021), "Unbiased Gradient Estimation in Unrolled Computation Graphs
with Persistent Evolution Strategies" (PES), arXiv 2112.13835; Li, Harrison, Sohl-Dickstein et al.
(2023), "Variance-Reduced Gradient Estimation via Noise-Reuse in Online Evolution Strategies"
(NRES), arXiv 2304.12180.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch

from zo_bilevel.adapters.torch_unroll.checks import rehearse
from zo_bilevel.adapters.torch_unroll.leaves import Leaves
from zo_bilevel.adapters.torch_unroll.run import Run
from zo_bilevel.adapters.torch_unroll.torch_unroll import TorchUnroll
from zo_bilevel.problem.space import HALF_RANGE, Space
from zo_bilevel.support.arguments import finite_number, whole_number
from zo_bilevel.support.arrays import FloatArray
from zo_bilevel.support.errors import InputError, InvalidSolutionError

NOISES = ("persistent", "reused", "truncated")


@final
@dataclass(frozen=True, slots=True)
class OnlineGradient:
    """A hypergradient of the mean loss along a loop.

    Args:
        gradient: By name, in the units of phi.
        error: Its standard error over the pairs; NaN for a single one. Of the bias of "truncated"
            it knows nothing, and windows of one loop have noise in common.
        loss: Mean loss of this window.
        num_steps: Inner steps that it cost.
    """

    gradient: dict[str, Any]
    error: dict[str, Any]
    loss: float
    num_steps: int


@dataclass(slots=True)
class _Pair:
    """Two runs with opposite noise, somewhere in their loop."""

    seed: int
    t: int
    states: list[Leaves]
    noise: FloatArray


@final
class OnlineES:
    """Hypergradients of `(1/T) sum_t loss(theta_t, phi)` from windows of K steps.

    `g = (1/b) sum_i xi_i (L_i+ - L_i-) / 2 r`: b pairs of runs with opposite noise go on from
    where the last window left them, each at another place of its loop, and begin again after T
    steps. Phi may change between windows, so that a loop of T steps gives T/K updates. A step
    needs no derivative, and memory is that of 2 b states. Near a bound a pair moves inside so far
    that both its runs fit, by about the radius.

    Args:
        loop: The loop.
        loss: `loss(theta, phi) -> scalar tensor`, of what `read` gives; asked after each step.
        space: Of phi.
        noise: "persistent" (PES): new noise each window, and xi is the sum over the windows of
            the loop so far: unbiased. "reused" (NRES): one noise a loop, unbiased while phi
            stays, and of less variance unless losses at far steps have little to do with each
            other. "truncated": new noise, and both runs of a pair begin their window in one
            state: biased, blind to what phi did before.
        num_pairs: b, >= 1.
        window: K steps, >= 1; must divide the loop's steps.
        radius: r > 0, in scaled units (a sixth of a parameter's range).
        seed: Of noise, starts and batches.

    Raises:
        InputError: If an argument breaks its rule.

    Example:
        >>> from zo_bilevel import Real, Space
        >>> loop = TorchUnroll(
        ...     lambda phi: torch.zeros(1), lambda w, phi, t, batch: w + 0.5 * (phi["a"] - w), 20
        ... )
        >>> es = OnlineES(loop, lambda w, phi: ((w - 2) ** 2).sum(), Space(a=Real(-5, 5)), window=5)
        >>> found = es.descend({"a": 0.0}, 40, lr=0.2)
        >>> bool(abs(found["a"] - 2) < 0.5)
        True
    """

    def __init__(
        self,
        loop: TorchUnroll,
        loss: Callable[[Any, Any], Any],
        space: Space,
        *,
        noise: Literal["persistent", "reused", "truncated"] = "persistent",
        num_pairs: int = 8,
        window: int = 10,
        radius: float = 0.1,
        seed: int = 0,
    ) -> None:
        if noise not in NOISES:
            raise InputError(f"noise must be one of {NOISES}, got {noise!r}")
        if space.discrete.any():
            raise InputError("space must hold real numbers only, got an Integer or a Choice")
        self.loop, self.loss, self.space, self.noise = loop, loss, space, noise
        self.num_pairs = whole_number("num_pairs", num_pairs, least=1)
        self.window = whole_number("window", window, least=1)
        if loop.num_steps % self.window:
            raise InputError(f"window must divide num_steps = {loop.num_steps}, got {window}")
        self.radius = finite_number("radius", radius, "> 0")
        self._rng = np.random.default_rng(np.random.SeedSequence(seed))
        self._pairs: list[_Pair] = []
        loop.check(space)

    def gradient(self, phi: Mapping[str, Any]) -> OnlineGradient:
        """Go on by one window.

        Args:
            phi: Named values; may be others than at the last window.

        Raises:
            InvalidSolutionError: If a loss is not finite; that pair begins anew the next time.
        """
        x = self.space.encode(phi)
        slopes, losses, steps = self._window(x)
        error = np.full(x.size, np.nan)
        if len(slopes) > 1:
            error = slopes.std(axis=0, ddof=1) / np.sqrt(len(slopes))
        named = self.space.named_gradient
        return OnlineGradient(
            named(x, slopes.mean(axis=0)), named(x, error), float(losses.mean()), steps
        )

    def descend(
        self, initial: Mapping[str, Any], num_updates: int, lr: float = 0.05
    ) -> dict[str, Any]:
        """Adam on phi, an update a window.

        Args:
            initial: Named values.
            num_updates: Windows.
            lr: Rate in scaled units, falling to zero as a cosine.

        Returns:
            The last phi by name.
        """
        x = torch.tensor(self.space.encode(initial), requires_grad=True)
        adam = torch.optim.Adam([x], lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, num_updates)
        for _ in range(num_updates):
            here = x.detach().numpy().copy()
            x.grad = torch.from_numpy(self._window(here)[0].mean(axis=0))
            adam.step()
            schedule.step()
            with torch.no_grad():
                x.clamp_(torch.from_numpy(self.space.lower), torch.from_numpy(self.space.upper))
        return self.space.decode(x.detach().numpy())

    def _window(self, x: FloatArray) -> tuple[FloatArray, FloatArray, int]:
        """Slopes `(b, N)` and losses `(b,)` of the pairs, and inner steps."""
        steps = 0
        if not self._pairs:
            self._pairs = [self._begun(x) for _ in range(self.num_pairs)]
            windows = self.loop.num_steps // self.window
            first = int(self._rng.integers(windows))
            for k, pair in enumerate(self._pairs):  # evenly along the loop
                for _ in range((first + k * windows // self.num_pairs) % windows):
                    steps += self._advance(pair, x)[2]
        found = []
        for k, pair in enumerate(self._pairs):
            is_over = pair.t == self.loop.num_steps
            if is_over or not all(state.is_finite() for state in pair.states):
                pair = self._pairs[k] = self._begun(x)
            found.append(self._advance(pair, x))
        losses = np.array([loss for _, loss, _ in found])
        if not np.isfinite(losses).all():
            raise InvalidSolutionError(
                f"loss must be finite along the loop, got {losses}; smaller inner steps or a "
                f"smaller radius than {self.radius:g} help"
            )
        return np.array([slope for slope, _, _ in found]), losses, steps + sum(f[2] for f in found)

    def _begun(self, x: FloatArray) -> _Pair:
        """A pair before its first step; `init` sees the noise of the first window."""
        seed = int(self._rng.integers(1 << 32))
        return _Pair(seed, 0, [], np.zeros_like(x))

    def _advance(self, pair: _Pair, x: FloatArray) -> tuple[FloatArray, float, int]:
        """One window of a pair: slopes `(N,)`, mean loss, inner steps."""
        fresh = self._rng.normal(size=x.size)
        if self.noise == "persistent":
            pair.noise = pair.noise + fresh
        elif self.noise == "truncated" or pair.t == 0:
            pair.noise = fresh
        move = self.radius * (pair.noise if self.noise == "reused" else fresh)
        reach = np.minimum(np.abs(move), HALF_RANGE)
        middle = np.clip(x, self.space.lower + reach, self.space.upper - reach)
        runs = [self._run(pair, k, middle + sign * move) for k, sign in enumerate((1.0, -1.0))]
        steps = 2 * self.window
        if self.noise == "truncated":
            between = self._run(pair, 0, x)[0]
            pair.states, steps = [between, between], 3 * self.window
        else:
            pair.states = [state for state, _ in runs]
        pair.t += self.window
        ahead, behind = runs[0][1], runs[1][1]
        slope = (ahead - behind) / (2.0 * self.radius) * pair.noise
        return slope, (ahead + behind) / 2.0, steps

    def _run(self, pair: _Pair, which: int, x: FloatArray) -> tuple[Leaves, float]:
        """The state after the window, and the mean loss in it."""
        run = Run(self.loop, self.space.decode(x), pair.seed, is_plain=True)
        total = 0.0
        with torch.no_grad():
            rehearse(run)
            with run.random():
                state = pair.states[which] if pair.states else run.initial(run.phi)
                for t in range(pair.t, pair.t + self.window):
                    state = run.next(state, run.phi, t, run.batch(t))
                    total += float(self.loss(run.observed(state, run.phi).tree, run.phi))
        return state, total / self.window
