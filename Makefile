# Every target sets up .venv by itself on a machine with Python 3.11+ and pip.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := dev
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: help setup demo test check format bench clean

help:            ## what there is
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: .venv/ready ## .venv with synthoma and everything the tests need

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

demo: .venv/ready ## the main job on the embedded case; pictures and data under demo/
	$(BIN)/python -m synthoma demo --out demo

test: .venv/ready ## all tests
	$(BIN)/python -m pytest -n 2

check: .venv/ready ## lint, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

format: .venv/ready ## put the code into its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready ## every figure, beside what it is compared with
	$(BIN)/python benchmarks/run.py

clean:           ## remove .venv and what demo made
	rm -rf .venv demo
