"""States of any structure, and loops in several threads."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

import zo_bilevel as zb
from zo_bilevel.adapters import TorchUnroll
from zo_bilevel.adapters.torch_unroll.functional_module import FunctionalModule
from zo_bilevel.adapters.torch_unroll.functional_training import (
    FunctionalSGD,
    FunctionalTraining,
)
from zo_bilevel.run.evaluator import Evaluator
from zo_bilevel.solve.evaluation import Point


def two(phi):
    return torch.ones(2, dtype=torch.float64)


def hypergradients_agree(init, step, read=None, num_steps=3):
    """The hypergradient by reverse mode, if forward mode and differences give the same."""
    loop = TorchUnroll(init, step, num_steps, dtype=torch.float64, read=read)

    def outer(theta, phi):
        return sum((k + 1.0) * (w**2).sum() for k, w in enumerate(tree_leaves(theta)))

    problem = zb.Problem(zb.Space(a=zb.Real(0.1, 3.0, shape=(2,))), loop, loop.outer(outer))
    estimators = [
        zb.ReverseUnroll(),
        zb.FG2U(2),
        zb.FG2UZO(2, directions="coordinate", difference="central"),
    ]
    found = [
        zb.hypergradient(problem, {"a": np.array([0.5, 1.2])}, estimator=estimator)["a"]
        for estimator in estimators
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5)
    return found[0]


class TestStates:
    """What a state may be made of."""

    @pytest.mark.parametrize(
        "step",
        [
            lambda w, phi, t, b: {"y": w["x"] + w["y"] * phi["a"], "x": w["x"] * phi["a"]},
            lambda w, phi, t, b: OrderedDict(y=w["x"] + w["y"] * phi["a"], x=w["x"] * phi["a"]),
        ],
        ids=["other order", "another kind of dict"],
    )
    def test_dicts_are_read_by_name(self, step):
        def straight(w, phi, t, b):
            return {"x": w["x"] * phi["a"], "y": w["x"] + w["y"] * phi["a"]}

        def init(phi):
            return {"x": two(phi), "y": 2.0 * two(phi)}

        found = hypergradients_agree(init, step)
        np.testing.assert_array_equal(found, hypergradients_agree(init, straight))
        assert list(TorchUnroll(init, step, 3, dtype=torch.float64)({"a": np.ones(2)})) == [
            "x",
            "y",
        ]

    def test_another_container_is_named(self):
        def step(w, phi, t, batch):
            return {"w": tuple(w["w"])}

        with pytest.raises(zb.InputError, match=r"from list to tuple around leaves \['w/0'\]"):
            TorchUnroll(lambda phi: {"w": [two(phi)]}, step, 3)({"a": 1.0})

    def test_empty_leaves_are_left_out_of_the_inner_solution(self):
        def init(phi):
            return {"none": torch.zeros(0, 3, dtype=torch.float64), "w": two(phi)}

        def step(w, phi, t, batch):
            return {"none": w["none"] * phi["a"][0], "w": w["w"] * phi["a"]}

        def read(w, phi):
            assert w["none"].shape == (0, 3)
            return w

        np.testing.assert_allclose(
            hypergradients_agree(init, step, read), 2 * 2 * 3 * np.array([0.5, 1.2]) ** 5
        )
        loop = TorchUnroll(lambda phi: torch.zeros(0), lambda w, phi, t, b: w, 3)
        with pytest.raises(zb.InputError, match="at least one number, got only empty tensors"):
            loop({"a": 1.0})

    def test_leaves_of_one_name_are_refused(self):
        def init(phi):
            return {"a/b": two(phi), "a": {"b": two(phi)}}

        with pytest.raises(zb.InputError, match="each leaf a name of its own"):
            TorchUnroll(init, lambda w, phi, t, b: w, 3)({"a": 1.0})

    @pytest.mark.parametrize(
        "estimator", [zb.FG2U(2), zb.ReverseUnroll(), zb.TruncatedUnroll(1), zb.Neumann(2)]
    )
    def test_complex_leaves_are_refused_where_a_derivative_is_taken(self, estimator):
        loop = complex_loop()
        problem = zb.Problem(
            zb.Space(a=zb.Real(-1, 1)), loop, loop.outer(lambda w, phi: (w**2).sum())
        )
        said = "init must return real tensors, got torch.complex128 at 'c'; keep it as.*view_as_re"
        with pytest.raises(zb.InnerSolverError, match=said):
            zb.hypergradient(problem, {"a": 0.3}, estimator=estimator)

    def test_without_derivative_they_may_be_in_the_state_but_not_in_the_solution(self):
        loop = complex_loop()
        problem = zb.Problem(
            zb.Space(a=zb.Real(-1, 1)), loop, loop.outer(lambda w, phi: (w**2).sum())
        )
        found = zb.hypergradient(problem, {"a": 0.3}, estimator=zb.FG2UZO(1, difference="central"))
        # a complex number times e^(ia) three times: its real part squared is cos(3a)^2
        np.testing.assert_allclose(found["a"], -3 * np.sin(6 * 0.3), rtol=1e-4)
        with pytest.raises(zb.InputError, match=r"real tensors, got torch.complex128"):
            TorchUnroll(loop.init, loop.step, 3, dtype=torch.float64)({"a": 0.3})

    def test_written_as_pairs_they_are_differentiated(self):
        def init(phi):
            return {"c": torch.tensor([1.0, 0.0], dtype=torch.float64)}

        def step(w, phi, t, batch):
            turned = torch.view_as_complex(w["c"]) * torch.exp(1j * phi["a"].sum())
            return {"c": torch.view_as_real(turned)}

        hypergradients_agree(init, step, lambda w, phi: w["c"][:1])


def complex_loop():
    def init(phi):
        return {"c": torch.ones(1, dtype=torch.complex128)}

    def step(w, phi, t, batch):
        return {"c": w["c"] * torch.exp(1j * phi["a"])}

    return TorchUnroll(init, step, 3, dtype=torch.float64, read=lambda w, phi: w["c"].real)


class TestThreads:
    """Torch puts weights into the module for a call, and its generators belong to the process."""

    @pytest.mark.parametrize("dropout", [0.0, 0.5])
    def test_threads_give_the_numbers_of_one_after_the_other(self, dropout):
        torch.manual_seed(0)
        inputs, targets = torch.randn(32, 3), torch.randn(32, 1)
        module = torch.nn.Sequential(
            torch.nn.Linear(3, 16), torch.nn.Dropout(dropout), torch.nn.Linear(16, 1)
        )

        def loss(model, batch, phi):
            return phi["scale"] * ((model(inputs) - targets) ** 2).mean()

        training = FunctionalTraining(module, loss, FunctionalSGD(0.1), fresh=True)

        def outer(theta, phi):
            return sum((w**2).sum() for w in theta.values())

        loop = training.unroll(20)
        problem = zb.Problem(zb.Space(scale=zb.Real(0.1, 2.0)), loop, loop.outer(outer))
        points = [{"scale": value} for value in np.linspace(0.2, 1.8, 24)]
        found = []
        for dispatcher in (zb.Serial(), zb.Joblib(8, backend="threading")):
            evaluator = Evaluator(problem, dispatcher, 0)
            asked = [
                Point(problem.space.encode(phi), (k,), "trial") for k, phi in enumerate(points)
            ]
            found.append([(e.status, e.loss) for e in evaluator.evaluate(asked)])
        assert found[0] == found[1]
        assert {status for status, _ in found[0]} == {"ok"}

    def test_a_functional_module_shares_all_but_the_weights_given(self):
        module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
        module.register_buffer("kept", torch.ones(3))
        module[0].bias.requires_grad_(False)
        call = FunctionalModule(module, ["0.weight"])
        given = {"0.weight": torch.eye(2)}
        before = copy.deepcopy(module.state_dict())
        module.eval()
        answer = call(given, torch.ones(2))
        torch.testing.assert_close(answer, torch.ones(2) + module[0].bias)
        skeleton = call._skeleton()[1]
        assert skeleton[0].weight.is_meta
        assert skeleton[0].bias is module[0].bias
        assert skeleton.kept is module.kept
        assert call._skeleton()[1] is skeleton
        module.train()
        assert call._skeleton()[1].training
        again = pickle.loads(pickle.dumps(call))
        module.eval()
        torch.testing.assert_close(again.module.state_dict(), before)
