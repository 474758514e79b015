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


def gradient_of(function, phi, power=3):
    phi = phi.clone().requires_grad_()
    (function(phi) ** power).sum().backward()
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


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_differentiable_solver_inside_forward_mode(chunk):
    """Torch has no second level of dual numbers, and turns the first one off in a layer."""
    loop, matrix, _ = quadratic_loop(200)
    op = zb.BlackBox(loop, 3, zb.FG2U(3, chunk=chunk), name="p")
    phi = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        y = op(torch.autograd.forward_ad.make_dual(phi, torch.ones_like(phi)))
        found = torch.autograd.forward_ad.unpack_dual(y).tangent
    np.testing.assert_allclose(found.numpy(), matrix.sum(axis=1), rtol=1e-9)


def test_a_differentiable_solver_is_differentiated_exactly_by_default():
    loop, _, _ = quadratic_loop(5)
    assert isinstance(zb.BlackBox(loop, 3, name="p").estimator, zb.FG2U)
    assert isinstance(zb.BlackBox(wave, 3).estimator, zb.FG2UZO)


def test_differences_that_are_much_rounding_are_called_that():
    op = zb.BlackBox(lambda phi: np.float32(100 + np.sum(phi**2)), 3, zb.FG2UZO(radius=1e-5))
    with pytest.warns(RuntimeWarning, match="float32 and changes by .* off by 27% or more"):
        op(torch.ones(3, requires_grad=True))


@pytest.mark.parametrize(("difference", "accuracy"), [("forward", 5e-3), ("central", 2e-3)])
def test_an_automatic_radius_fits_the_precision_of_the_solver(difference, accuracy):
    op = zb.BlackBox(lambda phi: np.float32(phi) ** 2, 3, zb.FG2UZO(3, difference=difference))
    phi = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    op(phi).sum().backward()
    torch.testing.assert_close(phi.grad, 2 * phi.detach(), rtol=accuracy, atol=accuracy)
    order = {"forward": 2, "central": 3}[difference]
    assert op.estimator.step() == pytest.approx(np.finfo(np.float32).eps ** (1 / order))
    assert exact_op().estimator.radius == "auto"


