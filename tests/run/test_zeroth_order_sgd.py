"""Fine-tuning by forward passes: unbiased steps, replayed perturbations, resumed training."""

import copy

import numpy as np
import pytest
import torch

import zo_bilevel as zb

KINDS = ["low_rank", "rademacher", "gaussian"]


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for shape in ((4, 3), (5,), (2, 3, 2))
    ]


def quadratic(parts):
    """matrix loss whose gradient is known: `sum_i c_i w_i + w_i^2 / 2`."""
    return sum(
        ((k + 1.0) * w + 0.5 * w**2).sum() * (1.0 if w.ndim != 1 else 0.5)
        for k, w in enumerate(parts)
    )


def exact_gradient(parts):
    leaves = [w.detach().clone().requires_grad_() for w in parts]
    return [g.numpy() for g in torch.autograd.grad(quadratic(leaves), leaves)]


@pytest.mark.statistical
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3])
def test_the_mean_step_is_that_of_gradient_descent(kind, count):
    exact = np.concatenate([g.ravel() for g in exact_gradient(weights())])
    parts, moved, lr = weights(), [], 1e-9  # so small that the gradient stays
    optimizer = zb.ZerothOrderSGD(
        parts, lr=lr, num_directions=count, perturbation=kind, refresh=1, radius=1e-2
    )
    flat = torch.nn.utils.parameters_to_vector
    for _ in range(3000 // count):
        before = flat(parts).detach()
        optimizer.step(lambda: quadratic(parts))
        moved.append(((before - flat(parts)) / lr).detach().numpy())
    moved = np.array(moved)
    error = moved.std(axis=0, ddof=1) / np.sqrt(len(moved))
    assert np.max(np.abs(moved.mean(axis=0) - exact) / error) < 4.5
    along = moved @ exact / (exact @ exact)  # all components in one number: more power
    error = along.std(ddof=1) / np.sqrt(len(along))
    assert abs(along.mean() - 1.0) < 4.0 * error
    for factor in (0.5, np.sqrt(0.5), np.sqrt(2.0)):
        assert abs(factor * along.mean() - 1.0) > 4.0 * factor * error


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_put_back_and_two_passes_a_direction_are_made(kind):
    parts, seen = weights(), []

    def flat_loss():
        seen.append(torch.cat([w.detach().ravel() for w in parts]))
        return torch.tensor(3.0)

    optimizer = zb.ZerothOrderSGD(parts, lr=1.0, num_directions=3, perturbation=kind)
    assert optimizer.step(flat_loss) == 3.0
    assert len(seen) == 6
    for w, before in zip(parts, weights(), strict=True):
        torch.testing.assert_close(w, before, rtol=0, atol=1e-14)
    middle = 0.5 * (seen[0] + seen[1])
    torch.testing.assert_close(middle, torch.cat([w.detach().ravel() for w in parts]))
    assert not torch.equal(seen[0] - seen[1], seen[2] - seen[3])


@pytest.mark.parametrize("passes", range(4))
def test_a_loss_that_raises_or_is_not_finite_leaves_the_weights(passes):
    for bad in (lambda: 1 / 0, lambda: float("nan"), lambda: torch.tensor(float("inf"))):
        parts, calls = weights(), []
        optimizer = zb.ZerothOrderSGD(parts, lr=0.1, num_directions=2)

        def loss(parts=parts, calls=calls, bad=bad):
            calls.append(1)
            return bad() if len(calls) == passes + 1 else quadratic(parts)

        with pytest.raises((ZeroDivisionError, zb.InputError), match=r"zero|finite losses"):
            optimizer.step(loss)
        for w, before in zip(parts, weights(), strict=True):
            torch.testing.assert_close(w, before, rtol=0, atol=1e-14)


def test_a_low_rank_perturbation_has_that_rank():
    w, seen = torch.nn.Parameter(torch.zeros(20, 30)), []

    def loss():
        seen.append(w.detach().clone())
        return 0.0

    zb.ZerothOrderSGD([w], rank=2, radius=1.0).step(loss)
    assert torch.linalg.matrix_rank(seen[0]) == 2
    assert float(seen[0].square().mean()) == pytest.approx(1.0, abs=0.4)


def test_the_right_factor_stays_for_as_many_steps_as_it_is_told():
    w, rows = torch.nn.Parameter(torch.zeros(6, 8, dtype=torch.float64)), []

    def loss():
        rows.append(w.detach().clone())
        return 0.0

    optimizer = zb.ZerothOrderSGD([w], rank=1, refresh=2)
    for _ in range(3):
        optimizer.step(loss)
    first, second, third = rows[0], rows[2], rows[4]
    assert torch.linalg.matrix_rank(torch.cat([first, second])) == 1
    assert torch.linalg.matrix_rank(torch.cat([second, third])) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training_goes_on_with_the_same_numbers(kind):
    options = {"lr": 0.01, "perturbation": kind, "refresh": 3}
    if kind == "low_rank":
        options["momentum"] = 0.9
    whole = weights()
    optimizer = zb.ZerothOrderSGD(whole, **options)
    for _ in range(4):
        optimizer.step(lambda: quadratic(whole))
    saved, state = weights(), copy.deepcopy(optimizer.state_dict())
    network_state = copy.deepcopy(whole)
    for _ in range(5):
        optimizer.step(lambda: quadratic(whole))
    again = zb.ZerothOrderSGD(saved, lr=9.0, rank=1, seed=3, radius=0.5, num_directions=2)
    again.step(lambda: 0.0)  # its own factors are not to be kept
    again.load_state_dict(state)
    for w, value in zip(saved, network_state, strict=True):
        w.data.copy_(value)
    for _ in range(5):
        again.step(lambda: quadratic(saved))
    for left, right in zip(whole, saved, strict=True):
        assert torch.equal(left, right)


def test_momentum_adds_up_what_was_seen():
    """With V fixed, steps of a linear loss are sums of `U`-steps with weights 1, 1 + beta, ..."""

    def run(momentum, steps):
        w = torch.nn.Parameter(torch.zeros(3, 4, dtype=torch.float64))
        slope = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
        optimizer = zb.ZerothOrderSGD([w], lr=1.0, momentum=momentum)
        path = [w.detach().clone()]
        for _ in range(steps):
            optimizer.step(lambda: (w * slope).sum())
            path.append(w.detach().clone())
        return path

    plain, heavy = run(0.0, 2), run(0.5, 2)
    torch.testing.assert_close(heavy[1], plain[1])
    torch.testing.assert_close(heavy[2] - heavy[1], plain[2] - plain[1] + 0.5 * plain[1])


def test_frozen_weights_stay():
    parts = weights()
    parts[0].requires_grad_(False)
    optimizer = zb.ZerothOrderSGD(parts, lr=0.1)
    optimizer.step(lambda: quadratic(parts))
    assert torch.equal(parts[0], weights()[0])
    assert not torch.equal(parts[1], weights()[1])


class Tied(torch.nn.Module):
    """A network with a weight used twice, a frozen one and dropout."""

    def __init__(self):
        super().__init__()
        self.names = torch.nn.Embedding(6, 5)
        self.body = torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.Dropout(0.5))
        self.head = torch.nn.Linear(5, 6)
        self.head.weight = self.names.weight
        self.head.bias.requires_grad_(False)

    def forward(self, tokens):
        return self.head(torch.tanh(self.body(self.names(tokens))))


