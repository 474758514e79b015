"""BlackBox: a solver inside torch programs."""

import numpy as np
import pytest
import torch
from unrolled import quadratic_loop

import zo_bilevel as zb


def wave(phi):
    return np.sin(phi[:2]) * phi[2]


def torch_wave(phi):
    return torch.sin(phi[..., :2]) * phi[..., 2:]


def exact_op(**options):
    return zb.BlackBox(wave, 3, zb.FG2UZO(3, difference="central"), **options)


class Counting:
    """matrix solver that counts its calls and remembers seeds."""

    def __init__(self):
        self.seeds = []

    def __call__(self, phi, *, seed):
        self.seeds.append(seed)
        return wave(phi)


def gradient_of(function, phi):
    phi = phi.clone().requires_grad_()
    (function(phi) ** 3).sum().backward()
    return phi.grad


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 2, 3)])
@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_value_and_gradient_are_those_of_the_solver(shape, dtype, accuracy):
    phi = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phi = phi.to(dtype)
    y = exact_op()(phi)
    assert y.dtype == dtype
    torch.testing.assert_close(y, torch_wave(phi))
    found = gradient_of(exact_op(), phi)
    assert found.dtype == dtype
    torch.testing.assert_close(found, gradient_of(torch_wave, phi), rtol=accuracy, atol=accuracy)


def test_autograd_grad_works():
    phi = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(exact_op()(phi).sum(), phi)
    (exact,) = torch.autograd.grad(torch_wave(phi).sum(), phi)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-8)


@pytest.mark.statistical
def test_few_directions_are_unbiased_and_a_wrong_scale_is_seen():
    phi = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    exact = gradient_of(torch_wave, phi).numpy()
    op = zb.BlackBox(wave, 3, zb.FG2UZO(1, directions="rademacher"), scale=2.0)
    draws = np.array([gradient_of(op, phi).numpy() for _ in range(300)])
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert np.max(np.abs(draws.mean(axis=0) - exact) / error) < 4.0
    assert np.max(np.abs(2.0 * draws.mean(axis=0) - exact) / (2.0 * error)) > 4.0


def test_double_use_in_one_graph_adds_up():
    def twice(operation):
        return lambda phi: operation(phi) + operation(2.0 * phi)

    phi = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    found, exact = gradient_of(twice(exact_op()), phi), gradient_of(twice(torch_wave), phi)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-6)


def test_backward_twice_through_a_kept_graph():
    phi = torch.ones(3, dtype=torch.float64, requires_grad=True)
    loss = exact_op()(phi).sum()
    first = torch.autograd.grad(loss, phi, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, phi)[0])


def test_without_gradients_it_is_one_solve_a_row():
    solver = Counting()
    op = zb.BlackBox(solver, 3, zb.FG2UZO(3))
    with torch.no_grad():
        op(torch.ones(3, requires_grad=True))
    assert len(solver.seeds) == 1
    op(torch.ones(2, 3))
    assert len(solver.seeds) == 3
    op(torch.ones(2, 3, requires_grad=True)).sum().backward()
    assert len(solver.seeds) == 3 + 2 * 4  # nothing is solved by backward


def test_a_sketch_shares_one_seed_and_calls_differ():
    solver = Counting()
    op = zb.BlackBox(solver, 3, zb.FG2UZO(2))
    for _ in range(2):
        op(torch.ones(3, requires_grad=True))
    first, second = set(solver.seeds[:3]), set(solver.seeds[3:])
    assert len(first) == len(second) == 1
    assert first != second


def test_a_resumed_layer_goes_on_with_the_same_directions():
    phi = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

    def make():
        return zb.BlackBox(wave, 3, zb.FG2UZO(1), seed=4)

    whole = make()
    gradients = [gradient_of(whole, phi) for _ in range(3)]
    resumed = make()
    gradient_of(resumed, phi)
    copied = make()
    copied.load_state_dict(resumed.state_dict())
    assert torch.equal(gradient_of(copied, phi), gradients[1])
    assert torch.equal(gradient_of(copied, phi), gradients[2])


def test_workers_do_not_change_the_numbers():
    phi = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    serial = gradient_of(exact_op(), phi)
    with zb.Joblib(2) as dispatcher:
        assert torch.equal(gradient_of(exact_op(dispatcher=dispatcher), phi), serial)


