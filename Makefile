PYTHON ?= python3
VENV ?= .venv
CONTRIB_VENV ?= $(VENV)-contrib
STAMP := $(VENV)/.installed

.PHONY: install demo test test-contrib lint docs dist clean

CONTRIB := $(wildcard contrib/gymnast-*)

install: $(STAMP)

# The stamp is younger than everything that says what to install, so that an unchanged checkout is not installed twice.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV): about 180 packages, PyTorch the largest. 2.5 GB on disk (roughly 1 GB to download) with a PyTorch"
	@echo "for CPUs; some GB more where pip chooses the one for CUDA. Some minutes, mostly the download; pip is silent meanwhile."
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	touch $(STAMP)

# Each process imagines, and learns from, its share of an iteration.
demo: PROCESSES ?= $(shell $(PYTHON) -c "import os; print(min(4, os.cpu_count()))")
demo: install
	$(VENV)/bin/gymnast train tabletop loop.iterations=9 trainer.devices=$(PROCESSES)

# One file a process; threads of their own would only be in each other's way. One process more than cores: many tests
# wait for what they started, and would leave a core idle.
test: WORKERS ?= $(shell $(PYTHON) -c "import os; print(os.cpu_count() + 1)")
test: install
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# In a virtual environment of its own: Meta-World wants MuJoCo 3.3, and pip breaks a MuJoCo 4 that it replaces by that.
# So the tabletop is tested there once more, with the older MuJoCo.
# openpi-client pins an older numpy than the rest needs; its websocket client works with either.
test-contrib:
	test -x $(CONTRIB_VENV)/bin/python || $(PYTHON) -m venv $(CONTRIB_VENV)
	$(CONTRIB_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]" $(foreach package,$(CONTRIB),-e "$(package)[dev]")
	$(CONTRIB_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps openpi-client
	for package in $(CONTRIB) tests/tabletop; do $(CONTRIB_VENV)/bin/python -m pytest $$package || exit 1; done

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy gymnast_core plugins/gymnast_*

# Fails on a link that leads nowhere.
docs: install
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

# Wheels in dist/, tried in empty environments of every Python from 3.11 to 3.13 that is here. Half an hour and some GB of
# downloads; PYTHONS=python3.12 and PACKAGES=gymnast-wan narrow it down.
dist:
	.ci/dist

clean:
	rm -rf $(VENV) $(CONTRIB_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path "./.git/*" -prune -exec rm -rf {} +