class TestTorchFunc:
    """Every way in which torch asks for a derivative gives the solver's own."""

    phi = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    batch = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def close(self, found, exact):
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-7)

    def test_grad_and_jacobians(self):
        op = exact_op()
        for transform in (torch.func.jacrev, torch.func.jacfwd):
            self.close(transform(op)(self.phi), transform(torch_wave)(self.phi))
        gradient = torch.func.grad(lambda phi: (op(phi) ** 3).sum())
        self.close(gradient(self.phi), gradient_of(torch_wave, self.phi))

    def test_batched_gradients(self):
        exact, jacobian = (
            torch.func.jacrev(torch_wave)(self.phi),
            torch.autograd.functional.jacobian,
        )
        for strategy in ("reverse-mode", "forward-mode"):
            found = jacobian(exact_op(), self.phi, vectorize=True, strategy=strategy)
            self.close(found, exact)
        rows = jacobian(exact_op(), self.batch, vectorize=True)
        self.close(rows, jacobian(torch_wave, self.batch))

    def test_jvp_in_both_styles(self):
        along = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        exact = torch.func.jvp(torch_wave, (self.phi,), (along,))
        for left, right in zip(
            torch.func.jvp(exact_op(), (self.phi,), (along,)), exact, strict=True
        ):
            self.close(left, right)
        forward_ad = torch.autograd.forward_ad
        for phi in (self.phi, self.phi.clone().requires_grad_()):
            with forward_ad.dual_level():
                y = exact_op()(forward_ad.make_dual(phi, along))
                self.close(forward_ad.unpack_dual(y).tangent, exact[1])

    def test_vmap_is_one_round_of_solves(self):
        solver = Counting()
        op = zb.BlackBox(solver, 3, zb.FG2UZO(3))
        self.close(torch.func.vmap(op)(self.batch), torch_wave(self.batch))
        assert len(solver.seeds) == 4
        self.close(torch.func.vmap(op, in_dims=1)(self.batch.T), torch_wave(self.batch))

    def test_gradients_by_row(self):
        def per_row(operation):
            return torch.func.vmap(torch.func.grad(lambda phi: (operation(phi) ** 3).sum()))

        exact = torch.stack([gradient_of(torch_wave, phi) for phi in self.batch])
        self.close(per_row(exact_op())(self.batch), exact)
        directions = torch.flip(self.batch, (0,))
        pushed = torch.func.vmap(
            lambda phi, along: torch.func.jvp(exact_op(), (phi,), (along,))[1]
        )(self.batch, directions)
        self.close(pushed, torch.func.jvp(torch_wave, (self.batch,), (directions,))[1])

    def test_gradcheck_in_both_modes(self):
        phi = self.phi.clone().requires_grad_()
        options = {"atol": 1e-4, "rtol": 1e-4, "nondet_tol": 1e-6, "check_forward_ad": True}
        assert torch.autograd.gradcheck(exact_op(), (phi,), **options)

    def test_second_derivatives_are_refused_in_words(self):
        def loss(phi):
            return exact_op()(phi).sum()

        for outer, inner in (("grad", "grad"), ("jacfwd", "grad")):
            second = getattr(torch.func, outer)(
                lambda phi, inner=inner: getattr(torch.func, inner)(loss)(phi).sum()
            )
            with pytest.raises(zb.UnsupportedProblemError, match="first derivatives only"):
                second(self.phi)

    @pytest.mark.statistical
    def test_a_forward_tangent_of_few_directions_is_unbiased(self):
        along = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        op = zb.BlackBox(wave, 3, zb.FG2UZO(1, directions="rademacher"), scale=2.0)
        draws = np.array([torch.func.jvp(op, (self.phi,), (along,))[1].numpy() for _ in range(300)])
        exact = torch.func.jvp(torch_wave, (self.phi,), (along,))[1].numpy()
        error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
        assert np.max(np.abs(draws.mean(axis=0) - exact) / error) < 4.0
        assert np.max(np.abs(0.5 * draws.mean(axis=0) - exact) / (0.5 * error)) > 4.0


def noisy_wave(phi, *, seed):
    return wave(phi) + np.random.default_rng(seed).normal(size=2)


class TestRecomputation:
    @pytest.mark.parametrize("use_reentrant", [False, True])
    def test_activation_checkpointing_draws_the_same_again(self, use_reentrant):
        from torch.utils.checkpoint import checkpoint

        phi = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

        def gradient(through):
            op = zb.BlackBox(noisy_wave, 3, zb.FG2UZO(1), seed=3)
            seen, gradients = [], []

            def layer(x):
                seen.append(op(x).detach().clone())
                return op(x) ** 2

            for _ in range(2):
                leaf = phi.clone().requires_grad_()
                through(layer, leaf).sum().backward()
                gradients.append(leaf.grad)
            return gradients, int(op.num_calls)

        def recomputed(layer, x):
            return checkpoint(layer, x, use_reentrant=use_reentrant)

        plain, calls = gradient(lambda layer, x: layer(x))
        again, calls_again = gradient(recomputed)
        assert calls == calls_again == 4
        for left, right in zip(plain, again, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-12, atol=0)
        assert not torch.equal(plain[0], plain[1])

    def test_steps_of_an_unrolled_loop_draw_the_same_in_every_run(self):
        op = zb.BlackBox(noisy_wave, 3, zb.FG2UZO(3, difference="central", radius=1e-4))

        def step(theta, phi, t, batch):
            return torch.tanh(0.5 * theta + 0.1 * op(theta).sum(-1, keepdim=True) + phi["p"])

        loop = zb_unroll(lambda phi: torch.zeros(3, dtype=torch.float64), step, 4)
        space = zb.Space(p=zb.Real(-1, 1, shape=(3,)))
        problem = zb.Problem(space, loop, loop.outer(lambda theta, phi: (theta**2).sum()))
        phi = {"p": [0.1, -0.2, 0.3]}
        forward = zb.hypergradient(problem, phi, estimator=zb.FG2U(3, chunk=2))
        for estimator in (zb.ReverseUnroll(), zb.ReverseUnroll(memory="sqrt")):
            reverse = zb.hypergradient(problem, phi, estimator=estimator)
            assert reverse.loss == pytest.approx(forward.loss, rel=1e-12)
            np.testing.assert_allclose(reverse["p"], forward["p"], rtol=1e-6)
        differenced = zb.hypergradient(problem, phi, estimator=zb.FG2UZO(3, difference="central"))
        np.testing.assert_allclose(differenced["p"], forward["p"], rtol=1e-4)
        assert zb.hypergradient(problem, phi, seed=1).loss != forward.loss


