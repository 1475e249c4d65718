# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
PYTEST_ARGS ?= -m "not slow"

.PHONY: test pages demo lint clean

test: lint
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

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

clean:
	rm -rf $(VENV) demo_output build dist *.egg-info .pytest_cache .ruff_cache
