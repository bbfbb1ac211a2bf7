# make walkthrough | test | lab | inspect    Each installs what it needs into .venv, the first time only.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help walkthrough test lab inspect notebooks
help:
	@echo "make walkthrough   run every notebook, read the pages in runs/walkthrough/index.html"
	@echo "make lab           open the notebooks in JupyterLab"
	@echo "make inspect       open the patch inspector alone, as a page"
	@echo "make test          run every test, notebooks included"
	@echo "make notebooks     run the notebooks in place and keep their new outputs"

walkthrough: .venv/installed
	@$(BIN)/selfie-lite walkthrough

test: .venv/installed
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest  # two workers, one core each

lab: .venv/installed
	@$(BIN)/jupyter lab --notebook-dir=nbs --ServerApp.tornado_settings="{'websocket_max_message_size': 100_000_000}"

inspect: .venv/installed
	@$(BIN)/selfie-lite inspect

notebooks: .venv/installed
	@$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
		--ExecutePreprocessor.store_widget_state=False nbs/*.ipynb

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("selfie-lite needs Python 3.11 or newer, but $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12 …" % sys.version_info[:2])'
	@echo "Installing into .venv, once: about 6 GB, a few minutes."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@
