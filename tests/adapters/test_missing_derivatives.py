"""What a loop does that has no derivative is named."""

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import TorchUnroll

EVERY = [zb.FG2U(4), zb.FG2U(4, chunk=1), zb.ReverseUnroll(), zb.Neumann(2), zb.FG2UZO(4)]


class Plain(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(context, slope):
        return slope * context.saved_tensors[0].cos()


class OnlyBackward(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(context, inputs, output):
        context.save_for_backward(inputs[0])

    @staticmethod
    def backward(context, slope):
        return slope * context.saved_tensors[0].cos()


def attention(w):
    query = w.reshape(1, 1, 2, 2)
    return torch.nn.functional.scaled_dot_product_attention(query, query, query)


def bag(w):
    return torch.nn.functional.embedding_bag(torch.tensor([[0, 1, 1]]), w.reshape(2, 2))


def huber(w):
    return torch.nn.functional.huber_loss(w, torch.zeros_like(w), delta=0.1)


def rrelu(w):
    return torch.nn.functional.rrelu(w - 0.5, training=True)


def descent(function):
    """One step on the squares of a function, its gradient taken with torch.func."""

    def step(w, phi, t, batch):
        return w - 0.1 * torch.func.grad(lambda w: function(w * phi["a"]).pow(2).sum())(w)

    return step


def hypergradient_of(step, estimator):
    def init(phi):
        return torch.linspace(0.3, 0.9, 4, dtype=torch.float64)

    loop = TorchUnroll(init, step, 3, dtype=torch.float64)
    space = zb.Space(a=zb.Real(0.1, 3.0, shape=(4,)))
    problem = zb.Problem(space, loop, loop.outer(lambda w, phi: (w**2).sum()))
    return zb.hypergradient(problem, {"a": np.full(4, 0.8)}, estimator=estimator)["a"]


class TestMissingDerivatives:
    @pytest.mark.parametrize("estimator", EVERY[:4])
    @pytest.mark.parametrize(
        ("function", "named", "unsaid"),
        [
            (attention, r"attention_for_cpu\S*, .*sdpa_kernel\(SDPBackend.MATH\)", "write the op"),
            (bag, r"_embedding_bag\S*, which has no.*write the operation out", "attn_imp"),
        ],
    )
    def test_a_gradient_that_has_none_of_its_own(self, estimator, function, named, unsaid):
        with pytest.raises(zb.InnerSolverError, match=rf"(step 0|a step) uses \S*{named}") as error:
            hypergradient_of(descent(function), estimator)
        assert unsaid not in str(error.value)
        assert "FG2UZO" in str(error.value)

    @pytest.mark.parametrize("function", [attention, bag])
    def test_finite_differences_do_without_it(self, function):
        estimator = zb.FG2UZO(4, directions="coordinate", difference="central")
        found = hypergradient_of(descent(function), estimator)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            exact = hypergradient_of(descent(written_out(function)), zb.ReverseUnroll())
        np.testing.assert_allclose(found, exact, rtol=1e-4)

    def test_forward_mode_alone_and_no_word_of_transformers(self):
        with pytest.raises(zb.InnerSolverError, match=r"uses huber\S+, .*ReverseUnroll") as error:
            hypergradient_of(descent(huber), zb.FG2U(4))
        assert "attn_implementation" not in str(error.value)
        assert np.isfinite(hypergradient_of(descent(huber), zb.ReverseUnroll())).all()

    def test_an_operation_that_takes_one_direction_at_a_time(self):
        with pytest.raises(zb.InnerSolverError, match=r"uses rrelu_with_noise,.*chunk=1"):
            hypergradient_of(descent(rrelu), zb.FG2U(4))
        one = hypergradient_of(descent(rrelu), zb.FG2U(4, chunk=1))
        exact = hypergradient_of(descent(rrelu), zb.ReverseUnroll())
        np.testing.assert_allclose(one, exact, rtol=1e-10)

    @pytest.mark.parametrize("chunk", [1, 4])
    def test_a_function_without_forward_rule(self, chunk):
        def step(w, phi, t, batch):
            return OnlyBackward.apply(w * phi["a"])

        said = "step 0 uses a torch.autograd.Function.* without a forward-mode.*jvp and generate"
        with pytest.raises(zb.InnerSolverError, match=said):
            hypergradient_of(step, zb.FG2U(4, chunk=chunk))
        assert np.isfinite(hypergradient_of(step, zb.ReverseUnroll())).all()

    @pytest.mark.parametrize("estimator", EVERY)
    def test_a_function_that_torch_func_cannot_enter(self, estimator):
        said = "step 0 uses a torch.autograd.Function without setup_context"
        with pytest.raises(zb.InnerSolverError, match=said):
            hypergradient_of(descent(Plain.apply), estimator)

    @pytest.mark.parametrize("estimator", EVERY)
    def test_gradients_by_torch_autograd_are_refused_with_the_way_out(self, estimator):
        def step(w, phi, t, batch):
            own = w.detach().requires_grad_()
            return w - 0.1 * torch.autograd.grad(((own * phi["a"]) ** 2).sum(), own)[0]

        with pytest.raises(zb.InnerSolverError, match=r"step 0 takes a gradient.*torch.func.grad"):
            hypergradient_of(step, estimator)

    def test_also_where_only_forward_mode_minds(self):
        def step(w, phi, t, batch):
            with torch.enable_grad():
                own = w.clone().requires_grad_()
                total = ((own * phi["a"]) ** 2).sum()
                return w - 0.1 * torch.autograd.grad(total, own, create_graph=True)[0]

        with pytest.raises(zb.InnerSolverError, match=r"step 0 takes a gradient.*torch.func.grad"):
            hypergradient_of(step, zb.FG2U(4))

    @pytest.mark.parametrize("chunk", [1, 4])
    def test_in_whichever_step_it_is(self, chunk):
        def step(w, phi, t, batch):
            if t < 2:
                return w * phi["a"]
            with torch.enable_grad():
                own = w.clone().requires_grad_()
                return w - torch.autograd.grad(((own * phi["a"]) ** 2).sum(), own)[0]

        with pytest.raises(zb.InnerSolverError, match=r"step 2 takes a gradient.*torch.func.grad"):
            hypergradient_of(step, zb.FG2U(4, chunk=chunk))

    def test_other_errors_of_a_step_stay_as_they_are(self):
        def step(w, phi, t, batch):
            return w @ torch.zeros(7)

        with pytest.raises(zb.InnerSolverError, match="RuntimeError"):
            hypergradient_of(step, zb.FG2U(4))


def written_out(function):
    return function if function is attention else lambda w: w.reshape(2, 2)[[0, 1, 1]].mean(dim=0)
