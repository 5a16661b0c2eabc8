# Every target sets up .venv by itself on a machine with Python 3.11+ and pip.
PYTHON ?= python3
BIN := .venv/bin
CORES ?= $(shell nproc)
EXTRAS := dev
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: help setup demo docs test check format bench clean

help:            ## what there is
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: .venv/ready ## .venv with synthoma and everything the tests need

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

demo: .venv/ready ## what synthetic tumors are worth: in-silico hospitals, 18 trainings, a report; and a gallery; in demo/
	$(BIN)/synthoma cohort one --out demo/patient
	$(BIN)/synthoma synthesize six_organs --data demo/patient --out demo/synthetic --seed 1
	$(BIN)/synthoma show demo/synthetic --out demo/gallery.png
	$(BIN)/synthoma cohort demo --out demo/cohort --workers $(CORES)
	$(BIN)/synthoma scale demo --data demo/cohort --out demo/study --workers $(CORES)
	$(BIN)/synthoma plan demo/study
	@echo "Open demo/study/report.html; demo/gallery.png shows a tumor in each of six organs."

docs: .venv/ready ## the site, in site/; a warning is an error. Look at it: python -m http.server -d site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

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

clean:           ## remove .venv and what demo and docs made
	rm -rf .venv demo site
