"""Rivals of forward gradients: checkpointed reverse mode and implicit differentiation."""

import contextlib

import numpy as np
import pytest
import torch
from unrolled import SmallNetwork, quadratic_loop

import zo_bilevel as zb
from zo_bilevel.adapters import ImplicitSolution, TorchUnroll
from zo_bilevel.adapters.torch_unroll.linear_systems import norm, plus, solved

TARGET = np.array([1.0, -1.0, 0.5, 2.0])
PHI = {"p": np.array([0.5, -1.0, 2.0])}


@pytest.fixture(scope="module")
def network():
    return SmallNetwork(seed=0)


class TestCheckpoints:
    @pytest.mark.parametrize("memory", ["sqrt", 20_000, 8_000])
    def test_the_gradient_is_that_of_the_whole_graph(self, network, memory):
        exact, _ = network.gradient(zb.ReverseUnroll())
        found, _ = network.gradient(zb.ReverseUnroll(memory=memory))
        np.testing.assert_allclose(found, exact, rtol=1e-12)

    def test_random_numbers_of_a_step_are_those_of_the_first_run(self):
        def step(theta, phi, t, batch):
            noise = torch.rand(2, dtype=torch.float64)
            return theta + noise * phi["a"] * torch.cos(theta)

        loop = TorchUnroll(lambda phi: phi["a"] * torch.ones(2).double(), step, 9)
        loop.dtype = torch.float64
        problem = zb.Problem(
            zb.Space(a=zb.Real(-2, 2)), loop, loop.outer(lambda theta, phi: (theta**2).sum())
        )
        exact = zb.hypergradient(problem, {"a": 0.7}, estimator=zb.ReverseUnroll())
        found = zb.hypergradient(problem, {"a": 0.7}, estimator=zb.ReverseUnroll(memory="sqrt"))
        assert found["a"] == pytest.approx(exact["a"], rel=1e-12)

    def test_fewer_bytes_mean_fewer_graphs_at_a_time_and_more_steps(self):
        calls, alive = [], []

        def step(theta, phi, t, batch):
            calls.append(t)
            return torch.tanh(theta @ phi["w"])

        def counted(memory):
            calls.clear()
            alive.clear()
            loop = TorchUnroll(lambda phi: torch.ones(50, 20).double(), step, 64)
            loop.dtype = torch.float64
            space = zb.Space(w=zb.Real(-0.2, 0.2, shape=(20, 20)))
            problem = zb.Problem(space, loop, loop.outer(lambda t, phi: t.sum()))
            gradient = zb.hypergradient(problem, estimator=zb.ReverseUnroll(memory=memory))
            return gradient["w"], len(calls)

        whole, steps_of_all = counted("all")
        root, steps_of_root = counted("sqrt")
        little, steps_of_little = counted(130_000)
        np.testing.assert_allclose(root, whole, rtol=1e-11)
        np.testing.assert_allclose(little, whole, rtol=1e-11)
        assert steps_of_root - steps_of_all == 64  # one more run of the loop
        assert steps_of_little - steps_of_all >= 2 * 64

    def test_too_few_bytes_are_refused_with_how_many_are_needed(self, network):
        with pytest.raises(zb.InnerSolverError, match=r"memory must be at least about [\d,]+ "):
            zb.hypergradient(network.problem, network.phi, estimator=zb.ReverseUnroll(memory=10))

    @pytest.mark.parametrize("memory", ["half", 0, True])
    def test_a_wrong_limit_is_refused(self, memory):
        with pytest.raises(zb.InputError, match="memory must be 'all', 'sqrt' or a number"):
            zb.ReverseUnroll(memory=memory)


