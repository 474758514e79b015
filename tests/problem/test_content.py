"""What solvers are told apart by: everything that can decide their answers, and nothing else."""

from __future__ import annotations

import builtins
import collections
import dataclasses
import datetime
import enum
import fractions
import functools
import subprocess
import sys
import textwrap
import threading
import types

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel.adapters import Function, TorchUnroll
from zo_bilevel.problem.content import DerivedName, UntellableError, content_digest
from zo_bilevel.problem.solver_identity import content_hash, solver_identity, solver_name

SPACE = zb.Space(a=zb.Real(0, 10))


def identity(inner):
    return solver_identity(inner, zb.Problem(SPACE, inner).name, "1")


class Plain:
    def __init__(self, k):
        self.k = k

    def solve(self, phi):
        return self.k * phi["a"]

    def __call__(self, phi):
        return self.k * phi["a"]


class Slots:
    __slots__ = ("k",)

    def __init__(self, k):
        self.k = k

    def __call__(self, phi):
        return self.k * phi["a"]


class Both(Slots):
    def __init__(self, k):
        super().__init__(0)
        self.other = k


@dataclasses.dataclass
class Data:
    k: float

    def __call__(self, phi):
        return self.k * phi["a"]


class Property:
    def __init__(self, k):
        self._k = k

    @property
    def k(self):
        return self._k

    __call__ = Plain.__call__


class Mapping(dict):
    """A dict with an attribute of its own."""

    def __call__(self, phi):
        return self["k"] * phi["a"]


def plain(phi, k=0.0, *, kk=0.0, data=()):
    return phi["a"]


def nested(k):
    def outer():
        def inner(phi):
            return k * phi["a"]

        return inner

    return outer()


def decorated(k):
    @functools.wraps(plain)
    def wrapper(phi):
        return k * plain(phi)

    return wrapper


def with_default(k):
    def solve(phi, k=k):
        return k

    return solve


def with_keyword_default(k):
    def solve(phi, *, k=k):
        return k

    return solve


def with_attribute(k):
    def solve(phi):
        return solve.k * phi["a"]

    solve.k = k
    return solve


def closing_over(value):
    return lambda phi: value


def middle(k):
    data = np.zeros(3000)
    data[1500] = k
    return data


def masked(k):
    return np.ma.masked_array([1.0, 2.0], mask=[k > 1, False])


def class_with(k):
    class Made:
        factor = k

        def __call__(self, phi):
            return self.factor * phi["a"]

    return Made()


def class_doing(k):
    if k == 1.0:

        class Made:
            def __call__(self, phi):
                return phi["a"] + 1

    else:

        class Made:
            def __call__(self, phi):
                return phi["a"] + 2

    return Made()


class Mesh(np.ndarray):
    pass


class Day(datetime.date):
    pass


def with_scale(value, k):
    value.scale = k
    return value


def per_thread(k):
    local = threading.local()
    local.k = k
    return local


def enum_member(k):
    return enum.Enum("Kind", {"A": k}).A


def counting_from(k):
    calls = k

    def solve(phi):
        nonlocal calls
        calls += 1
        return calls * phi["a"]

    return solve


def changing(k):
    state = k

    def solve(phi):
        nonlocal state
        state += phi["a"]
        return 0.0

    return solve


def module_function(k):
    module = types.ModuleType("made_up")
    exec("def solve(phi):\n    return K * phi['a']", module.__dict__)
    module.K = k
    return module.solve


def through_a_module(k):
    module = types.ModuleType("made_up")
    exec("def factor():\n    return K", module.__dict__)
    module.K = k
    scope = {"module": module}
    exec("def solve(phi):\n    return module.factor() * phi['a']", scope)
    return scope["solve"]


def unroll(k):
    def step(theta, phi, t, batch):
        return theta - 0.1 * k * theta

    return TorchUnroll(lambda phi: torch.zeros(2), step, 3)


