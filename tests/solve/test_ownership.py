"""Nothing that users do to an object that they were handed, or returned, changes a number."""

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.solve.dispatch.base import Solve
from zo_bilevel.solve.evaluation import Evaluation, Job, Point

SPACE = zb.Space(v=zb.Real(0, 5, shape=(2,)))


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_a_retry_finds_phi_as_it_was(backend):
    def fails_once(phi):
        before = phi["v"].copy()
        phi["v"][:] = -1.0
        if not hasattr(fails_once, "tried"):
            fails_once.tried = True
            raise RuntimeError("once")
        return before

    jobs = [Job(0, {"v": np.array([1.0, 2.0])}, 0)]
    with zb.Joblib(1, backend, retries=1) as dispatcher:
        ((_, outcome),) = dispatcher.run(Solve(fails_once), jobs)
    assert outcome.theta.tolist() == [1.0, 2.0]


def test_a_batch_that_is_halved_finds_phi_as_it_was():
    class InPairs:
        def __call__(self, phi):
            return phi["v"]

        def solve_batch(self, phis):
            before = phis["v"].copy()
            phis["v"][:] = -1.0
            if len(before) > 2:
                raise RuntimeError("too many")
            return before

    jobs = [Job(k, {"v": np.full(2, float(k))}, 0) for k in range(4)]
    outcomes = dict(zb.Batched().run(Solve(InPairs()), jobs))
    assert [outcomes[k].theta.tolist() for k in range(4)] == [[k, k] for k in range(4)]


def test_evaluations_keep_what_they_were_told():
    theta, x = np.ones(3), np.zeros(2)
    evaluation = Evaluation(Point(x), "ok", theta, 1.0)
    theta[:], x[:] = 7.0, 7.0
    assert evaluation.theta.tolist() == [1.0] * 3
    assert evaluation.point.x.tolist() == [0.0] * 2
    with pytest.raises(ValueError, match="read-only"):
        evaluation.theta[0] = 2.0


def in_place(theta, phi):
    theta -= 1.0
    phi["v"] *= 2.0
    return (theta**2).sum()


def test_outer_objectives_and_rules_may_work_in_place():
    def valid(theta, phi):
        theta[:] = 0.0
        phi["v"][:] = 0.0
        return True

    def by_numpy(theta, phi):
        theta -= 1.0
        phi["v"][:] = 0.0
        return float(np.sum(theta**2))

    def plain(theta, phi):
        return ((theta - 1.0) ** 2).sum()

    def run(outer, **options):
        problem = zb.Problem(SPACE, lambda phi: phi["v"] ** 2, outer, **options)
        return [record.loss for record in zb.minimize(problem, max_solves=12).history]

    assert run(in_place, valid=valid) == run(plain) != run(by_numpy)
    assert run(by_numpy, valid=valid) == run(lambda theta, phi: float(np.sum((theta - 1) ** 2)))


def test_a_result_may_be_changed_without_harm_to_the_next_run():
    problem = zb.Problem(SPACE, lambda phi: phi["v"], zb.SquaredError([1.0, 2.0]))
    first = zb.minimize(problem, max_solves=8)
    first.theta[:] = 9.0
    first.phi["v"][:] = 9.0
    assert zb.minimize(problem, max_solves=8).loss == first.loss


def test_gradient_mode_and_numpy_s_errors_are_the_caller_s():
    def careless(phi):
        torch.set_grad_enabled(False)
        np.seterr(all="raise")
        return phi["v"]

    before = np.geterr()
    zb.minimize(zb.Problem(SPACE, careless, zb.SquaredError([1.0, 2.0])), max_solves=3)
    assert torch.is_grad_enabled()
    assert np.geterr() == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_torch_objectives_are_differentiated_whatever_the_mode(mode):
    target = torch.tensor([1.0, 2.0], dtype=torch.float64)
    problem = zb.Problem(SPACE, lambda phi: phi["v"], lambda t, phi: ((t - target) ** 2).sum())
    plain = zb.minimize(problem, max_solves=12)
    with mode():
        found = zb.minimize(problem, max_solves=12)
    assert [r.loss for r in found.history] == [r.loss for r in plain.history]
    assert found.loss < 1e-20