def quadratic_hypergradient(estimator, steps=3000):
    loop, matrix, _ = quadratic_loop(steps)
    space = zb.Space(p=zb.Real(-5, 5, shape=(3,)))

    def outer(theta, phi):
        return 0.5 * ((theta - torch.from_numpy(TARGET)) ** 2).sum()

    problem = zb.Problem(space, loop, loop.outer(outer))
    exact = matrix.T @ (matrix @ PHI["p"] - TARGET)
    return zb.hypergradient(problem, PHI, estimator=estimator)["p"], exact


class TestFixedPoints:
    @pytest.mark.parametrize(
        "estimator",
        [
            zb.ConjugateGradient(tolerance=1e-10),
            zb.Implicit(tolerance=1e-10),
            zb.Neumann(20000, tolerance=1e-12),
        ],
    )
    def test_the_closed_form_of_a_converged_loop(self, estimator):
        found, exact = quadratic_hypergradient(estimator)
        np.testing.assert_allclose(found, exact, rtol=1e-6)
        assert np.abs(1.01 * found - exact).max() > 1e-3 * np.abs(exact).max()

    def test_conjugate_gradients_need_as_many_terms_as_theta_has_numbers(self):
        found, exact = quadratic_hypergradient(zb.ConjugateGradient(4, 0.0))
        np.testing.assert_allclose(found, exact, rtol=1e-6)
        found, _ = quadratic_hypergradient(zb.ConjugateGradient(1, 0.0))
        assert np.abs(found - exact).max() > 1e-2 * np.abs(exact).max()

    def test_a_step_that_is_no_gradient_step_is_refused_by_conjugate_gradients(self):
        turn = torch.tensor([[0.5, 0.4], [-0.4, 0.5]], dtype=torch.float64)
        loop = TorchUnroll(
            lambda phi: torch.zeros(2, dtype=torch.float64),
            lambda theta, phi, t, batch: turn @ theta + phi["p"],
            200,
            dtype=torch.float64,
        )
        problem = zb.Problem(
            zb.Space(p=zb.Real(-5, 5, shape=(2,))),
            loop,
            loop.outer(lambda theta, phi: theta[0] + 2 * theta[1]),
        )
        with pytest.raises(zb.InnerSolverError, match=r"symmetric matrix.*use Implicit or Neumann"):
            zb.hypergradient(problem, estimator=zb.ConjugateGradient())
        found = zb.hypergradient(problem, estimator=zb.Implicit())["p"]
        exact = np.linalg.solve(np.eye(2) - turn.numpy(), np.eye(2)).T @ [1.0, 2.0]
        np.testing.assert_allclose(found, exact, rtol=1e-7)

    @pytest.mark.parametrize("solver", ["conjugate_gradient", "gmres", "neumann"])
    def test_a_tolerance_is_the_relative_residual(self, solver):
        rng = np.random.default_rng(0)
        half = rng.normal(size=(12, 12))
        matrix = torch.from_numpy(np.eye(12) + 0.02 * half @ half.T)
        right = [torch.from_numpy(rng.normal(size=12))]
        calls = []

        def product(u):
            calls.append(1)
            return [matrix @ u[0]]

        counts = []
        for tolerance in (1e-2, 1e-6):
            calls.clear()
            (u,) = solved(solver, product, [right], 200, tolerance)
            counts.append(len(calls))
            residual = norm(plus([matrix @ u[0]], -1.0, right)) / norm(right)
            assert residual <= 2 * tolerance
        assert counts[0] < counts[1] < 200

    @pytest.mark.parametrize("num_steps", [20, 400])
    def test_a_loop_that_has_not_converged_says_so(self, num_steps):
        def step(w, phi, t, batch):
            return w - 0.05 * (w - phi["a"] ** 2)

        zero = torch.zeros(1, dtype=torch.float64)
        loop = TorchUnroll(lambda phi: zero.clone(), step, num_steps, dtype=torch.float64)
        problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), loop, lambda w, phi: (w**2).sum())
        for estimator in (zb.Implicit(), zb.ConjugateGradient(), zb.Neumann(900, 1e-9)):
            said = contextlib.nullcontext()
            if num_steps == 20:  # 0.95^20 of the way is left: 0.36 / (1 - 0.36)
                said = pytest.warns(RuntimeWarning, match="move its end by about 0.6 of its size")
            with said:
                gradient = zb.hypergradient(problem, {"a": 2.0}, estimator=estimator)["a"]
            if num_steps == 400:
                np.testing.assert_allclose(gradient, 4 * 2.0**3, rtol=1e-6)


