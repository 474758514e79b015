"""Training rules as functions: those of torch, with exact hypergradients of their settings."""

import copy

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.adapters.torch_unroll.functional_training import (
    FunctionalAdam,
    FunctionalSGD,
    FunctionalTraining,
    minibatches,
)


class TestTraining:
    @pytest.fixture
    def data(self):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(20, 3, generator=generator), torch.randn(20, 1, generator=generator)

    @pytest.mark.parametrize(
        ("rule", "optimizer"),
        [
            (FunctionalSGD(0.05), lambda p: torch.optim.SGD(p, 0.05)),
            (
                FunctionalSGD(0.05, momentum=0.9, weight_decay=0.1),
                lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.1),
            ),
            (FunctionalAdam(0.05), lambda p: torch.optim.Adam(p, 0.05)),
            (
                FunctionalAdam(0.05, weight_decay=0.2),
                lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.2),
            ),
        ],
        ids=["sgd", "momentum and decay", "adam", "adamw"],
    )
    def test_functional_rules_equal_those_of_torch(self, data, rule, optimizer):
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        inputs, targets = data

        def loss(model, batch, phi):
            return phi["a"] * ((model(inputs) - targets) ** 2).mean()

        found = FunctionalTraining(module, loss, rule).unroll(15)({"a": 1.0})
        trained = copy.deepcopy(module)
        torch_rule = optimizer(trained.parameters())
        for _ in range(15):
            torch_rule.zero_grad()
            ((trained(inputs) - targets) ** 2).mean().backward()
            torch_rule.step()
        for name, weight in trained.named_parameters():
            torch.testing.assert_close(found[name], weight.detach(), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        "rule",
        [
            FunctionalSGD("rate", momentum=0.5),
            FunctionalAdam("rate"),
            FunctionalAdam(0.1, ("rate", 0.9), eps="rate"),
            FunctionalAdam(0.1, (0.5, lambda phi, t: 1 - phi["rate"])),
        ],
    )
    def test_hyperparameters_have_exact_hypergradients(self, data, rule):
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 1).double()
        inputs, targets = (part.double() for part in data)

        def loss(model, batch, phi):
            rows, wanted = batch
            return ((model(rows) - wanted) ** 2).mean()

        training = FunctionalTraining(module, loss, rule, fresh=True)
        loop = training.unroll(8, batches=minibatches(inputs, targets, size=5))
        outer = loop.outer(lambda w, phi: ((training.model(w)(inputs) - targets) ** 2).mean())
        problem = zb.Problem(zb.Space(rate=zb.Log(1e-3, 0.3)), loop, outer)
        exact = zb.hypergradient(problem, {"rate": 0.05}, estimator=zb.ReverseUnroll(), seed=2)
        pushed = zb.hypergradient(problem, {"rate": 0.05}, estimator=zb.FG2U(1), seed=2)
        np.testing.assert_allclose(pushed["rate"], exact["rate"], rtol=1e-10)

    def test_settings_by_layer_and_by_step(self, data):
        inputs, targets = data

        def loss(model, batch, phi):
            return ((model(inputs) - targets) ** 2).mean()

        module = torch.nn.Linear(3, 1)
        rule = FunctionalSGD(lambda phi, t: {"weight": phi["rates"][t], "bias": 0.0})
        training = FunctionalTraining(module, loss, rule)
        found = training.unroll(2)({"rates": np.array([0.1, 0.2])})
        assert torch.equal(found["bias"], module.bias.detach())
        assert not torch.equal(found["weight"], module.weight.detach())

    def test_fresh_weights_come_from_the_seed(self):
        def loss(model, batch, phi):
            return model(torch.ones(1, 3)).sum()

        training = FunctionalTraining(torch.nn.Linear(3, 1), loss, fresh=True)
        first, again, other = (training.init({}, seed)["weights"]["weight"] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_running_statistics_are_refused(self):
        module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        with pytest.raises(zb.InputError, match="part '1' keeps running statistics"):
            FunctionalTraining(module, lambda model, batch, phi: 0.0)

    def test_an_unknown_setting_is_named(self, data):
        training = FunctionalTraining(
            torch.nn.Linear(3, 1), lambda m, b, phi: m(data[0]).sum(), FunctionalSGD("rat")
        )
        with pytest.raises(zb.InputError, match="did you mean 'rate'"):
            training.unroll(1)({"rate": 0.1})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FunctionalSGD(-0.1), "learning_rate must be finite and >= 0, got -0.1"),
        (lambda: FunctionalSGD(0.1, 1.5), r"momentum must lie in \[0, 1\), got 1.5"),
        (lambda: FunctionalAdam(betas=(0.9, 1.0)), r"betas must lie in \[0, 1\), got 1.0"),
        (lambda: FunctionalAdam(betas=0.9), "betas must be two settings, got 0.9"),
        (
            lambda: minibatches(torch.ones(10, 2), torch.ones(5), size=3),
            r"arrays must have one first axis, got lengths \[10, 5\]",
        ),
    ],
)
def test_bad_settings_are_refused_when_they_are_given(make, message):
    with pytest.raises(zb.InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["weight"], r"must give every weight, got none for \['bias'\]"),
        (["weight", "bias", "wieght"], "unknown weight 'wieght'.*weight"),
    ],
)
def test_rates_by_weight_name_them_all(names, message):
    rule = FunctionalSGD(lambda phi, t: dict.fromkeys(names, phi["a"]))
    loop = FunctionalTraining(
        torch.nn.Linear(2, 1), lambda model, batch, phi: model(torch.ones(2)).sum(), rule
    ).unroll(2)
    with pytest.raises(zb.InputError, match=message):
        loop({"a": 0.1})
