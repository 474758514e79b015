"""What makes runs the same, what makes them comparable, and what a store says of them in words."""

from __future__ import annotations

import functools
import itertools
import json

import numpy as np
import pytest
from two_numbers import SPACE, TARGET, inner, problem

import zo_bilevel as zb
from zo_bilevel.problem.space_text import space_to_text
from zo_bilevel.problem.theta import ThetaLayout
from zo_bilevel.run.identity import (
    constraints_text,
    facts_of_run,
    objective_text,
    open_recorder,
    steered,
)
from zo_bilevel.solve.evaluation import Outcome, Point
from zo_bilevel.store.arrays import unpack_array


def identity(subject=None, method="m", seed=0, initial=None, width=1):
    facts = facts_of_run(subject or problem(), method, seed, initial, {"round_width": width})
    return facts.identity


def test_each_part_of_a_run_makes_it_another():
    others = [
        identity(),
        identity(problem(name="q")),
        identity(problem(version="2")),
        identity(problem(space=zb.Space(a=zb.Real(-3, 3.5, (2,))))),
        identity(problem().scalar),
        identity(problem(outer=zb.SquaredError(TARGET + 1.0))),
        identity(method="n"),
        identity(seed=1),
        identity(seed=2**70),
        identity(seed=2**70 + 1),
        identity(initial={"a": np.ones(2)}),
        identity(width=2),
    ]
    assert len(set(others)) == len(others)
    assert identity() == others[0]
    assert identity(initial=lambda seed: {"a": np.ones(2)}) == others[-2]


def conditions(subject=None, seed=0, initial=None, **settings):
    text = facts_of_run(subject or problem(), "m", seed, initial, settings).conditions
    assert all(len(pair) == 2 for pair in json.loads(text).values())
    return text


def test_each_condition_makes_runs_incomparable_and_the_seed_does_not():
    def far(seed):
        return {"a": np.full(2, 2.0)}

    def drawn(seed):
        return {"a": np.full(2, 1.0 + seed)}

    def drawn_otherwise(seed):
        return {"a": np.full(2, 1.0 - seed)}

    known = [
        conditions(),
        *(conditions(**{name: 3}) for name in ("max_solves", "max_seconds", "max_cost")),
        conditions(tolerance=0.1),
        conditions(tolerance=0.1 + 1e-12),
        conditions(round_width=2),
        conditions(problem(version="2")),
        conditions(problem(name="q")),
        conditions(problem(space=zb.Space(a=zb.Real(-3, 3.5, (2,))))),
        conditions(problem(outer=zb.SquaredError(TARGET + 1.0))),
        conditions(problem().scalar),
        *(conditions(initial=initial) for initial in (far, drawn, drawn_otherwise)),
    ]
    for one, other in itertools.combinations(known, 2):
        assert one != other
    assert conditions(seed=5) == known[0]
    assert conditions(seed=1, initial=drawn) == known[-2]
    assert conditions(initial={"a": np.full(2, 2.0)}) == known[-3]
    assert json.loads(known[-2])["start"][0] == "another for each seed"


def test_a_start_for_its_own_seeds_only_is_told_by_its_function():
    starts = [{"a": np.ones(2)}]
    found = json.loads(conditions(initial=lambda seed: starts[seed]))
    assert found["start"][0] == "another for each seed"
    assert conditions(initial=lambda seed: starts[seed]) == json.dumps(found)


def facts(subject=None, method="m", seed=3, initial=None, command=(), **settings):
    return facts_of_run(subject or problem(), method, seed, initial, settings, command)


def test_a_store_keeps_what_the_run_is_in_words():
    run = facts(initial={"a": np.ones(2)}, command=("zo", "run"), max_solves=7, width=np.int64(2))
    assert (run.problem, run.version, run.method, run.seed) == ("p", "1", "m", 3)
    assert run.space == space_to_text(SPACE)
    start = unpack_array(run.start, 2)
    np.testing.assert_array_equal(start, SPACE.encode({"a": np.ones(2)}))
    assert json.loads(run.settings) == {"max_solves": 7, "width": 2}
    assert json.loads(run.command) == ["zo", "run"]


def below(phi):
    return phi["a"][0] - 1.0


def further_below(phi):
    return phi["a"][0] - 2.0


def test_what_a_run_asks_of_its_solver_makes_it_another():
    plain = problem()
    fidelities = [zb.Fidelity("steps", 10, full) for full in (100, 1000)]
    runs = [
        facts(plain),
        facts(plain, asynchronous=True),
        facts(plain, known="these"),
        facts(plain, known="those"),
        *(facts(problem(fidelity=fidelity)) for fidelity in fidelities),
        *(facts(problem(constraints=[text])) for text in ("sum(a) <= 2", "sum(a) <= 2.5")),
        *(facts(problem(constraints=[rule])) for rule in (below, further_below)),
    ]
    assert len({run.identity for run in runs}) == len(runs)
    same = [facts(plain, **{name: None}) for name in ("asynchronous", "known", "max_solves")]
    same += [facts(plain, round_width=1), facts(plain, asynchronous=False, command=("zo",))]
    assert {run.identity for run in same} == {runs[0].identity}


