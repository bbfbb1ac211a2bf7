# make walkthrough | lab | inspect | test    Each installs what it needs into .venv, the first time only.
# make LOCKED=1 …                            installs the versions of requirements.lock instead of the newest.
PYTHON ?= python3
BIN := .venv/bin
PACKAGE := --editable '.[notebooks,test]'
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help walkthrough test check lab inspect notebooks lock test-floor
help:
	@echo "make walkthrough   run every notebook, read the pages in runs/walkthrough/index.html"
	@echo "make lab           open the notebooks in JupyterLab"
	@echo "make inspect       open the patch inspector alone, as a page"
	@echo "make test          run every check and every test, notebooks included"
	@echo "make check         style, types and imports alone: a minute"
	@echo "make notebooks     run the notebooks in place and keep their new outputs"
	@echo "make lock          newest versions into .venv, every test, then requirements.lock"
	@echo "make test-floor    unit tests with every package at the lowest version that pyproject.toml allows"

walkthrough: .venv/installed
	@exec $(BIN)/selfie-lite walkthrough

test: check
	@OMP_NUM_THREADS=1 exec $(BIN)/python -m pytest  # two workers, one core each

check: .venv/installed
	@$(BIN)/ruff check --quiet && $(BIN)/ruff format --check --quiet || { echo "$(BIN)/ruff check --fix; $(BIN)/ruff format   mend most of this"; exit 1; }
	@$(BIN)/lint-imports --no-cache > .venv/imports.txt || { cat .venv/imports.txt; exit 1; }
	@$(BIN)/mypy

lab: .venv/installed
	@exec $(BIN)/jupyter lab --notebook-dir=nbs --ServerApp.tornado_settings="{'websocket_max_message_size': 100_000_000}"

inspect: .venv/installed
	@exec $(BIN)/selfie-lite inspect

notebooks: .venv/installed
	@$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
		--ExecutePreprocessor.store_widget_state=False nbs/*.ipynb

lock: .venv/installed
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager $(PACKAGE)
	$(MAKE) test
	{ echo "# A set of versions that passes every test, written by make lock; make LOCKED=1 installs it."; \
		$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[^ ]*//' | grep '=='; } > requirements.lock

test-floor: .venv/installed
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-floor
	$(BIN)/uv pip install --quiet --python .venv-floor/bin/python --resolution lowest-direct $(PACKAGE)
	OMP_NUM_THREADS=1 .venv-floor/bin/python -m pytest tests --ignore tests/test_notebooks.py --ignore tests/inspector/test_browser.py \
		--ignore tests/test_house.py

.venv/installed: pyproject.toml $(if $(LOCKED),requirements.lock)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("selfie-lite needs Python 3.11 or newer, but $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12 …" % sys.version_info[:2])'
	@echo "Installing into .venv, once: about 6 GB, a few minutes."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet $(PACKAGE) $(if $(LOCKED),--constraint requirements.lock)
	@touch $@