class TestImplicitSolution:
    """Ridge regression solved by a linear solver that torch never sees."""

    inputs = np.random.default_rng(0).normal(size=(20, 6))
    y = np.random.default_rng(1).normal(size=20)
    penalty = np.linspace(0.5, 2.0, 6)

    @property
    def phi(self):
        return {"penalty": self.penalty}

    def solve(self, phi):
        return np.linalg.solve(
            self.inputs.T @ self.inputs + np.diag(phi["penalty"]), self.inputs.T @ self.y
        )

    def condition(self, theta, phi):
        inputs, y = torch.from_numpy(self.inputs), torch.from_numpy(self.y)
        return inputs.T @ (inputs @ theta - y) + phi["penalty"] * theta

    def step(self, theta, phi):
        return theta - 0.02 * self.condition(theta, phi)

    def hypergradient(self, inner, estimator):
        space = zb.Space(penalty=zb.Real(0.1, 5, shape=(6,)))
        problem = zb.Problem(space, inner, lambda theta, phi: (theta**3).sum())
        return zb.hypergradient(problem, self.phi, estimator=estimator)["penalty"]

    @property
    def exact(self):
        theta = self.solve(self.phi)
        H = self.inputs.T @ self.inputs + np.diag(self.phi["penalty"])
        return -theta * np.linalg.solve(H, 3 * theta**2)

    @pytest.mark.parametrize(
        "estimator", [zb.Implicit(), zb.ConjugateGradient(tolerance=1e-10), zb.FG2U(6)]
    )
    @pytest.mark.parametrize("kind", ["condition", "step"])
    def test_the_closed_form(self, estimator, kind):
        inner = ImplicitSolution(self.solve, **{kind: getattr(self, kind)})
        np.testing.assert_allclose(self.hypergradient(inner, estimator), self.exact, rtol=1e-6)

    @pytest.mark.parametrize("size", [120, 520])
    def test_a_badly_conditioned_system_is_solved_or_said_to_be_unsolved(self, size):
        values = np.logspace(-4, 0, size)
        target = np.random.default_rng(0).normal(size=size)
        inner = ImplicitSolution(
            lambda phi: target / (values + 1e-4 * phi["s"]),
            lambda w, phi: (torch.from_numpy(values) + 1e-4 * phi["s"]) * w - torch.tensor(target),
        )
        outer = zb.SquaredError(np.zeros(size), weights=np.full(size, float(size)))
        problem = zb.Problem(zb.Space(s=zb.Real(0.5, 2)), inner, outer)
        exact = -2e-4 * np.sum(target**2 / (values + 1e-4) ** 3)
        for estimator in (zb.Implicit(), zb.ConjugateGradient(), zb.FG2U(1)):
            said = contextlib.nullcontext()
            if size == 520:
                said = pytest.warns(RuntimeWarning, match="of the right-hand side after 100 prod")
            with said:
                found = zb.hypergradient(problem, {"s": 1.0}, estimator=estimator)["s"]
            if size == 120:
                assert found == pytest.approx(exact, rel=1e-8)

    def test_a_wrong_condition_is_refused(self):
        inner = ImplicitSolution(self.solve, lambda theta, phi: theta - phi["penalty"])
        with pytest.raises(zb.InnerSolverError, match="does not satisfy the condition: its norm"):
            self.hypergradient(inner, zb.Implicit())

    def test_an_inaccurate_solve_is_refused(self):
        inner = ImplicitSolution(lambda phi: 1.1 * self.solve(phi), self.condition)
        with pytest.raises(zb.InnerSolverError, match="solve more accurately"):
            self.hypergradient(inner, zb.Implicit())

    def test_there_is_nothing_to_unroll(self):
        inner = ImplicitSolution(self.solve, self.condition)
        with pytest.raises(zb.ZoBilevelError, match="no steps to unroll; use Implicit"):
            self.hypergradient(inner, zb.ReverseUnroll())

    def test_arguments_are_checked(self):
        with pytest.raises(zb.InputError, match="exactly one of condition and step"):
            ImplicitSolution(self.solve)
        with pytest.raises(zb.InputError, match="condition must be callable"):
            ImplicitSolution(self.solve, 3)
        inner = ImplicitSolution(self.solve, lambda theta, phi: theta[:2])
        with pytest.raises(zb.InnerSolverError, match=r"theta's shape \(6,\), got \(2,\)"):
            self.hypergradient(inner, zb.Implicit())

    def test_outer_loop_with_scipy_inside(self):
        inner = ImplicitSolution(self.solve, self.condition)
        space = zb.Space(penalty=zb.Log(0.01, 100, shape=(6,)))
        problem = zb.Problem(space, inner, zb.SquaredError(self.solve(self.phi)))
        start = {"penalty": np.full(6, 5.0)}
        result = zb.minimize(
            problem, zb.GradientMethod(zb.Implicit(), lr=0.1), initial=start, max_solves=120
        )
        assert result.loss < 0.05 * result.history[0].loss


