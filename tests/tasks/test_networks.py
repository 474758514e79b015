"""The four tasks on networks at their smoke size, and their data."""

import gzip
import inspect
import random
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

import zo_bilevel as zb
from zo_bilevel import tasks
from zo_bilevel.tasks import documentation
from zo_bilevel.tasks.digits import load_digits, read_idx
from zo_bilevel.tasks.documentation import documents

pytest.importorskip("sklearn")

TORCH_TASKS = ["condensation", "hyperparameters", "architecture", "online-adaptation"]
# transformers builds its masks through a part of torch that is on its way out
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")


def make(name, **options):
    if name == "online-adaptation":
        pytest.importorskip("transformers")
    return tasks.load(name, size="smoke", **options)


@pytest.mark.parametrize("name", TORCH_TASKS)
def test_forward_and_reverse_agree_on_every_task(name):
    task = make(name)
    size = task.problem.space.size
    count = size if size < 100 else 40
    exact = zb.hypergradient(task.problem, task.start(0), estimator=zb.ReverseUnroll())
    found = zb.hypergradient(task.problem, task.start(0), estimator=zb.FG2U(count, chunk=40))
    flat = [
        np.concatenate([np.ravel(g[n]) for n in task.problem.space.names]) for g in (exact, found)
    ]
    if count == size:
        np.testing.assert_allclose(flat[1], flat[0], rtol=1e-3, atol=1e-3 * np.abs(flat[0]).max())
    else:  # the share of the gradient that b of N directions see
        cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
        assert cosine > 0.5 * np.sqrt(count / size)


class Stay(zb.Method):
    name = "stay"

    def rounds(self, search):
        yield [zb.Point(search.start)]
        return "stayed"


@pytest.mark.parametrize("name", TORCH_TASKS)
def test_every_task_runs_no_worse_than_its_start_and_reports(name):
    task = make(name)
    method = zb.GradientMethod(zb.FG2U(6), lr=0.2)
    start = task.start(0)
    # one solve and nothing else: its loss is the start's mean over the same fresh seeds
    before = zb.minimize(task.problem, Stay(), initial=start, max_solves=60)
    result = zb.minimize(task.problem, method, initial=start, max_solves=60)
    assert not result.failures
    error = np.hypot(before.standard_error or 0.0, result.standard_error or 0.0)
    assert result.loss < before.loss + 2.0 * error + 0.05
    if task.error is not None:
        assert 0.0 <= task.error(result.phi) <= 1.0


# what other tests and packages do to a process; ray replaces inspect.isgenerator when imported
DISTURB = """
import inspect, random, unittest.mock, argparse, sqlite3, email.message, concurrent.futures
import numpy, sklearn.neural_network, torch
inspect.isgenerator = lambda value: False
inspect.another = lambda: None
random.seed(5), numpy.random.seed(5), torch.manual_seed(5), torch.rand(100)
torch.set_default_dtype(torch.float64)
"""

RUN = """
import sys
import zo_bilevel as zb
from zo_bilevel import tasks
for name in sys.argv[1:]:
    task = tasks.load(name, size="smoke")
    space = task.problem.space
    start = space.decode(space.encode(task.start(0)))
    theta = task.problem.inner(start, seed=4)
    print(name, [float(part.double().sum()).hex() for part in theta.values()])
    method = zb.GradientMethod(zb.FG2U(6), lr=0.05)
    result = zb.minimize(task.problem, method, initial=start, max_solves=8)
    print(result.loss.hex(), [float(x).hex() for x in result.x[:20]])
"""


def test_tasks_give_the_same_numbers_whatever_else_the_process_has_done():
    pytest.importorskip("transformers")
    answers = []
    for program in (RUN, DISTURB + RUN):
        command = [sys.executable, "-W", "ignore", "-c", program, *TORCH_TASKS]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert run.returncode == 0, run.stderr
        answers.append(run.stdout.splitlines())
    for alone, disturbed in zip(*answers, strict=True):
        assert alone == disturbed


def test_the_same_tuning_through_scikit_learn_is_a_black_box():
    task = make("hyperparameters", through="sklearn")
    with pytest.raises(zb.UnsupportedProblemError, match="use FG2UZO"):
        zb.hypergradient(task.problem, estimator=zb.FG2U(2))
    result = zb.minimize(task.problem, zb.GradientMethod(zb.FG2UZO(2), lr=0.3), max_solves=30)
    assert np.isfinite(result.loss)


def test_a_task_costs_nothing_until_it_is_used():
    inner = tasks.load("online-adaptation").problem.inner
    assert "Adaptation" in repr(inner)
    assert not hasattr(inner, "__wrapped__")
    assert inner.options[-1][0] == "unroll"


def test_questions_are_learnt_on_chosen_on_and_reported_apart(tmp_path):
    path = tmp_path / "questions.jsonl"
    line = '{"document": "box %d", "question": "%d? ", "answer": "wood"}'
    path.write_text("\n".join(line % (k, k) for k in range(10)))
    built = make("online-adaptation", questions=str(path)).problem.inner.built
    drawn = {int(row) for seed in range(40) for row in built.init({}, seed)["rows"]}
    parts = [drawn, *(set(part) for part in built.parts.values())]
    assert [len(part) for part in parts] == [5, 3, 2]
    assert set.union(*parts) == set(range(10))
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(line % (k, k) for k in range(3)))
    with pytest.raises(zb.InputError, match=r"at least four lines, .* got 3"):
        make("online-adaptation", questions=str(path)).problem.inner.built  # noqa: B018


