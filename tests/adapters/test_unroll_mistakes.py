"""TorchUnroll: loops and arguments that break a rule are refused by name."""

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from unrolled import hypergradient_of, loop_of

import zo_bilevel as zb
from zo_bilevel.adapters import TorchUnroll


def plus(w, phi, t, batch):
    return {"w": w["w"] + phi["a"]}


class TestBadInput:
    @pytest.mark.parametrize(
        ("step", "message"),
        [
            (lambda w, phi, t, b: {"v": w["w"] + phi["a"]}, r"step 0 changed the structure"),
            (lambda w, phi, t, b: {"w": w["w"][:1] + phi["a"]}, r"step 0 changed 'w' from \(2,\)"),
            (lambda w, phi, t, b: {"w": (w["w"] + phi["a"]).float()}, r"to \(2,\) torch.float32"),
            (lambda w, phi, t, b: {"w": w["w"].add_(1.0)}, r"step 0 changed 'w' in place"),
            (lambda w, phi, t, b: {"w": w["w"].data.sub_(1.0)}, r"step 0 changed 'w' in place"),
            (lambda w, phi, t, b: {"w": 3.0}, r"step 0 must return a pytree of tensors, got float"),
        ],
    )
    def test_a_step_that_breaks_a_rule_is_refused_by_name(self, step, message):
        with pytest.raises(zb.InputError, match=message):
            loop_of(step)({"a": 1.0})
        with pytest.raises(zb.InnerSolverError, match=message):
            hypergradient_of(loop_of(step), a=1.0)

    def test_a_later_step_is_looked_at_too(self):
        def step(w, phi, t, batch):
            return {"w": w["w"] if t < 2 else w["w"][:1]}

        with pytest.raises(zb.InputError, match="step 2 changed 'w'"):
            loop_of(step)({"a": 1.0})

    @pytest.mark.parametrize("estimator", [zb.FG2U(1), zb.FG2U(2), zb.ReverseUnroll()])
    def test_a_later_step_in_place_is_refused_too(self, estimator):
        def step(w, phi, t, batch):
            return {"w": w["w"] + phi["a"]} if t < 2 else {"w": w["w"].add_(phi["a"])}

        with pytest.raises(zb.InputError, match="step 2 changed 'w' in place"):
            loop_of(step)({"a": 1.0})
        with pytest.raises(zb.InnerSolverError, match=r"step 2 (changed 'w'|writes .*) in place"):
            hypergradient_of(loop_of(step), estimator, a=1.0)

    @pytest.mark.parametrize("estimator", [zb.FG2U(1), zb.FG2U(2)])
    def test_activation_checkpoints_are_named_where_they_cannot_be(self, estimator):
        def step(w, phi, t, batch):
            saved = torch.utils.checkpoint.checkpoint(torch.tanh, w["w"], use_reentrant=False)
            return {"w": saved + phi["a"]}

        with pytest.raises(zb.InnerSolverError, match=r"step 0 uses torch.utils.checkpoint"):
            hypergradient_of(loop_of(step), estimator, a=1.0)
        exact = hypergradient_of(loop_of(step), zb.ReverseUnroll(), a=1.0)
        found = hypergradient_of(loop_of(step), zb.FG2UZO(1), a=1.0)
        assert found["a"] == pytest.approx(exact["a"], rel=1e-3)

    @pytest.mark.parametrize("where", ["init", "step", "phi in step", "read"])
    def test_a_derivative_that_reverse_mode_loses_is_refused(self, where):
        # 0.5^3 (1 + a) + 0.7 (1 + 0.5 + 0.25) a: forward mode and differences see all of it
        def lost(value, here):
            with torch.set_grad_enabled(torch.is_grad_enabled() and here != where):
                return value * 1.0

        loop = TorchUnroll(
            lambda phi: lost(1.0 + phi["a"], "init"),
            lambda w, phi, t, b: lost(0.5 * w, "step") + lost(0.7 * phi["a"], "phi in step"),
            3,
            read=lambda w, phi: lost(w, "read") + 0 * phi["a"],
            dtype=torch.float64,
        )
        problem = zb.Problem(zb.Space(a=zb.Real(0, 2)), loop, lambda w, phi: w)
        for estimator in (zb.FG2U(1), zb.FG2UZO(1)):
            found = zb.hypergradient(problem, {"a": 1.0}, estimator=estimator)
            assert found["a"] == pytest.approx(1.35, rel=1e-6)
        for estimator in (zb.ReverseUnroll(), zb.ReverseUnroll("sqrt"), zb.Neumann(9)):
            with pytest.raises(zb.InnerSolverError, match=r"works inside torch\.no_grad"):
                zb.hypergradient(problem, {"a": 1.0}, estimator=estimator)

    @pytest.mark.parametrize("lost", ["state", "phi", "all"])
    @pytest.mark.parametrize(
        "estimator", [zb.ReverseUnroll(), zb.ReverseUnroll("sqrt"), zb.TruncatedUnroll(4)]
    )
    def test_a_later_step_that_loses_it_is_refused_too(self, estimator, lost):
        def step(w, phi, t, b):
            parts = {"state": w["w"], "phi": phi["a"]}
            with torch.set_grad_enabled(torch.is_grad_enabled() and t != 3):
                without = {name: part * 1.0 for name, part in parts.items()}
            parts |= without if lost == "all" else {lost: without[lost]}
            return {"w": 0.5 * parts["state"] + parts["phi"]}

        problem_loop = loop_of(step, num_steps=6)
        with pytest.raises(zb.InnerSolverError, match=r"step 3 works inside torch\.no_grad"):
            hypergradient_of(problem_loop, estimator, a=1.0)

    def test_a_step_may_look_at_itself_without_a_gradient(self):
        def step(w, phi, t, b):
            with torch.no_grad():
                is_far = bool((w["w"] * 1.0).abs().sum() > 1e6)
            return {"w": w["w"] + phi["a"] * (0.0 if is_far else 1.0)}

        found = hypergradient_of(loop_of(step), zb.ReverseUnroll(), a=1.0)
        assert found["a"] == hypergradient_of(loop_of(step), zb.FG2U(1), a=1.0)["a"]

    @pytest.mark.parametrize(
        "step",
        [
            lambda w, phi, t, b: {"w": 0.5 * w["w"] + phi["a"]},
            lambda w, phi, t, b: {"w": 0.5 * w["w"] + phi["a"] + phi["unused"].detach()},
        ],
        ids=["never touched", "detached"],
    )
    @pytest.mark.parametrize("estimator", [zb.FG2U(2), zb.ReverseUnroll(), zb.Neumann(2)])
    def test_a_parameter_that_phi_does_not_reach_is_named(self, step, estimator):
        with pytest.raises(zb.InnerSolverError, match="does not depend on 'unused'"):
            hypergradient_of(loop_of(step), estimator, a=1.0, unused=2.0)

    @pytest.mark.parametrize("estimator", [zb.FG2U(2), zb.ReverseUnroll()])
    def test_such_a_parameter_may_be_allowed(self, estimator):
        found = hypergradient_of(loop_of(plus, allow_unreached=["b"]), estimator, a=1.0, b=2.0)
        np.testing.assert_allclose([found["a"], found["b"]], [36.0, 0.0], atol=1e-12)

    def test_names_that_are_allowed_must_be_names(self):
        with pytest.raises(zb.InputError, match="must be a list of names, got the string 'decay'"):
            loop_of(plus, allow_unreached="decay")
        with pytest.raises(zb.InputError, match="allow_unreached: unknown parameter 'rat'"):
            loop_of(plus, allow_unreached=["rat"])({"a": 1.0, "rate": 1.0})

    @pytest.mark.parametrize("estimator", [zb.FG2U(2), zb.FG2U(1), zb.ReverseUnroll()])
    def test_a_step_may_count_its_calls(self, estimator):
        def init(phi):
            return {"w": torch.zeros(2, dtype=torch.float64), "count": torch.tensor(0)}

        def step(theta, phi, t, batch):
            assert int(theta["count"]) == t
            return {"w": theta["w"] + phi["a"], "count": theta["count"] + 1}

        np.testing.assert_allclose(
            hypergradient_of(loop_of(step, init), estimator, a=1.0)["a"], 36.0
        )
        with pytest.raises(zb.InnerSolverError, match="does not depend on 'unused'"):
            hypergradient_of(loop_of(step, init), estimator, a=1.0, unused=2.0)

    @pytest.mark.parametrize("estimator", [zb.FG2U(1), zb.ReverseUnroll()])
    def test_a_wrong_step_is_the_same_one_in_both_modes(self, estimator):
        def step(w, phi, t, batch):
            moved = w["w"] + phi["a"]
            return {"w": moved if t < 3 else moved[:1]}

        with pytest.raises(zb.InnerSolverError, match="step 3 changed 'w'"):
            hypergradient_of(loop_of(step, num_steps=6), estimator, a=1.0)

    def test_a_parameter_used_by_one_step_in_the_middle_is_reached(self):
        def step(w, phi, t, batch):
            return {"w": w["w"] + phi["a"] + (phi["b"] if t == 1 else 0.0)}

        found = hypergradient_of(loop_of(step, num_steps=4), a=1.0, b=2.0)
        np.testing.assert_allclose(found["b"], 24.0)

    def test_truncation_says_what_it_cannot_see(self):
        def init(phi):
            return {"w": phi["start"] * torch.ones(2, dtype=torch.float64)}

        said = r"last 1 steps\) does not depend on 'start'.*take FG2U or ReverseUnroll"
        with pytest.raises(zb.InnerSolverError, match=said):
            hypergradient_of(loop_of(plus, init), zb.TruncatedUnroll(1), a=1.0, start=1.0)

    def test_a_run_ends_at_the_first_solve_that_is_a_mistake(self):
        loop = loop_of(plus)
        space = zb.Space(a=zb.Real(-1, 1), unused=zb.Real(-1, 1))
        problem = zb.Problem(space, loop, loop.outer(lambda w, phi: w["w"].sum()))
        methods = [(zb.GradientMethod(zb.ReverseUnroll()), 40), (zb.TrustRegion(), None)]
        with pytest.raises(zb.InnerSolverError, match=r"none of 2 solves .*not depend on 'unused'"):
            zb.minimize(problem, zb.TwoPhase(methods), max_solves=100)

    def test_an_operation_without_forward_mode_is_named(self):
        query = torch.randn(1, 1, 2, 8)

        def step(w, phi, t, batch):
            scaled = query * phi["a"].float()
            attended = torch.nn.functional.scaled_dot_product_attention(scaled, query, query)
            return {"w": w["w"] + attended.double().sum()}

        with pytest.raises(zb.InnerSolverError, match=r"step 0 uses .*attention.*eager.*FG2UZO"):
            hypergradient_of(loop_of(step), a=1.0)
        assert np.isfinite(hypergradient_of(loop_of(step), zb.FG2UZO(1), a=1.0)["a"])

    def test_a_parameter_read_as_a_python_number_is_named(self):
        def step(w, phi, t, batch):
            return {"w": w["w"] + phi["a"] * float(phi["b"].item())}

        with pytest.raises(zb.InnerSolverError, match="does not depend on 'b'"):
            hypergradient_of(loop_of(step), a=1.0, b=1.0)

    def test_a_step_may_branch_on_values(self):
        def step(w, phi, t, batch):
            return {"w": w["w"] + phi["a"] * (2.0 if phi["a"] > 0 else 1.0)}

        np.testing.assert_allclose(hypergradient_of(loop_of(step), a=1.0)["a"], 2 * 2 * 36.0)

    @pytest.mark.parametrize("estimator", [zb.FG2U(1), zb.FG2UZO(1), zb.ReverseUnroll()])
    def test_nan_in_the_loop_says_at_which_step(self, estimator):
        def step(w, phi, t, batch):
            return {"w": w["w"] + torch.sqrt(phi["a"] - t)}

        with pytest.raises(zb.InnerSolverError, match="not finite: it began at step 2 of 5 steps"):
            hypergradient_of(loop_of(step, num_steps=5), estimator, a=1.5)

    def test_an_unstable_derivative_is_said(self):
        def step(w, phi, t, batch):
            return {"w": torch.sqrt(w["w"] * phi["a"])}  # at zero its slope is infinite

        with pytest.raises(zb.InnerSolverError, match="its derivative is not"):
            hypergradient_of(loop_of(step), a=1.0)

    def test_a_nan_solve_is_an_invalid_evaluation_and_the_run_goes_on(self):
        def step(w, phi, t, batch):
            return {"w": w["w"] + torch.sqrt(phi["a"])}

        loop = loop_of(step, num_steps=2)
        problem = zb.Problem(
            zb.Space(a=zb.Real(-1, 2)), loop, loop.outer(lambda w, phi: (w["w"] ** 2).sum())
        )
        method = zb.GradientMethod(zb.FG2U(1), optimizer=torch.optim.SGD, lr=0.2)
        result = zb.minimize(problem, method, initial={"a": 0.3}, max_solves=60)
        assert result.failures.get("invalid", 0) > 0
        assert result.phi["a"] >= 0.0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((None, plus, 3), "init must be callable"),
            ((plus, 4, 3), "step must be callable, got 4"),
            ((plus, plus, 0), "num_steps must be a whole number >= 1, got 0"),
            ((plus, plus, True), "num_steps must be a whole number >= 1, got True"),
            ((plus, plus, 2.0), "num_steps must be a whole number >= 1, got 2.0"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(zb.InputError, match=message):
            TorchUnroll(*arguments)

    def test_a_numpy_number_of_steps(self):
        assert repr(loop_of(plus, num_steps=np.int64(3))).endswith("num_steps=3)")

    def test_tangents_of_a_wrong_shape(self):
        with pytest.raises(zb.InputError, match=r"tangent 'a' has shape \(1, 2\)"):
            loop_of(plus).jvp({"a": 1.0}, {"a": np.ones((1, 2))})