MAKERS = {
    "plain object": Plain,
    "slots": Slots,
    "attributes beside slots": Both,
    "dataclass": Data,
    "property": Property,
    "dict subclass": lambda k: Mapping(k=k),
    "attribute of a dict subclass": lambda k: vars(held := Mapping()).update(k=k) or held,
    "bound method": lambda k: Plain(k).solve,
    "method of slots": lambda k: Slots(k).__call__,
    "partial": lambda k: functools.partial(plain, k=k),
    "partial of a bound method": lambda k: functools.partial(Plain(k).solve),
    "partial of a large array": lambda k: functools.partial(plain, data=middle(k)),
    "default": with_default,
    "keyword-only default": with_keyword_default,
    "attribute of a function": with_attribute,
    "nested functions": nested,
    "decorated": decorated,
    "cached": lambda k: functools.lru_cache(closing_over(k)),
    "global of a module": module_function,
    "function of another module": through_a_module,
    "attribute of a class": class_with,
    "code of a class": class_doing,
    "counter that counts": counting_from,
    "state that is not only counted": changing,
    "adapter": lambda k: Function(closing_over(k), style="dict"),
    "adapter of an object": lambda k: Function(Plain(k), style="dict"),
    "training loop": unroll,
    "training loop of an object": lambda k: TorchUnroll(torch.zeros, Plain([k]), 3),
    **{
        f"closure over {name}": lambda k, make=make: closing_over(make(k))
        for name, make in {
            "float": lambda k: k,
            "negative zero": lambda k: 0.0 if k == 1.0 else -0.0,
            "int or float": lambda k: 1 if k == 1.0 else 1.0,
            "bool or int": lambda k: True if k == 1.0 else 1,
            "long int": lambda k: 10**5000 + int(k),
            "text or bytes": lambda k: "a" if k == 1.0 else b"a",
            "list": lambda k: [k],
            "tuple": lambda k: (k,),
            "list or tuple": lambda k: [k] if k == 1.0 else (1.0,),
            "dict": lambda k: {"k": k},
            "set": lambda k: {"x", k},
            "deque": lambda k: collections.deque([k]),
            "defaultdict": lambda k: collections.defaultdict(list, k=[k]),
            "default": lambda k: collections.defaultdict(lambda: k),
            "deque of a length": lambda k: collections.deque([1], maxlen=int(k)),
            "OrderedDict": lambda k: collections.OrderedDict(k=k),
            "namespace": lambda k: types.SimpleNamespace(k=k),
            "namedtuple": lambda k: collections.namedtuple("Point", "k")(k),
            "list in dict in object": lambda k: Plain({"x": [0, [k]]}),
            "splits": lambda k: ["ab", "c"] if k == 1.0 else ["a", "bc"],
            "object": Plain,
            "fraction": lambda k: fractions.Fraction(k),
            "enum": enum_member,
            "class": lambda k: type(class_with(k)),
            "array": lambda k: np.full(3, k),
            "shape of an array": lambda k: np.zeros((2, 3) if k == 1.0 else (3, 2)),
            "kind of an array": lambda k: np.zeros(2, "f4" if k == 1.0 else "i4"),
            "object array": lambda k: np.array([k, "x"], dtype=object),
            "masked array": masked,
            "attribute of an array": lambda k: with_scale(np.ones(3).view(Mesh), k),
            "attribute of a tensor": lambda k: with_scale(torch.ones(3), k),
            "attribute of a date": lambda k: with_scale(Day(2000, 1, 1), k),
            "thread's own": per_thread,
            "strided array": lambda k: np.full((4, 4), k)[::2, ::2],
            "numpy number": np.float64,
            "tensor": lambda k: torch.full((2,), k),
            "bfloat16": lambda k: torch.full((2,), k, dtype=torch.bfloat16),
            "sparse tensor": lambda k: torch.full((2,), k).to_sparse(),
            "module of torch": lambda k: torch.nn.Dropout(k / 10),
            "generator": lambda k: np.random.default_rng(int(k)),
            "regular expression": lambda k: __import__("re").compile(f"a{k}"),
        }.items()
    },
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_what_decides_answers_tells_solvers_apart_and_nothing_else_does(name):
    make = MAKERS[name]
    assert identity(make(1.0)) == identity(make(1.0))
    assert identity(make(1.0)) != identity(make(2.0))


def test_what_a_function_only_counts_does_not_make_it_another():
    calls = 0

    def solve(phi):
        nonlocal calls
        calls += 1
        return phi["a"]

    before = identity(solve)
    solve({"a": 1.0})
    assert calls == 1
    assert identity(solve) == before


def test_locks_decide_nothing_and_open_files_cannot_be_told(tmp_path):
    class Locked(Plain):
        def __init__(self, k):
            super().__init__(k)
            self.lock, self.other = threading.Lock(), threading.RLock()

    assert identity(Locked(1.0)) == identity(Locked(1.0)) != identity(Locked(2.0))
    with open(tmp_path / "x", "w") as file:
        for value in (file, (k for k in "ab"), sys._getframe()):
            with pytest.raises(UntellableError):
                content_digest(closing_over(value))
            problem = zb.Problem(SPACE, closing_over(value))
            with pytest.raises(zb.InputError, match=r"give zb\.Problem\(..., name=..., version="):
                zb.minimize(problem, zb.RandomSearch(), max_solves=2, store=zb.MemoryStore())
            assert content_hash(value) != content_hash(value)


def test_without_a_store_or_with_a_name_nothing_is_refused():
    frames = closing_over(sys._getframe())

    def solve(phi, held=frames):
        return phi["a"]

    for name, store in (("", None), ("given", zb.MemoryStore())):
        problem = zb.Problem(SPACE, solve, name=name)
        assert zb.minimize(problem, zb.RandomSearch(), max_solves=2, store=store).solves == 2


def test_values_that_hold_themselves_have_an_end():
    ring = []
    ring.append(ring)
    other = [[]]
    other[0].append(other)
    assert content_digest(ring) == content_digest(ring) != content_digest(other)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UntellableError, match="goes too deep"):
        content_digest(deep)


