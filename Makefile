# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
PYTEST_ARGS ?=
QUICK := not law and not fuzz and not slow
# Each worker takes a stretch of the files in their order, and half of what is left of the other when
# it has done: none waits for the longest file, and what a file compiles once is compiled once.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal --durations=15 $(PYTEST_ARGS)

.PHONY: test test-ci test-all pages demo lint clean

# The quick tests on JAX, which compiles fastest; on TensorFlow what is particular to it.
test: lint
	KERAS_BACKEND=jax $(PYTEST) -m "$(QUICK)"
	KERAS_BACKEND=tensorflow $(PYTEST) -m "backend and $(QUICK)"

# All on JAX, with the laws and the fuzzing; the quick tests on each backend, but for those that are
# the same on all, and on TensorFlow and torch also the long ones that are particular to them.
test-all: lint $(VENV)/torch
	KERAS_BACKEND=jax $(PYTEST)
	KERAS_BACKEND=tensorflow $(PYTEST) -m "backend or ($(QUICK) and not neutral)"
	KERAS_BACKEND=torch $(PYTEST) -m "torch or ($(QUICK) and not neutral)"

# What `.ci/run` calls: `test-all` without what takes longest, and on TensorFlow and torch without the
# rooms that ask `keras.ops` alone.
test-ci: lint $(VENV)/torch
	KERAS_BACKEND=jax $(PYTEST) -m "not further"
	KERAS_BACKEND=tensorflow $(PYTEST) -m "(backend or ($(QUICK) and not neutral and not alike)) and not further"
	KERAS_BACKEND=torch $(PYTEST) -m "(torch or ($(QUICK) and not neutral and not alike)) and not further"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Every table of the pages and of the README, again from its rows; nothing is run.
pages: $(VENV)/installed
	KERAS_BACKEND=jax $(BIN)/python -m examples.studies.pages

demo: $(VENV)/installed
	KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m examples.studies.digits.demo $(DEMO_ARGS)

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

$(VENV)/torch: $(VENV)/installed
	$(BIN)/python -m pip install --quiet "torch==2.13.0"
	touch $@

clean:
	rm -rf $(VENV) demo_output build dist *.egg-info .pytest_cache .ruff_cache
