"""What a module, or an operation in a step, may not do inside an unrolled loop: said by name."""

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.adapters.torch_unroll.functional_module import FunctionalModule
from zo_bilevel.adapters.torch_unroll.functional_training import FunctionalSGD, FunctionalTraining

INPUTS = torch.linspace(-1.0, 1.0, 24, dtype=torch.float64).reshape(6, 4)


def loss(model, batch, phi):
    return phi["scale"] * (model(INPUTS) ** 2).mean()


def trained(module, **options):
    return FunctionalTraining(module.double(), loss, FunctionalSGD(0.1), **options).unroll(4)


class Average(torch.nn.Module):
    """Remembers something of each call, in one of several ways."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.linear = torch.nn.Linear(4, 1)
        self.register_buffer("average", torch.zeros(4, dtype=torch.float64))

    def forward(self, x):
        if self.training:
            mean = x.mean(dim=0).detach()
            if self.way == "reassigned":
                self.average = 0.9 * self.average + 0.1 * mean
            elif self.way == "in place":
                self.average.mul_(0.9).add_(mean, alpha=0.1)
            else:
                self.average.data.mul_(0.9).add_(mean, alpha=0.1)
        return self.linear(x - self.average)


class TestHiddenState:
    def test_a_buffer_replaced_in_forward_is_refused_by_name(self):
        loop = trained(Average("reassigned"))
        for _ in range(2):
            with pytest.raises(zb.InputError, match=r"got a write to 'average'.*eval mode"):
                loop({"scale": 1.0}, seed=0)

    @pytest.mark.parametrize("way", ["in place", "by data"])
    def test_a_buffer_written_in_place_is_refused_by_torch_with_the_way_out(self, way):
        said = r"step 0 writes in place into a tensor .*a module's buffer.*eval mode"
        with pytest.raises(zb.InnerSolverError, match=said):
            trained(Average(way))({"scale": 1.0}, seed=0)

    def test_spectral_norm_is_refused_and_works_in_eval_mode(self):
        made = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(4, 1))
        with pytest.raises(zb.InputError, match=r"got a write to 'parametrizations.weight.0._"):
            trained(made)({"scale": 1.0}, seed=0)
        loop = trained(made.eval())
        first, second = (loop({"scale": 1.0}, seed=0)["bias"] for _ in range(2))
        assert torch.equal(first, second)

    def test_the_same_module_in_eval_mode_is_used(self):
        loop = trained(Average("in place").eval())
        found, pushed = loop.jvp({"scale": 1.0}, {"scale": np.ones(2)}, seed=0)
        assert torch.equal(found["linear.bias"], loop({"scale": 1.0}, seed=0)["linear.bias"])
        assert pushed["linear.bias"].shape == (2, 1)

    def test_a_write_after_the_first_call_is_seen_too(self):
        module = Average("in place").double()
        call = FunctionalModule(module.eval(), ["linear.weight"])
        given = {"linear.weight": torch.ones(1, 4, dtype=torch.float64)}
        call(given, INPUTS)
        call._skeleton()[1].train()
        with pytest.raises(zb.InputError, match="got a write to 'average'"):
            call(given, INPUTS)

    def test_a_module_reads_its_buffers_as_they_are_put_back(self):
        module = Average("reassigned").double()
        call = FunctionalModule(module, ["linear.weight"])
        given = {"linear.weight": torch.ones(1, 4, dtype=torch.float64)}
        with pytest.raises(zb.InputError, match="got a write"):
            call(given, INPUTS)
        assert call._skeleton()[1].average is module.average
        assert not module.average.any()

    def test_frozen_batch_normalisation_is_allowed_until_it_trains(self):
        module = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2))
        loop = trained(module.eval())
        problem = zb.Problem(
            zb.Space(scale=zb.Real(0, 2)), loop, loop.outer(lambda w, phi: w["0.weight"].sum())
        )
        exact, pushed = (
            zb.hypergradient(problem, {"scale": 1.0}, estimator=estimator)["scale"]
            for estimator in (zb.ReverseUnroll(), zb.FG2U(1))
        )
        np.testing.assert_allclose(pushed, exact, rtol=1e-10)
        module.train()
        with pytest.raises(zb.InnerSolverError, match=r"failed: .*buffer.*eval mode"):
            zb.hypergradient(problem, {"scale": 1.0}, estimator=zb.FG2U(1))
        with pytest.raises(zb.InputError, match=r"part '1' keeps running .*or put it into eval"):
            trained(module)


class Token(torch.nn.Module):
    """A layer and a bare parameter."""

    def __init__(self):
        super().__init__()
        self.token = torch.nn.Parameter(torch.zeros(4))
        self.linear = torch.nn.Linear(4, 1)


class TestFreshWeights:
    def fresh(self, module):
        training = FunctionalTraining(module, loss, fresh=True)
        return training, training.fresh_weights(1), training.fresh_weights(2)

    def test_attention_is_redrawn_as_its_constructor_draws_it(self):
        _, first, second = self.fresh(torch.nn.MultiheadAttention(8, 2))
        assert not torch.equal(first["in_proj_weight"], second["in_proj_weight"])
        assert not torch.equal(first["out_proj.weight"], second["out_proj.weight"])
        for name in ("in_proj_bias", "out_proj.bias"):  # zero, as the whole's own reset has it
            assert not first[name].any()

    @pytest.mark.parametrize(
        ("module", "named"),
        [
            (Token, "'token' would stay"),
            (
                lambda: torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 1)),
                "'parametrizations.weight.original0', 'parametrizations.weight.original1' would",
            ),
        ],
    )
    def test_weights_that_no_reset_reaches_are_named(self, module, named):
        with pytest.raises(zb.InputError, match=f"{named}.*add one, freeze them"):
            self.fresh(module())

    def test_frozen_ones_stay_and_constants_are_no_mistake(self):
        module = torch.nn.Sequential(Token(), torch.nn.LayerNorm(1))
        module[0].token.requires_grad_(False)
        _, first, _ = self.fresh(module)
        assert "0.token" not in first
        assert torch.equal(first["1.weight"], torch.ones(1))

    def test_the_outside_generator_and_the_module_are_left_alone(self):
        module = torch.nn.Linear(4, 1)
        weight, state = module.weight.detach().clone(), torch.get_rng_state()
        self.fresh(module)
        assert torch.equal(module.weight, weight)
        assert torch.equal(torch.get_rng_state(), state)