def test_the_order_of_a_set_does_not_count_and_that_of_a_dict_does():
    names = [f"name {k}" for k in range(50)]
    assert content_digest(set(names)) == content_digest({*names[::-1]})
    assert content_digest({"a": 1, "b": 2}) != content_digest({"b": 2, "a": 1})


def test_a_given_name_is_believed_and_a_derived_one_is_not():
    named = Plain(1.0)
    named.name = "mine"
    assert identity(named) == "mine\0001"
    assert solver_identity(named, "of the problem", "2") == "of the problem\0002"
    derived = zb.Problem(SPACE, Plain(1.0)).name
    assert isinstance(derived, DerivedName)
    assert derived not in identity(Plain(1.0))
    assert isinstance(zb.Problem(SPACE, Plain(1.0)).scalar.name, DerivedName)
    assert not isinstance(zb.Problem(SPACE, Plain(1.0), name="given").scalar.name, DerivedName)
    assert solver_name(Plain(1.0)) != solver_name(Plain(2.0))
    assert solver_name(plain).endswith(".plain")


PROGRAM = """
    import sys
    sys.path[:0] = {folders!r}
    from test_content import MAKERS, identity
    for name in MAKERS:
        print(identity(MAKERS[name](1.0)).encode().hex())
"""


@pytest.mark.filterwarnings("ignore:Sparse")
def test_another_process_tells_solvers_apart_the_same_way():
    folders = [str(__file__).rpartition("/")[0], *sys.path]
    program = textwrap.dedent(PROGRAM.format(folders=folders))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = {name: identity(make(1.0)).encode().hex() for name, make in MAKERS.items()}
    there = dict(zip(MAKERS, ran.stdout.split(), strict=True))
    assert [name for name in here if here[name] != there[name]] == []


class TestInOneStore:
    """A solver that changes between two runs is given none of the earlier answers."""

    def solves(self, solver, store, dispatcher=None):
        problem = zb.Problem(SPACE, solver)
        options = {"max_solves": 8, "store": store, "dispatcher": dispatcher}
        return zb.minimize(problem, **options).phi["a"]

    def test_an_attribute(self):
        solver, store = Distance(2.0), zb.MemoryStore()
        assert self.solves(solver, store) == pytest.approx(2.0)
        solver.k = 7.0
        assert self.solves(solver, store) == pytest.approx(7.0)

    def test_an_attribute_under_a_kept_pool(self):
        solver = Distance(2.0)
        with zb.Joblib(n_jobs=1) as dispatcher:
            assert self.solves(solver, None, dispatcher) == pytest.approx(2.0)
            solver.k = 7.0
            assert self.solves(solver, None, dispatcher) == pytest.approx(7.0)

    def test_a_file_that_was_edited(self, tmp_path):
        store = tmp_path / "runs.sqlite"
        for k in (2.0, 7.0):
            path = tmp_path / "mine.py"
            path.write_text(f"def solve(phi):\n    return (phi['a'] - {k}) ** 2\n")
            module = types.ModuleType("mine")
            module.__file__ = str(path)
            sys.modules["mine"] = module
            exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
            assert self.solves(module.solve, store) == pytest.approx(k)
        del sys.modules["mine"]

    def test_a_name_among_the_built_in_ones(self, monkeypatch):
        store = zb.MemoryStore()
        for k in (2.0, 7.0):
            monkeypatch.setattr(builtins, "place_of_minimum", k, raising=False)
            found = self.solves(lambda phi: (phi["a"] - place_of_minimum) ** 2, store)  # noqa: F821
            assert found == pytest.approx(k)

    def test_the_space(self):
        store, seen = zb.MemoryStore(), []

        def solve(phi):
            seen.append(phi["kind"])
            return 1.0

        for options in ([np.zeros(2000), 1], [np.ones(2000), 1], [np.zeros(2000), 1]):
            space = zb.Space(kind=zb.Choice(options))
            problem = zb.Problem(space, solve, name="named")
            zb.minimize(problem, zb.RandomSearch(), max_solves=3, store=store)
        assert len(seen) == 6


class Distance:
    def __init__(self, k):
        self.k = k

    def __call__(self, phi):
        return (phi["a"] - self.k) ** 2