def trained(kind, **together):
    torch.manual_seed(0)
    network = Tied().double()
    module = {"module": network} if together else {}
    optimizer = zb.ZerothOrderSGD(
        network.parameters(),
        lr=0.1,
        num_directions=5,
        perturbation=kind,
        momentum=0.9 if kind == "low_rank" else 0.0,
        refresh=2,
        **module,
        **together,
    )
    calls = []

    def loss():
        calls.append(1)
        return torch.nn.functional.cross_entropy(network(torch.arange(6)), torch.arange(6) % 3)

    losses = []
    for _ in range(4):
        losses.append(float(optimizer.step(loss)))
    return losses, torch.nn.utils.parameters_to_vector(network.parameters()), len(calls)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("chunk", "passes"), [(1, 5), (2, 3), (8, 1)])
def test_directions_in_one_pass_give_the_numbers_of_one_at_a_time(kind, chunk, passes):
    losses, weights, calls = trained(kind)
    assert calls == 4 * 10
    losses_together, weights_together, calls = trained(kind, chunk=chunk)
    assert calls == 4 * passes
    assert losses_together == pytest.approx(losses, rel=1e-12)
    torch.testing.assert_close(weights_together, weights, rtol=0, atol=1e-10)


def test_dropout_is_the_same_in_each_call_of_a_step_and_another_in_the_next():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Dropout(0.5))
    optimizer = zb.ZerothOrderSGD(network.parameters(), lr=1e-9, num_directions=2)
    masks = []

    def loss():
        out = network(torch.ones(4, 5))
        masks.append(out == 0)
        return out.square().mean()

    for _ in range(2):
        optimizer.step(loss)
    first, second = masks[:4], masks[4:]
    assert all(torch.equal(mask, first[0]) for mask in first)
    assert all(torch.equal(mask, second[0]) for mask in second)
    assert not torch.equal(first[0], second[0])


