# make setup | test | quick | lowest | lint | demo [DATA=folder] | lab | handout | notebooks [PRESET=mini]
#      | address GITHUB=owner/name | clean
# lowest: the tests of quick with the lowest versions that pyproject.toml allows, in an environment of its own.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOWEST := .venv-lowest

.PHONY: setup test quick lowest lint format demo lab handout notebooks address clean

setup: $(READY)

# constraints.txt pins the tested versions, so next year's lab installs the same.
$(READY): pyproject.toml constraints.txt
	@echo "== Setting up $(VENV): a Python environment with torch and the rest (once, 1 to 5 minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; run: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== Installing uv, the installer"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "== Installing the kit and its packages (several GB with torch's CUDA libraries)"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt --editable '.[dev]'
	@touch $(READY)
	@echo "== Ready"

# Two processes of one thread each: small models gain nothing from more threads.
PYTEST := -m pytest -n 2 --dist worksteal
test quick lowest: export OMP_NUM_THREADS := 1

test: $(READY)
	$(BIN)/python $(PYTEST)

quick: $(READY)
	$(BIN)/python $(PYTEST) -m 'not slow'

lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python $(PYTEST) -m 'not slow'

# The environment is emptied first: an installer keeps what is there and new enough.
$(LOWEST)/.ready: pyproject.toml | $(READY)
	@echo "== Setting up $(LOWEST): the lowest versions of pyproject.toml (several GB)"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	@$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[dev]'
	@touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The whole study, its figures and one page: on the rendered city, or on any data root.
DATA ?= data/mini
PRESET ?= $(if $(filter data/mini data/mini/ ./data/mini,$(DATA)),mini,photos)

demo: $(READY)
ifneq ($(filter data/mini data/mini/ ./data/mini,$(DATA)),)
	@echo "== Rendering the city (about a minute the first time)"
	@$(BIN)/python -m vpr_lib city --out data/mini
endif
	@echo "== Running the study"
	@$(BIN)/python -m vpr_lib report --data "$(DATA)" --preset $(PRESET) --out "reports/$(notdir $(patsubst %/,%,$(DATA)))"

# Opens copies of the notebooks, so that git pull doesn't meet a student's changes. The file browser shows the whole
# kit: runs/ and reports/ too.
# In containers the user is often root, which Jupyter refuses without this.
lab: AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)
lab: $(READY)
	@$(BIN)/python notebooks/copy_to_work.py
	$(BIN)/jupyter lab $(AS_ROOT) --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/work

# The notebooks for students, without solutions and outputs, and for teachers, with them.
handout: $(READY)
	$(BIN)/python notebooks/handout.py

# Runs all six from top to bottom and saves their outputs in place.
notebooks: $(READY)
	$(BIN)/python notebooks/execute.py --preset $(PRESET)

# Writes the kit's address into pyproject.toml, the notebooks' first cells and the README; `GITHUB=` removes it.
address:
	@test "$(origin GITHUB)" != undefined || { echo "run: make address GITHUB=owner/name"; exit 1; }
	@$(PYTHON) notebooks/address.py "$(GITHUB)"

clean:
	rm -rf $(VENV) $(LOWEST) .pytest_cache .ruff_cache *.egg-info