def zb_unroll(init, step, num_steps):
    from zo_bilevel.adapters import TorchUnroll

    return TorchUnroll(init, step, num_steps, dtype=torch.float64)


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

    @pytest.mark.parametrize("on_failure", ["raise", "zero"])
    @pytest.mark.parametrize("family", ["coordinate", "orthogonal"])
    def test_a_probe_that_fails_is_solved_the_other_way(self, family, on_failure):
        def fragile(phi):
            return wave(phi) if phi[0] <= 1 else 1 / 0

        op = zb.BlackBox(fragile, 3, zb.FG2UZO(3, directions=family), on_failure=on_failure)
        phi = torch.tensor([[1.0, 0.2, 0.1], [0.3, 0.2, 0.1]], dtype=torch.float64)
        phi.requires_grad_()
        op(phi).sum().backward()
        for k in range(2):
            exact = gradient_of(torch_wave, phi.detach()[k], power=1)
            torch.testing.assert_close(phi.grad[k], exact, rtol=1e-3, atol=1e-3)
        assert op.failed_rows == []

    @pytest.mark.parametrize("difference", ["forward", "central"])
    def test_a_direction_that_fails_both_ways_costs_its_row(self, difference):
        def fragile(phi):
            return wave(phi) if phi[0] in (1.0, 0.3) else 1 / 0

        estimator = zb.FG2UZO(3, directions="coordinate", difference=difference)
        phi = torch.tensor([[1.0, 0.2, 0.1]], dtype=torch.float64, requires_grad=True)
        with pytest.raises(zb.InnerSolverError, match="1 of 3 directions at row 0 failed, and so"):
            zb.BlackBox(fragile, 3, estimator)(phi)
        op = zb.BlackBox(fragile, 3, estimator, on_failure="zero")
        y = op(phi)
        y.sum().backward()
        assert op.failed_rows == [0]
        assert int(op.num_failed) == 1
        assert not y.any()
        assert not phi.grad.any()

    def test_a_failed_row_can_cost_its_row_alone(self):
        op = zb.BlackBox(
            lambda phi: wave(phi) if phi[0] <= 1 else 1 / 0, 3, zb.FG2UZO(3), on_failure="zero"
        )
        phi = torch.tensor([[2.0, 1, 1], [0.5, 1, 1], [3.0, 1, 1]], dtype=torch.float64)
        phi.requires_grad_()
        y = op(phi)
        (y**3).sum().backward()
        assert op.failed_rows == [0, 2]
        assert int(op.num_failed) == 2
        assert not y[[0, 2]].any()
        assert not phi.grad[[0, 2]].any()
        exact = gradient_of(torch_wave, phi.detach()[1])
        torch.testing.assert_close(phi.grad[1], exact, rtol=1e-3, atol=1e-4)
        op(torch.zeros(1, 3))
        assert op.failed_rows == []
        with pytest.raises(zb.InputError, match="on_failure must be 'raise' or 'zero', got 'nan'"):
            zb.BlackBox(wave, 3, on_failure="nan")

    def test_an_empty_batch_has_the_shape_of_theta(self):
        for op in (exact_op(), exact_op(on_failure="zero")):
            phi = torch.zeros(2, 0, 3, requires_grad=True)
            y = op(phi)
            assert y.shape == (2, 0, 2)
            y.sum().backward()
            assert phi.grad.shape == phi.shape

    def test_all_directions_failed(self):
        op = zb.BlackBox(lambda phi: phi if not phi.any() else 1 / 0, 2, zb.FG2UZO(2))
        with pytest.raises(zb.InnerSolverError, match="2 of 2 directions at row 0 failed"):
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
