"""Three families of public bilevel problems, on data that ship with scikit-learn.

`python -m benchmarks.bilevel_families [quadratic regularisation cleaning]`: the value function
`h(phi) = F(argmin_theta G(theta, phi), phi)` after equal CPU seconds, as the excess over the least
that any method found; median and quartiles of five seeds, each method at the best of three rates on
two other seeds; five minutes of CPU time. The families and kinds of solvers are those of the
benchopt project's bilevel benchmark (Moreau et al. 2022, arXiv 2206.13424; Dagreou et al. 2022,
arXiv 2201.13409). Stochastic solvers are written here; ours go through `TorchUnroll`.
"""

import argparse
import statistics
import time

import numpy as np
import torch

import zo_bilevel as zb
from benchmarks.arena.bilevel_data import cleaning, quadratic, regularisation
from zo_bilevel.adapters import TorchUnroll
from zo_bilevel.run.evaluator import Evaluator

F = torch.nn.functional
BATCH, STEPS = 64, 50


def derivatives(family, theta, phi, v, rows):
    """Gradient of G in theta, and the products of v with its second derivatives."""
    theta, phi = theta.detach().requires_grad_(), phi.detach().requires_grad_()
    (slope,) = torch.autograd.grad(family.inner(theta, phi, rows), theta, create_graph=True)
    curved, crossed = torch.autograd.grad(slope, (theta, phi), v, materialize_grads=True)
    return slope.detach(), curved, crossed


def outer_gradient(family, theta, phi, rows):
    theta, phi = theta.detach().requires_grad_(), phi.detach().requires_grad_()
    return torch.autograd.grad(family.outer(theta, phi, rows), (theta, phi), materialize_grads=True)


class Rows:
    """Mini-batches of both levels."""

    def __init__(self, family, seed):
        self.family, self.generator = family, torch.Generator().manual_seed(seed)

    def inner(self):
        return torch.randint(self.family.rows[0], (BATCH,), generator=self.generator)

    def outer(self):
        return torch.randint(self.family.rows[1], (BATCH,), generator=self.generator)


def soba(family, rate, seed):
    """One loop: theta, v and phi move together (Dagreou et al. 2022, SOBA)."""
    yield from single_loop(family, rate, seed, memory=0.0)


def mrbo(family, rate, seed):
    """The same with momentum that recomputes the last point (Yang et al. 2021, MRBO)."""
    yield from single_loop(family, rate, seed, memory=0.9)


def single_loop(family, rate, seed, memory):
    rows, point = Rows(family, seed), (family.theta, torch.zeros_like(family.theta), family.phi)

    def directions(point, inner_rows, outer_rows):
        slope, curved, crossed = derivatives(family, point[0], point[2], point[1], inner_rows)
        in_theta, in_phi = outer_gradient(family, point[0], point[2], outer_rows)
        return slope, curved + in_theta, crossed + in_phi

    before, moves = None, None
    for t in range(1 << 30):
        batches = rows.inner(), rows.outer()
        found = directions(point, *batches)
        if memory and before is not None:
            last = directions(before, *batches)
            found = [d + memory * (m - e) for d, m, e in zip(found, moves, last, strict=True)]
        decay = (1 + t / 100) ** -0.4
        rates = (family.inner_rate * decay, family.inner_rate * decay, rate * decay)
        before, moves = point, found
        point = tuple(p - r * d for p, r, d in zip(point, rates, found, strict=True))
        yield point[2].clamp(-family.bound, family.bound)


def stocbio(family, rate, seed):
    """Ten stochastic inner steps, ten terms of a Neumann series (Ji et al. 2021, stocBiO)."""
    rows, theta, phi = Rows(family, seed), family.theta, family.phi
    for _ in range(1 << 30):
        for _ in range(10):
            leaf = theta.detach().requires_grad_()
            (slope,) = torch.autograd.grad(family.inner(leaf, phi, rows.inner()), leaf)
            theta = theta - family.inner_rate * slope
        term, in_phi = outer_gradient(family, theta, phi, rows.outer())
        v = torch.zeros_like(term)
        for _ in range(10):
            v = v + family.inner_rate * term
            term = term - family.inner_rate * derivatives(family, theta, phi, term, rows.inner())[1]
        crossed = derivatives(family, theta, phi, v, rows.inner())[2]
        phi = (phi - rate * (in_phi - crossed)).clamp(-family.bound, family.bound)
        yield phi