class Counted(torch.nn.Module):
    """Buffers of each kind: averages, counts, one that is set anew and one that stays."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("mask", torch.tensor([-torch.inf, 0.1]))

    def forward(self, x):
        values = self.head(self.norm(x))
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * values.mean()
        return values


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_buffers_of_a_module_move_once_a_step(chunk):
    torch.manual_seed(0)
    inputs = torch.randn(16, 4) + 2.0
    network = Counted()
    plain = copy.deepcopy(network)
    optimizer = zb.ZerothOrderSGD(
        network.parameters(), lr=1e-9, radius=1e-4, num_directions=3, module=network, chunk=chunk
    )
    for _ in range(2):
        optimizer.step(lambda: network(inputs).square().mean())
        plain(inputs)
    for (name, buffer), expected in zip(network.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, rtol=1e-3, atol=1e-4, msg=name)
    assert torch.equal(network.mask, plain.mask)
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with pytest.raises(zb.InputError, match="finite"):
        optimizer.step(lambda: network(inputs).sum() * float("nan"))
    network.eval().requires_grad_(False)
    with pytest.raises(zb.InputError, match="requires gradients, none does"):
        optimizer.step(lambda: network.head(inputs).sum())
    assert all(torch.equal(buffer, kept[name]) for name, buffer in network.named_buffers())


def test_a_pass_that_cannot_be_shared_says_that_module_shares_it():
    network = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(3, 1))
    before = copy.deepcopy(network.state_dict())
    optimizer = zb.ZerothOrderSGD(network.parameters(), module=network)
    with pytest.raises(RuntimeError) as caught:
        optimizer.step(lambda: network(torch.ones(2, 3)).sum())
    assert "module= runs the closure under torch.func.vmap" in caught.value.__notes__[0]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_one_pass_refuses_what_it_cannot_tell_apart():
    network, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    with pytest.raises(zb.InputError, match=r"shape \(1, 2\) does not"):
        zb.ZerothOrderSGD(network.parameters(), module=other).step(lambda: network.bias.sum())
    optimizer = zb.ZerothOrderSGD(network.parameters(), module=network, num_directions=2, chunk=2)
    with pytest.raises(zb.InputError, match="closure must call module"):
        optimizer.step(lambda: other(torch.ones(2)).sum())
    with pytest.raises(zb.InputError, match=r"one number, got a tensor of shape \(3, 1\)"):
        optimizer.step(lambda: network(torch.ones(3, 2)))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda loss: loss.expand(3, 1), r"one number, got a tensor of shape \(3, 1\)"),
        (lambda loss: None, "one number, got None"),
        (lambda loss: "low", "one number, got 'low'"),
    ],
)
def test_a_loss_that_is_no_number_is_refused_before_weights_change(together, wrong, message):
    network = torch.nn.Linear(2, 1)
    before = copy.deepcopy(network)
    module = {"module": network} if together else {}
    optimizer = zb.ZerothOrderSGD(network.parameters(), **module)
    with pytest.raises(zb.InputError, match=message):
        optimizer.step(lambda: wrong(network(torch.ones(3, 2)).sum()))
    torch.testing.assert_close(network.weight, before.weight)
    if together:
        with pytest.raises(zb.InputError, match=r"got 2\.0, which is no tensor"):
            optimizer.step(lambda: 2.0)


def test_a_tensor_of_one_number_is_a_loss():
    network = torch.nn.Linear(2, 1)
    for module in (None, network):
        optimizer = zb.ZerothOrderSGD(network.parameters(), module=module)
        assert optimizer.step(lambda: network(torch.ones(2))).shape == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 2}, "chunk > 1 needs module"),
        ({"lr": 0.0}, "lr must be finite and > 0, got 0"),
        ({"radius": -1.0}, "radius must be finite and > 0"),
        ({"num_directions": 0}, "num_directions must be a whole number >= 1"),
        ({"perturbation": "sparse"}, "perturbation must be 'low_rank', 'rademacher' or 'gaussian'"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
        ({"momentum": 0.5, "perturbation": "gaussian"}, "momentum needs low_rank"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(zb.InputError, match=message):
        zb.ZerothOrderSGD(weights(), **options)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"lr": -1}, "lr must be finite and > 0, got -1"),
        ({"momentum": 1.5}, r"momentum must lie in \[0, 1\), got 1.5"),
    ],
)
def test_options_of_a_group_are_checked_when_it_is_added(group, message):
    first, *others = weights()
    optimizer = zb.ZerothOrderSGD([first])
    with pytest.raises(zb.InputError, match=message):
        optimizer.add_param_group({"params": others, **group})
    assert len(optimizer.param_groups) == 1


def test_complex_weights_are_refused_by_name():
    """Steps would be half of what torch's gradient gives."""
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.complex128))
    with pytest.raises(zb.InputError, match=r"params must be real, got a weight of torch.complex"):
        zb.ZerothOrderSGD([weight])
    view = torch.nn.Parameter(torch.view_as_real(weight.detach()))
    zb.ZerothOrderSGD([view], lr=0.1).step(lambda: (weight.abs() ** 2).sum())
    assert not torch.equal(weight, torch.ones_like(weight))  # what the advice promises


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_radius_is_one_that_weights_can_show(dtype):
    weight = torch.nn.Parameter(torch.full((2000,), 1.5, dtype=dtype))
    seen = []
    optimizer = zb.ZerothOrderSGD([weight], lr=1e-9, perturbation="gaussian")
    optimizer.step(lambda: seen.append(weight.detach().double() - 1.5) or 0.0)
    radius = optimizer.param_groups[0]["radius"]
    assert seen[0].std().item() == pytest.approx(radius, rel=0.1)
    assert optimizer.state_dict()["param_groups"][0]["radius"] == radius
    assert radius == (1e-3 if dtype == torch.float32 else pytest.approx(6 * torch.finfo(dtype).eps))
    with pytest.warns(RuntimeWarning, match="radius .* is less than the weights' rounding"):
        zb.ZerothOrderSGD([weight], radius=0.5 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("refresh", [1, 50])
def test_momentum_lasts_while_its_factor_does(refresh):
    m, count, slope = 0.9, 400, torch.linspace(-1, 1, 120, dtype=torch.float64).view(2, 60)
    weight = torch.nn.Parameter(torch.zeros(2, 60, dtype=torch.float64))
    optimizer = zb.ZerothOrderSGD([weight], lr=1e-3, momentum=m, refresh=refresh, num_directions=8)
    for _ in range(count):
        optimizer.step(lambda: (weight * slope).sum())
    travelled = -float((weight.detach() * slope).sum() / (slope * slope).sum()) / count / 1e-3
    told = (1 - m * (1 - m**refresh) / (refresh * (1 - m))) / (1 - m)
    assert travelled == pytest.approx(told, rel=0.35)