def test_where_numbers_without_bounds_begin_is_part_of_the_run_and_of_its_solves():
    free = problem(space=zb.Space(a=zb.Real(shape=2)), inner=inner, name="p")
    near, far = {"a": np.full(2, 1.0)}, {"a": np.full(2, 1e6)}
    runs = [facts(free, initial=start) for start in (None, near, far)]
    assert len({run.identity for run in runs}) == 3
    starts = [json.loads(run.conditions)["start"] for run in runs]
    assert [words for words, _ in starts] == ["a=[0. 0.]", "a=[1. 1.]", "a=[1000000. 1000000.]"]
    assert len({exact for _, exact in starts}) == 3
    solvers = {json.loads(run.conditions)["inner solver"][1] for run in runs}
    assert len(solvers) == 1  # runs from several starts are compared

    def either(seed):
        return near if seed == 0 else far

    assert json.loads(facts(free, seed=5, initial=either).conditions)["start"][0] == (
        "another for each seed"
    )


def test_conditions_in_words():
    constrained = problem(
        space=zb.Space(a=zb.Real(0, 3, (2,)), b=zb.Real(0, 1), c=zb.Choice(["x  y", "z"])),
        constraints=["sum(a) <= 2"],
    )
    start = {"a": [0.25, 0.5], "b": 1 / 3, "c": "x  y"}
    settings = {"max_solves": 20, "max_seconds": 2.5, "stop rules": "flat", "round_width": 4}
    found = json.loads(facts(constrained, initial=start, **settings).conditions)
    assert all(len(exact) == 16 for _, exact in found.values())
    words = {name: text for name, (text, _) in found.items()}
    assert words.pop("outer objective").startswith("SquaredError #")
    assert words.pop("inner solver").startswith("p ")
    assert words.pop("constraints") == constraints_text(constrained)
    assert words == {
        "solves a run": "20",
        "seconds a run": "2.5",
        "cost a run": "none",
        "runs stop at loss": "none",
        "round width": "4",
        "version": "1",
        "space": space_to_text(constrained.space),
        "stop rules": "flat",
        "start": "a=[0.25 0.5 ], b=0.3333, c=x y",
    }
    free = json.loads(facts(problem()).conditions)
    assert "constraints" not in free
    assert "stop rules" not in free
    others = [
        {"constraints": ["sum(a) <= 1"]},
        {"constraints": ["sum(a) <= 2"], "version": "2"},
    ]
    for facts_of_other in others:
        other = problem(space=constrained.space, **facts_of_other)
        assert json.loads(facts(other, initial=start, **settings).conditions) != found
    settings["stop rules"] = "steep"
    other = json.loads(facts(constrained, initial=start, **settings).conditions)
    assert [name for name in found if other[name] != found[name]] == ["stop rules"]


def test_another_limit_changes_its_own_words_and_what_they_are_exactly():
    run = facts(max_solves=20, max_cost=3.0, round_width=2)
    changed = steered(run, {"max_solves": 30})
    longer = facts(max_solves=30, max_cost=3.0, round_width=2)
    assert json.loads(changed.pop("settings")) == json.loads(longer.settings)
    assert json.loads(changed.pop("conditions")) == json.loads(longer.conditions)
    assert not changed
    without = json.loads(steered(run, {"max_cost": None})["conditions"])
    assert without["cost a run"][0] == "none"


class Held:
    """An objective of the user's that holds something."""

    def __init__(self, *held):
        self.held = held

    def __call__(self, theta, phi=None):
        return 0.0


def distance(theta, phi):
    return 0.0


def test_objectives_are_named_for_people_and_told_apart_by_what_they_hold():
    assert objective_text(zb.Problem(SPACE, lambda phi: 0.0)) == "Identity"
    assert objective_text(problem().scalar) == f"{objective_text(problem())}, seen as its loss only"
    name, digest = objective_text(problem()).split(" #")
    assert name == "SquaredError"
    assert len(digest) == 8
    # the last bits of computed data depend on the machine, and make no other objective
    assert objective_text(problem(zb.SquaredError(TARGET + 1e-12))) != objective_text(problem())
    near = [objective_text(problem(zb.SquaredError(np.ones(2) + e))) for e in (0.0, 1e-12, 1e-3)]
    assert near[0] == near[1] != near[2]
    users = [objective_text(problem(outer)) for outer in (distance, Held(1), Held(2))]
    assert [text.split(" #")[0] for text in users] == ["distance", "Held", "Held"]
    assert len(set(users)) == 3
    assert all(" #" in text for text in users)

    def believed(deviation):
        prior = zb.Real(-3, 3, (2,), prior=zb.Normal(0, deviation))
        return problem(distance, space=zb.Space(a=prior, b=zb.Choice([1, 2])))

    texts = [objective_text(believed(deviation)) for deviation in (1, 2)]
    assert [text.rsplit("#", 1)[0] for text in texts] == [f"{users[0]}, priors "] * 2
    assert texts[0] != texts[1]
    assert all(len(text.rsplit("#", 1)[1]) == 8 for text in texts)