def test_it_trains_between_two_linear_layers():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(2, 3), zb.BlackBox(wave, 3, zb.FG2UZO(3)), torch.nn.Linear(2, 1)
    )
    inputs = torch.randn(16, 2)
    targets = inputs[:, :1] * inputs[:, 1:]
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = ((net(inputs) - targets) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_a_dict_of_parts_comes_back_as_a_dict():
    op = zb.BlackBox(lambda phi: {"a": phi.sum(), "b": np.outer(phi, phi)}, 2, zb.FG2UZO(2))
    phi = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    y = op(phi)
    assert y["a"].shape == (2,)
    assert y["b"].shape == (2, 2, 2)
    (y["a"].sum() + y["b"].sum()).backward()
    exact = 1 + 2 * phi.detach().sum(dim=1, keepdim=True).expand(2, 2)
    torch.testing.assert_close(phi.grad, exact, rtol=1e-3, atol=1e-3)


def test_exact_derivatives_of_a_differentiable_solver():
    loop, matrix, _ = quadratic_loop(200)
    op = zb.BlackBox(loop, 3, zb.FG2U(3), name="p", scale=0.5)
    phi = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    op(phi)[0].backward()
    np.testing.assert_allclose(phi.grad.numpy(), matrix[0], rtol=1e-9)


def test_a_differentiable_solver_is_differentiated_exactly_by_default():
    loop, _, _ = quadratic_loop(5)
    assert isinstance(zb.BlackBox(loop, 3, name="p").estimator, zb.FG2U)
    assert isinstance(zb.BlackBox(wave, 3).estimator, zb.FG2UZO)


def test_differences_that_are_mostly_rounding_are_called_that():
    op = zb.BlackBox(lambda phi: np.float32(100 + np.sum(phi**2)), 3)
    with pytest.warns(RuntimeWarning, match="float32 and changes by .* mostly rounding"):
        op(torch.ones(3, requires_grad=True))


def test_second_derivatives_are_refused():
    phi = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(exact_op()(phi).sum(), phi, create_graph=True)
    with pytest.raises(zb.UnsupportedProblemError, match="BlackBox has first derivatives only"):
        first.sum().backward()


def test_create_graph_elsewhere_is_fine():
    phi = torch.ones(3, dtype=torch.float64, requires_grad=True)
    other = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    loss = exact_op()(phi.detach()).sum() * other**2
    (first,) = torch.autograd.grad(loss, other, create_graph=True)
    first.backward()
    assert torch.isfinite(other.grad)


class TestFailures:
    def test_a_failed_base_solve_names_its_row(self):
        op = zb.BlackBox(lambda phi: 1 / 0 if phi[0] > 1 else phi, 1)
        with pytest.raises(zb.InnerSolverError, match="solve at row 1 failed: ZeroDivisionError"):
            op(torch.tensor([[0.0], [2.0]]))

    def test_a_failed_direction_drops_out(self):
        def fragile(phi):
            return phi if phi[0] <= 0 else np.full(2, np.nan)

        op = zb.BlackBox(fragile, 2, zb.FG2UZO(8, directions="rademacher"))
        phi = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        op(phi).sum().backward()
        assert torch.isfinite(phi.grad).all()

    def test_all_directions_failed(self):
        op = zb.BlackBox(lambda phi: phi if not phi.any() else 1 / 0, 2, zb.FG2UZO(2))
        with pytest.raises(zb.InnerSolverError, match="all directions at row 0 failed"):
            op(torch.zeros(2, requires_grad=True))

    def test_a_changing_shape_is_refused(self):
        op = zb.BlackBox(lambda phi: np.zeros(2 if phi[0] > 0 else 3), 1)
        with pytest.raises(zb.InnerSolverError, match=r"returned shape \(3,\), but shape \(2,\)"):
            op(torch.tensor([[1.0], [-1.0]]))

    @pytest.mark.parametrize(
        ("phi", "message"),
        [
            (torch.ones(4), r"shape \(\.\.\., 3\), got torch.float32 of shape \(4,\)"),
            (torch.ones(3, dtype=torch.int64), "got torch.int64"),
            (torch.tensor(1.0), r"of shape \(\)"),
        ],
    )
    def test_wrong_input(self, phi, message):
        with pytest.raises(zb.InputError, match=message):
            exact_op()(phi)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((3, 3), "inner must be callable"),
            ((wave, 0), "num_parameters must be a whole number >= 1"),
            ((wave, 3, zb.ReverseUnroll()), "cannot be used in a layer"),
            ((wave, 3, zb.FG2U(2)), "FG2U needs a differentiable inner solver"),
            ((wave, 3, 7), "estimator must make sketches, got 7"),
        ],
    )
    def test_wrong_arguments(self, arguments, message):
        with pytest.raises(zb.ZoBilevelError, match=message):
            zb.BlackBox(*arguments)
