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

demo: .venv/ready ## draw a patient, check it, put a tumor into each of six organs; pictures and data in demo/
	$(BIN)/synthoma cohort recipes/cohort/one.toml --out demo/cohort
	$(BIN)/synthoma validate demo/cohort --out demo/validation
	$(BIN)/synthoma show demo/cohort/insilico_0000 --out demo/case.png
	$(BIN)/synthoma synthesize recipes/synthesis/six_organs.toml --data demo/cohort --out demo/synthetic --seed 1
	$(BIN)/synthoma show demo/synthetic --out demo/gallery.png
	@echo "Look at demo/case.png and demo/gallery.png; the labelled scan is in demo/synthetic/insilico_0000."

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
