PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint format docs bench hardware clean

$(BIN)/gpualloc: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(BIN)/gpualloc $@

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(BIN)/pytest -n 2 -q -m 'not long'
	@echo "Left out, and run by .ci/run: what is marked long (a real Docker Engine, Airflow with TensorFlow, a wheel, long searches)."

# The pages about commands, documents and codes from the code, then the site, in build/site.
docs: $(VENV)/.dev
	$(BIN)/python docs/reference/make.py
	$(BIN)/mkdocs build --strict --quiet --site-dir build/site

bench: $(VENV)/.dev
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/rewrite.py
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/peers_table.py

# On a host with two GPUs or more: what gpualloc reads and plans, against nvidia-smi and CUDA itself.
hardware: $(BIN)/gpualloc
	$(BIN)/python tests/hardware/inventory_report.py build/inventory_report.json
	$(BIN)/python tests/hardware/workers.py build/workers.json

# The main job on a shipped machine: look, plan, see the change, apply it to a copy, check, and go back.
DEMO := build/demo
demo: $(BIN)/gpualloc
	@rm -rf $(DEMO) && mkdir -p build && cp -r examples/airflow $(DEMO)
	@cd $(DEMO) && GPUALLOC=$(abspath $(BIN))/gpualloc sh $(abspath examples/demo.sh)

clean:
	rm -rf $(VENV) build dist