def aid(family, rate, seed):
    """Ten full inner steps, ten of conjugate gradients, both from the last (Pedregosa 2016)."""
    everything, theta, phi, v = slice(None), family.theta, family.phi, None
    for _ in range(1 << 30):
        for _ in range(10):
            leaf = theta.detach().requires_grad_()
            (slope,) = torch.autograd.grad(family.inner(leaf, phi, everything), leaf)
            theta = theta - family.inner_rate * slope
        in_theta, in_phi = outer_gradient(family, theta, phi, everything)
        v = torch.zeros_like(in_theta) if v is None else v
        left = in_theta - derivatives(family, theta, phi, v, everything)[1]
        along = left
        for _ in range(10):
            image = derivatives(family, theta, phi, along, everything)[1]
            size = (left**2).sum()
            step = size / (along * image).sum().clamp(min=1e-300)
            v, left = v + step * along, left - step * image
            along = left + (left**2).sum() / size.clamp(min=1e-300) * along
        crossed = derivatives(family, theta, phi, v, everything)[2]
        phi = (phi - rate * (in_phi - crossed)).clamp(-family.bound, family.bound)
        yield phi


def ours(estimator):
    """Adam on hypergradients through fifty full inner steps from theta's start."""

    def run(family, rate, seed):
        everything = slice(None)

        def step(theta, phi, t, batch):
            slope = torch.func.grad(family.inner)(theta, phi["p"], everything)
            return theta - family.inner_rate * slope

        loop = TorchUnroll(lambda phi: family.theta, step, STEPS, dtype=torch.float64)
        outer = loop.outer(lambda theta, phi: family.outer(theta, phi["p"], everything))
        space = zb.Space(p=zb.Real(-family.bound, family.bound, shape=family.phi.shape))
        problem = zb.Problem(space, loop, outer)
        method = zb.GradientMethod(estimator, lr=rate)
        state = method.start(problem, seed, initial={"p": family.phi.numpy()})
        evaluator = Evaluator(problem, zb.Serial(), seed)
        for _ in range(1 << 30):
            points = method.ask(state)
            state = method.tell(state, evaluator.evaluate(points))
            yield torch.from_numpy(np.asarray(space.decode(method.ask(state)[0].x)["p"]))

    return run


METHODS = {
    "SOBA": soba,
    "MRBO-like": mrbo,
    "stocBiO": stocbio,
    "AID, warm, conjugate gradients": aid,
    "unrolled: ReverseUnroll": ours(zb.ReverseUnroll()),
    "ConjugateGradient": ours(zb.ConjugateGradient(20, 1e-3)),
    "FG2U": ours(zb.FG2U()),
    "FG2UZO": ours(zb.FG2UZO()),
}
OURS = ("unrolled: ReverseUnroll", "ConjugateGradient", "FG2U", "FG2UZO")
FAMILIES = {"quadratic": quadratic, "regularisation": regularisation, "cleaning": cleaning}
RATES = {
    "quadratic": (0.001, 0.01, 0.1),
    "regularisation": (1, 10, 100),
    "cleaning": (10, 100, 1000),
}
OUR_RATES = (0.03, 0.1, 0.3)
CHOSEN_ON = (1000, 1001)
"""Seeds on which rates are chosen, none of those reported."""


def found_in(method, problems, rate, seconds):
    """h at the last phi when the CPU time is over, by problem."""
    values = []
    for seed, family in problems.items():
        started = time.process_time()
        steps = method(family, rate, seed)
        while time.process_time() - started < seconds:
            phi = next(steps)
        values.append(family.value(phi) if bool(torch.isfinite(phi).all()) else np.inf)
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=list(FAMILIES), help=" ".join(FAMILIES))
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of a run")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if unknown := set(options.families) - set(FAMILIES):
        parser.error(f"families must be among {' '.join(FAMILIES)}, got {' '.join(unknown)}")
    for name in options.families:
        chosen_on, problems = (
            {seed: FAMILIES[name](seed) for seed in seeds}
            for seeds in (CHOSEN_ON, range(options.seeds))
        )
        begun = [family.value(family.phi) for family in problems.values()]
        found = {}
        for title, method in METHODS.items():
            rates = OUR_RATES if title in OURS else RATES[name]
            trials = {
                r: statistics.median(found_in(method, chosen_on, r, options.seconds)) for r in rates
            }
            rate = min(rates, key=trials.__getitem__)
            found[title] = rate, found_in(method, problems, rate, options.seconds)
        least = [min(column) for column in zip(*(v for _, v in found.values()), strict=True)]
        print(f"\n{name}: {FAMILIES[name].__doc__}")
        print(
            f"h at the start {statistics.median(begun):.4f}, least {statistics.median(least):.4f}; "
            f"excess after {options.seconds:g} CPU seconds, {options.seeds} seeds"
        )
        for title, (rate, values) in found.items():
            excess = [value - low for value, low in zip(values, least, strict=True)]
            low, middle, high = statistics.quantiles(excess, n=4, method="inclusive")
            print(
                f"{title:32} {middle:.2e} ({low:.1e} to {high:.1e}) at rate {rate:g}",
                flush=True,
            )


if __name__ == "__main__":
    main()