class TestLastSteps:
    """Rates that decay: the fixed point is that of the last step."""

    @staticmethod
    def hypergradient(last, estimator, dtype=torch.float64):
        def step(w, phi, t, batch):
            return w - (last if t == 59 else 0.5) * (w - phi["a"])

        loop = TorchUnroll(lambda phi: torch.zeros(3, dtype=dtype), step, 60, dtype=dtype)
        outer = loop.outer(lambda w, phi: (w**2).sum())
        problem = zb.Problem(zb.Space(a=zb.Real(-3, 3, shape=(3,))), loop, outer)
        return zb.hypergradient(problem, {"a": [1.0, 2.0, 0.5]}, estimator=estimator)["a"]

    @pytest.mark.parametrize(
        "estimator", [zb.Implicit(), zb.ConjugateGradient(), zb.Neumann(20), zb.HessianFree()]
    )
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_a_last_step_that_is_the_identity_is_refused_by_name(self, estimator, dtype):
        with pytest.raises(zb.InnerSolverError, match=r"last step \(t=59\) is the identity there"):
            self.hypergradient(0.0, estimator, dtype)

    def test_a_small_last_rate_is_solved_or_said_to_be_unsolved(self):
        for estimator in (zb.Implicit(), zb.ConjugateGradient()):
            np.testing.assert_allclose(self.hypergradient(1e-6, estimator), [2, 4, 1], rtol=1e-5)
        with pytest.warns(RuntimeWarning, match=r"Neumann series left 1e\+00 .* after 20 prod"):
            self.hypergradient(1e-6, zb.Neumann(20))
        np.testing.assert_allclose(self.hypergradient(0.5, zb.Neumann(20)), [2, 4, 1], rtol=1e-5)

    def test_a_singular_condition_is_refused_by_name(self):
        flat = ImplicitSolution(lambda phi: np.array([phi["a"], 0.0]), lambda w, phi: torch.stack(
            [w[0] - phi["a"], 0.0 * w[1]]
        ))  # fmt: skip
        problem = zb.Problem(
            zb.Space(a=zb.Real(-3, 3)), flat, zb.SquaredError(np.array([0.0, 5.0]))
        )
        with pytest.raises(zb.InnerSolverError, match="linear system is singular"):
            zb.hypergradient(problem, {"a": 1.0}, estimator=zb.Implicit())
