"""TorchUnroll: exact derivatives, runs that repeat, states and options, threads and batches."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves
from unrolled import NUM_STEPS, SmallNetwork, hypergradient_of, loop_of, quadratic_loop

import zo_bilevel as zb
from zo_bilevel.adapters import TorchUnroll
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.evaluation import Point
from zo_bilevel.solve.streams import solve_seed


@pytest.fixture(scope="module")
def network():
    return SmallNetwork(seed=0)


class TestExactness:
    def test_reverse_unrolling_is_the_derivative_of_the_run(self, network):
        x = network.space.encode(network.phi)
        exact, _ = network.gradient(zb.ReverseUnroll())
        radius, numeric = 1e-5, []
        for axis in np.eye(x.size):
            ends = []
            for sign in (1, -1):
                point = network.space.decode(x + sign * radius * axis)
                seed = solve_seed(0, (0,))
                theta = network.loop(point, seed=seed)
                named = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in point.items()}
                ends.append(float(network.outer(theta, named)))
            numeric.append((ends[0] - ends[1]) / (2 * radius))
        np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-9)

    def test_a_direction_alone_is_pushed_to_what_several_at_once_are(self, network):
        rng = np.random.default_rng(0)
        tangents = {
            name: rng.normal(size=(2, *np.shape(value))) for name, value in network.phi.items()
        }
        _, together = network.loop.jvp(network.phi, tangents, seed=3)
        for k in range(2):
            row = {name: value[k : k + 1] for name, value in tangents.items()}
            _, alone = network.loop.jvp(network.phi, row, seed=3)
            for one, other in zip(tree_leaves(alone), tree_leaves(together), strict=True):
                torch.testing.assert_close(one[0], other[k], rtol=1e-11, atol=1e-13)

    def test_truncation_at_all_steps_is_reverse_unrolling(self, network):
        exact, _ = network.gradient(zb.ReverseUnroll())
        for steps in (NUM_STEPS, NUM_STEPS + 5):
            truncated, _ = network.gradient(zb.TruncatedUnroll(steps))
            np.testing.assert_allclose(truncated, exact, rtol=1e-13)

    def test_truncation_error_shrinks_with_the_steps_kept(self):
        exact, errors = quadratic_hypergradient(zb.ReverseUnroll(), 40), []
        for steps in (1, 2, 4, 8, 16):
            found = quadratic_hypergradient(zb.TruncatedUnroll(steps), 40)
            errors.append(np.linalg.norm(found - exact))
        assert all(late < early for early, late in itertools.pairwise(errors))

    def test_neumann_tends_to_the_closed_form_of_the_quadratic(self):
        _, matrix, H = quadratic_loop(1)
        truth = matrix.T @ (matrix @ PHI - TARGET)  # the fixed point is matrix phi whatever H is
        previous = np.inf
        for terms in (1, 4, 16, 64, 256):
            error = np.linalg.norm(quadratic_hypergradient(zb.Neumann(terms), 400) - truth)
            spread = np.max(np.abs(1 - 0.4 * np.linalg.eigvalsh(H)))
            # the error left is matrix' (I - rate H)^terms (theta - target)
            bound = (
                np.linalg.norm(matrix, 2) * spread**terms * np.linalg.norm(matrix @ PHI - TARGET)
            )
            assert error <= bound + 1e-9
            assert error < previous
            previous = error
        assert previous < 1e-6

    def test_a_series_whose_terms_grow_is_refused(self):
        def step(w, phi, t, batch):
            return {"w": -1.5 * w["w"] + phi["a"]}

        with pytest.raises(zb.InnerSolverError, match=r"its 60 terms grow from norm .* to .*e\+"):
            hypergradient_of(loop_of(step), zb.Neumann(60), a=1.0)
        with pytest.raises(
            zb.InnerSolverError, match=r"left 3e\+00 of the right-hand side after 4"
        ):
            hypergradient_of(loop_of(step), zb.Neumann(4), a=1.0)  # a warning, an error in tests

    def test_hessian_free_is_the_first_neumann_term(self):
        first = quadratic_hypergradient(zb.Neumann(1), 50)
        np.testing.assert_array_equal(quadratic_hypergradient(zb.HessianFree(), 50), first)
        _, matrix, H = quadratic_loop(1)
        np.testing.assert_allclose(first, matrix.T @ (0.4 * H @ (matrix @ PHI - TARGET)), rtol=1e-4)

    def test_a_wrong_learning_rate_in_the_closed_form_would_be_seen(self):
        _, matrix, H = quadratic_loop(1)
        first = quadratic_hypergradient(zb.HessianFree(), 50)
        assert not np.allclose(first, matrix.T @ (0.5 * H @ (matrix @ PHI - TARGET)), rtol=1e-2)


PHI, TARGET = np.array([0.5, -1.0, 2.0]), np.ones(4)


def quadratic_hypergradient(estimator, num_steps):
    loop, _, _ = quadratic_loop(num_steps)
    problem = zb.Problem(
        zb.Space(p=zb.Real(-3, 3, shape=(3,))), loop, zb.SquaredError(TARGET, weights=2.0)
    )
    return zb.hypergradient(problem, {"p": PHI}, estimator=estimator)["p"]


class TestRuns:
    def test_same_seed_same_numbers_other_seed_others(self, network):
        runs = [network.loop(network.phi, seed=seed)["first"] for seed in (3, 3, 4)]
        assert torch.equal(runs[0], runs[1])
        assert not torch.equal(runs[0], runs[2])

    def test_forward_and_reverse_see_the_same_theta_as_a_plain_run(self, network):
        plain = network.loop(network.phi, seed=3)
        tangents = {"shift": np.ones((2, 3)), "decay": np.ones(2), "rate": np.ones(2)}
        pushed, _ = network.loop.jvp(network.phi, tangents, seed=3)
        pulled, _ = network.loop.pull_trajectory(network.phi, lambda _: np.ones(15), seed=3)
        for theta in (pushed, pulled):
            torch.testing.assert_close(theta["first"], plain["first"], rtol=1e-13, atol=1e-14)

    def test_no_graph_is_kept(self, network):
        theta = network.loop(network.phi, seed=0)
        pushed, tangents = network.loop.jvp(network.phi, {"rate": np.ones(1)}, seed=0)
        assert not any(t.requires_grad for t in [*theta.values(), *pushed.values()])
        assert not any(t.requires_grad for t in tangents.values())

    def test_dropout_is_fixed_by_the_seed_and_the_outside_generator_is_left_alone(self):
        loop = loop_of(lambda w, phi, t, batch: {"w": w["w"] + phi["a"] * torch.rand(2).double()})
        torch.manual_seed(0)
        before = torch.get_rng_state()
        first, second = loop({"a": 1.0}, seed=5), loop({"a": 1.0}, seed=5)
        assert torch.equal(first["w"], second["w"])
        pushed, _ = loop.jvp({"a": 1.0}, {"a": np.ones(3)}, seed=5)
        assert torch.equal(pushed["w"], first["w"])
        assert torch.equal(torch.get_rng_state(), before)

    def test_nested_state_comes_out_by_path_and_goes_back_in_for_the_outer_objective(self):
        def init(phi):
            return (torch.ones(2, dtype=torch.float32), [torch.zeros((), dtype=torch.int64)])

        def step(theta, phi, t, batch):
            return theta[0] * phi["a"], [theta[1][0] + 1]

        loop = TorchUnroll(init, step, 3)
        assert list(loop({"a": 2.0})) == ["0", "1/0"]

        def outer(theta, phi):
            assert theta[0].dtype == torch.float32
            assert int(theta[1][0]) == 3
            return theta[0].sum() * phi["a"]

        problem = zb.Problem(zb.Space(a=zb.Real(0, 4)), loop, loop.outer(outer))
        for estimator in (zb.FG2U(1), zb.ReverseUnroll()):
            found = zb.hypergradient(problem, {"a": 1.5}, estimator=estimator)
            np.testing.assert_allclose(found["a"], 2 * 4 * 1.5**3, rtol=1e-6)

    def test_only_what_read_gives_is_the_inner_solution(self):
        loop = loop_of(
            lambda w, phi, t, batch: {"w": w["w"] + phi["a"]},
            read=lambda w, phi: phi["a"] * w["w"][:1],
        )
        assert loop({"a": 2.0}).tolist() == [12.0]
        _, tangent = loop.jvp({"a": 2.0}, {"a": np.array([1.0, 2.0])}, seed=0)
        np.testing.assert_allclose(tangent, [[12.0], [24.0]])  # d(3 a^2)
        _, gradient = loop.pull_trajectory({"a": 2.0}, lambda _: np.ones(1), seed=0)
        assert gradient["a"] == 12.0
        contracting = loop_of(
            lambda w, phi, t, batch: {"w": 0.5 * w["w"] + phi["a"]},
            read=lambda w, phi: phi["a"] * w["w"][:1],
        )
        _, gradient = contracting.pull_fixed_point({"a": 2.0}, lambda _: np.ones(1), seed=0)
        assert gradient["a"] == 5.5  # 1.75 a directly, a through the last step

    def test_a_loop_travels_to_another_process(self):
        network = SmallNetwork(0)
        serial = zb.hypergradient(network.problem, network.phi, estimator=zb.FG2U(4, chunk=1))
        copied = copy.copy(network.problem)
        moved = pickle.loads(pickle.dumps(copied.inner))
        assert torch.equal(
            moved(network.phi, seed=1)["first"], network.loop(network.phi, seed=1)["first"]
        )
        with zb.Joblib(1) as dispatcher:
            spread = zb.hypergradient(
                network.problem, network.phi, estimator=zb.FG2U(4, chunk=1), dispatcher=dispatcher
            )
        for name in serial:
            np.testing.assert_array_equal(serial[name], spread[name])

    def test_repr_names_the_step(self, network):
        assert repr(network.loop) == f"TorchUnroll(SmallNetwork.step, num_steps={NUM_STEPS})"


class TestOptions:
    def test_numbers_that_are_options_stay_numbers(self):
        table = {0.1: 1.0, 0.2: 2.0}

        def step(w, phi, t, batch):
            assert isinstance(phi["a"], torch.Tensor)
            return {"w": w["w"] + phi["a"] * table[phi["rate"]]}

        loop = loop_of(step)
        space = zb.Space(a=zb.Real(-1, 1), rate=zb.Choice([0.1, 0.2]))
        problem = zb.Problem(
            space, loop, loop.outer(lambda w, phi: (w["w"] ** 2).sum() * table[phi["rate"]])
        )
        result = zb.minimize(problem, max_solves=30, seed=0)
        assert result.loss < 1.0

    def test_a_name_is_an_option_or_a_number_for_all_problems_of_a_loop(self):
        loop = loop_of(plus)
        zb.Problem(zb.Space(a=zb.Real(-1, 1)), loop)
        zb.Problem(zb.Space(a=zb.Log(0.1, 1)), loop)
        with pytest.raises(zb.InputError, match="'a' must not be a Choice in one problem"):
            zb.Problem(zb.Space(a=zb.Choice([0.1, 0.2])), loop)


def plus(w, phi, t, batch):
    return {"w": w["w"] + phi["a"]}


class TestBatches:
    @pytest.mark.parametrize("size", [1, 4])
    def test_rows_of_a_batch_are_the_runs_alone(self, network, size):
        rng = np.random.default_rng(0)
        x = rng.uniform(-1, 1, size=(size, network.space.size))
        rows = [network.space.decode(row) for row in x]
        stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        together = network.loop.solve_batch(stacked, seed=5)
        for k, row in enumerate(rows):
            for name, part in network.loop(row, seed=5).items():
                torch.testing.assert_close(together[name][k], part, rtol=1e-12, atol=1e-14)

    def test_zeroth_order_directions_run_in_one_call(self, network):
        estimator = zb.FG2UZO(4, difference="central")
        alone = zb.hypergradient(network.problem, network.phi, estimator=estimator)
        together = zb.hypergradient(
            network.problem, network.phi, estimator=estimator, dispatcher=zb.Batched()
        )
        for name, value in alone.items():
            np.testing.assert_allclose(together[name], value, rtol=1e-6, atol=1e-9)

    def test_integers_are_run_one_after_the_other(self):
        def step(theta, phi, t, batch):
            return {"w": theta["w"] + (phi["a"] if phi["kind"] > 2 else -phi["a"])}

        loop = loop_of(step)
        space = zb.Space(a=zb.Real(0, 2), kind=zb.Integer(1, 4))
        problem = zb.Problem(space, loop, loop.outer(lambda theta, phi: theta["w"].sum()))
        evaluator = Evaluator(problem, zb.Batched(), 0)
        points = [Point(space.encode({"a": 1.0, "kind": kind})) for kind in (1, 4)]
        losses = [evaluation.loss for evaluation in evaluator.evaluate(points)]
        assert losses == pytest.approx([-6.0, 6.0])