def test_constraints_are_counted_hashed_and_said():
    mixed = problem(constraints=["a[0] <= a[1]", below, zb.Linear("sum(a) <= 2")])
    count, digest, words = constraints_text(mixed).split(" ", 2)
    assert (count, words) == ("3", "a[0] <= a[1]; sum(a) <= 2")
    assert len(digest) == 9
    functions = [constraints_text(problem(constraints=[f])) for f in (below, further_below)]
    assert functions[0] != functions[1]
    assert functions[0] == functions[0].strip()


@pytest.mark.parametrize(
    ("change", "owner"),
    [
        ({"outer": Held(k for k in "ab")}, "the outer objective"),
        ({"constraints": [Held(k for k in "ab")]}, "a constraint"),
    ],
)
def test_what_cannot_be_told_from_others_is_refused_by_name(change, owner):
    with pytest.raises(zb.InputError, match=f"^{owner} holds "):
        facts(problem(**change))


class OwnSeeds(Held):
    def __call__(self, seed):
        return {5: {"a": np.ones(2)}}[seed]


def test_a_start_that_cannot_be_told_from_others_is_refused_unless_it_answers_any_seed():
    assert (
        facts(seed=5, initial=OwnSeeds(1)).conditions
        != facts(seed=5, initial=OwnSeeds(2)).conditions
    )
    with pytest.raises(zb.InputError, match=r"^initial holds "):
        facts(seed=5, initial=OwnSeeds(k for k in "ab"))


def test_a_solver_that_nobody_named_is_known_by_what_it_is():
    solvers = [functools.partial(simulate, factor=factor) for factor in (1.0, 1.0, 2.0)]
    one, same, other = (facts(zb.Problem(SPACE, solver, distance)) for solver in solvers)
    assert one.identity == same.identity != other.identity
    told = [json.loads(run.conditions)["inner solver"] for run in (one, same, other)]
    assert told[0] == told[1]
    assert told[0][1] != told[2][1]
    named = json.loads(facts().conditions)["inner solver"][0]
    assert json.loads(facts(problem(version="2")).conditions)["inner solver"][0] != named
    assert len(named) == len("p ") + 8


def test_names_may_be_any_text():
    assert facts(method="\ud800").identity != facts(method="\ud801").identity


def simulate(phi, factor):
    return factor * phi["a"]


def simulate_otherwise(phi, factor):
    return -factor * phi["a"]


def experiment(label="one", factor=2.0, run=simulate, space=SPACE, **more):
    """A problem with an experiment of that name, and another one."""
    both = zb.Experiments({label: {"factor": factor}, "other": {"factor": 9.0}}, run)
    return zb.Problem(space, both, distance, **more)


def solves_of(subject, name="one"):
    """What a store that has solved experiment "one" knows of an experiment of this problem."""
    store, point = zb.MemoryStore(), Point(np.ones(2), part=("one", 0))
    first = open_recorder(store, experiment(), "m", 0, None, {})
    assert first.find(1, 0, point, 7) is None
    first.add(1, 0, point, 7, Outcome("ok", np.ones(2), ThetaLayout((), ((2,),)), 0.5, 0.25))
    first.judged({})
    store.release(first.run.number)
    other = open_recorder(store, subject, "n", 0, None, {})
    return other.find(1, 0, Point(np.ones(2), part=(name, 0)), 7)


def test_an_experiment_is_known_by_its_conditions_whatever_its_name_and_the_others():
    assert solves_of(experiment()) is not None
    assert solves_of(experiment("renamed"), "renamed") is not None
    assert solves_of(experiment(factor=2.5)) is None
    assert solves_of(experiment(), "other") is None
    assert solves_of(experiment(run=simulate_otherwise)) is None
    assert solves_of(experiment(version="2")) is None
    assert solves_of(experiment(name="p")) is None
    assert solves_of(experiment(space=zb.Space(a=zb.Real(-3, 4, (2,))))) is None


def test_an_experiment_that_cannot_be_told_from_others_is_refused():
    with pytest.raises(zb.InputError, match=r"^an experiment holds "):
        solves_of(experiment(factor=(k for k in "ab"), name="p"))