def test_condensed_images_start_at_real_ones_of_each_class():
    task = make("condensation", images_per_class=2)
    images = task.start(3)["images"]
    assert images.shape == (20, 8, 8)
    digits = load_digits(num_train=200)
    rows = digits.train[0][:, 0].double().numpy()
    for place in (0, 19):
        distance = np.abs(rows - images[place]).reshape(len(rows), -1).max(axis=1)
        assert int(digits.train[1][np.argmin(distance)]) == place // 2
        assert distance.min() < 1e-6


@pytest.mark.slow
def test_condensed_images_train_fresh_networks_better_than_real_ones():
    task = tasks.load("condensation")
    start = task.start(0)
    method = zb.GradientMethod(zb.ReverseUnroll(), lr=0.03)
    result = zb.minimize(task.problem, method, initial=start, max_solves=208)
    assert task.error(result.phi) < task.error(start) - 0.05


def test_the_discretised_cell_keeps_the_best_operation_of_each_edge():
    inner = make("architecture").problem.inner
    scores = np.zeros((3, 5))
    scores[0, 3], scores[1, 1], scores[2, 0], scores[2, 4] = 1.0, 1.0, 9.0, 1.0
    assert inner.built.discretised({"scores": scores}) == ["conv3", "skip", "conv1"]


def test_any_cell_can_be_trained_anew_to_compare_with():
    search = make("architecture").problem.inner.built
    assert 0.0 <= search.retrained_error(["skip", "none", "average"], num_networks=1) <= 1.0
    with pytest.raises(zb.InputError, match="unknown operation 'conv5'; did you mean"):
        search.retrained_error(["conv5", "skip", "skip"])
    with pytest.raises(zb.InputError, match="one for each of 3 edges"):
        search.retrained_error(["skip"])


def write_idx(folder, name, array, packed=False):
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path = folder / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)


def test_mnist_is_read_from_idx_files(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 28, 28)), rng.integers(0, 10, 60)
    write_idx(tmp_path, "train-images-idx3-ubyte", images)
    write_idx(tmp_path, "train-labels-idx1-ubyte", labels, packed=True)
    write_idx(tmp_path, "t10k-images-idx3-ubyte", images[:12])
    write_idx(tmp_path, "t10k-labels-idx1-ubyte", labels[:12])
    digits = load_digits(str(tmp_path))
    assert [len(part[1]) for part in (digits.train, digits.validation, digits.test)] == [50, 10, 12]
    assert digits.side == 28
    assert torch.equal(digits.test[1], torch.from_numpy(labels[:12]))
    assert abs(float(digits.train[0].mean())) < 1e-5


def test_a_missing_or_damaged_idx_file_is_named(tmp_path):
    with pytest.raises(zb.InputError, match=r"no .*train-images-idx3-ubyte"):
        load_digits(str(tmp_path))
    (tmp_path / "broken").write_bytes(b"nothing")
    with pytest.raises(zb.InputError, match="broken is no IDX file"):
        read_idx(tmp_path, "broken")
    write_idx(tmp_path, "train-images-idx3-ubyte", np.zeros((3, 28, 28)))
    whole = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(whole[:-5])
    with pytest.raises(zb.InputError, match="train-images-idx3-ubyte should hold 2352 bytes, got"):
        load_digits(str(tmp_path))
    (tmp_path / "short").write_bytes(whole[:9])
    with pytest.raises(zb.InputError, match="short is no IDX file"):
        read_idx(tmp_path, "short")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(zb.InputError, match="packed cannot be read"):
        read_idx(tmp_path, "packed")


def test_the_task_on_mnist_reads_no_image_until_it_is_used(tmp_path):
    write_idx(tmp_path, "train-images-idx3-ubyte", np.zeros((0, 28, 28)), packed=True)
    task = tasks.load("condensation", images_per_class=2, path=str(tmp_path))
    assert task.problem.space.size == 20 * 28 * 28


def test_ten_images_a_class_have_gradients_that_agree():
    """At the rate of one image they do not: their mean cosine over networks is about 0."""
    task = tasks.load("condensation", images_per_class=10)
    phi = task.start(0)
    found = [
        zb.hypergradient(task.problem, phi, estimator=zb.ReverseUnroll(), seed=seed)["images"]
        for seed in range(3)
    ]
    units = np.array([g.ravel() / np.linalg.norm(g) for g in found])
    cosines = (units @ units.T)[np.triu_indices(3, 1)]
    assert cosines.mean() > 0.3


def test_documents_do_not_depend_on_what_other_packages_replace(monkeypatch):
    before = documents()
    monkeypatch.setattr(inspect, "isgenerator", lambda value: False)
    monkeypatch.setattr(random, "choice", None)
    documents.cache_clear()
    assert documents() == before
    assert "inspect.isgenerator" in {document.name for document in before}


def test_a_python_without_sources_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(documentation.sysconfig, "get_path", lambda name: str(tmp_path))
    documents.cache_clear()
    with pytest.raises(zb.InputError, match=f"no source files in {tmp_path}"):
        documents()
    documents.cache_clear()


def test_documents_are_real_and_alike_every_time():
    found = documents()
    assert len(found) > 100
    assert found is documents()
    assert all(len(d.text) >= 120 and d.summary and d.text.isascii() for d in found)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("condensation", {"size": "huge"}, "size must be one of"),
        ("condensation", {"images_per_class": 0}, "images_per_class must be a whole number >= 1"),
        ("hyperparameters", {"through": "jax"}, "through must be 'torch' or 'sklearn'"),
        ("architecture", {"size": "huge"}, "size must be one of"),
        ("online-adaptation", {"unroll": 0}, "unroll must be a whole number >= 1"),
        ("online-adaptation", {"locality": -1.0}, "locality must be finite and >= 0"),
    ],
)
def test_bad_options_are_refused_by_name(name, options, message):
    with pytest.raises(zb.InputError, match=message):
        tasks.load(name, **options)
