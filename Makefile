# Everything a developer or CI types. Needs make and Python >= 3.11; sets up .venv by itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv demo test test-clusters rehearsal nightly lint format wheel bench test-gpu bench-gpu clean

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Not `python -m pytest`: that would put the root on sys.path, and `kernels` with it (CONTRIBUTING.md).
PYTEST := $(BIN)/pytest
# Arguments after the command: make demo ARGS="--launcher processes", make test ARGS="-k config"
ARGS ?=
# Test files that run at once. Much of the suite waits: for Ray, for time-outs, for processes to end.
WORKERS ?= 2

export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# python3.11 where there is one, else a python3 that is new enough, else a word about what is missing.
$(STAMP): pyproject.toml constraints.txt
	@python=""; \
	for candidate in python3.11 python3; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "mpc-ray needs Python 3.11 or newer; found: $$(python3 --version 2>&1 || true). Install python3.11." >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python lacks the venv module; on Debian: apt install python3-venv" >&2; exit 1; \
	fi; \
	echo "setting up $(VENV) with $$("$$python" --version) (once, a few minutes: downloads PyTorch and Ray)"; \
	"$$python" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e '.[server,planner,demo,dev]'
	@touch $@

venv: $(STAMP) ## Set up .venv with everything (the second time is instant)

demo: $(STAMP) ## Embed sentences on three local Ray parties and write a report
	@$(BIN)/mpc-ray demo $(ARGS)

test: $(STAMP) ## Run the tests, all but those of test-clusters
	@$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not clusters" $(ARGS)

test-clusters: $(STAMP) ## Run the tests that bring up and lose whole clusters: `ray up`, sweeps, emulated regions
	@$(PYTEST) -m clusters $(ARGS)

rehearsal: $(STAMP) ## Three operators, gateway, proxy and clients on this machine, then attacks and kills
	@$(BIN)/python tests/rehearsal/run.py $(ARGS)

nightly: $(STAMP) ## Every attack on malicious_3pc, the rehearsal with 10,000 hostile requests, soak under uvicorn and Serve
	@$(BIN)/python tests/adversary/attacks.py
	@$(BIN)/python tests/rehearsal/run.py --full
	@$(BIN)/python benchmarks/soak.py --minutes 10
	@$(BIN)/python benchmarks/soak.py --minutes 10 --mode serve

lint: $(STAMP) ## Check style, types and who imports whom
	@status=0; \
	echo "ruff check";  $(BIN)/ruff check --output-format concise . || status=1; \
	echo "ruff format"; $(BIN)/ruff format --check --output-format concise . || status=1; \
	echo "mypy";        $(BIN)/mypy || status=1; \
	echo "imports";     $(BIN)/lint-imports --no-cache || status=1; \
	exit $$status

format: $(STAMP) ## Let ruff rewrite the sources
	@$(BIN)/ruff check --fix --output-format concise . || true; $(BIN)/ruff format .

# What lies in build/ from an older version would get into the wheel.
wheel: $(STAMP) ## Build the package that `ray up` sends to machines, into dist/
	@rm -rf build dist; $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .; rm -rf build; ls dist

bench: $(STAMP) ## Measure one MiniLM pass on this machine
	@$(BIN)/mpc-ray bench encoder --shape minilm --seq 128 --batch 1 $(ARGS)

# Where PyTorch and CuPy are the machine's own: make test-gpu PYTHON=python3. No Ray and no network.
PYTHON ?= $(BIN)/python
NO_GPU := no CUDA device that PyTorch can use (nvidia-smi and a CUDA build of torch are needed)

test-gpu: ## Run the GPU tests (PYTHON=python3: in the machine's own); says so and stops where there is no device
	@if $(PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then \
	  PYTHONPATH="$$($(PYTHON) tests/gpu/path.py)" $(PYTHON) -P -m pytest -m gpu tests/gpu $(ARGS); \
	else \
	  echo "SKIPPED: $(NO_GPU), so no GPU test was run"; \
	fi

bench-gpu: ## Measure kernels and an encoder on a GPU (PYTHON=python3: in the machine's own)
	@if $(PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then \
	  PYTHONPATH="$$($(PYTHON) tests/gpu/path.py)" $(PYTHON) -P -m mpc_ray.bench.gpu $(ARGS); \
	else \
	  echo "SKIPPED: $(NO_GPU), so nothing was measured"; \
	fi

clean: ## Remove .venv, caches and build products
	rm -rf $(VENV) build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
