# labelloop: `make` alone shows what there is.
# PYTHON=…  the Python to build with (3.11 or newer; found by itself otherwise)

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:

BIN := .venv/bin
STAMP := .venv/labelloop.stamp
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: setup
setup: ## build all environments (the first time minutes, then instantaneous)
	@want=$$(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)
	if [ "$$(cat $(STAMP) 2>/dev/null || true)" = "$$want" ]; then
	  exec $(BIN)/python -m embedded.environments
	fi
	python=$$(bash -c 'for p in $(PYTHON) $(if $(PYTHON),,python3.13 python3.12 python3.11 python3); do
	  "$$p" -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && { echo "$$p"; exit; }
	done; true')
	if [ -z "$$python" ]; then
	  echo "error: no Python 3.11 or newer with its venv module $(if $(PYTHON),behind PYTHON=$(PYTHON),was found);" \
	    "install one (Debian, Ubuntu: apt install python3-venv) or name it: make setup PYTHON=/path/to/python3.12" >&2
	  exit 1
	fi
	# a build that was killed leaves packages without their files
	if [ -e .venvs/.building ]; then rm -rf .venv; fi
	mkdir -p .venvs; touch .venvs/.building
	echo "1 of 2: a virtual environment, and uv, which installs the rest (20 MB, usually 5 to 15 s)"
	[ -x $(BIN)/python ] || "$$python" -m venv .venv
	# the uv of the lock, hash and all; so the next step does not replace it while it runs
	awk '/^uv==/ {on=1} on {print} on && !/\\$$/ {exit}' requirements.lock > .venv/uv.lock
	if ! $(BIN)/uv --version >/dev/null 2>&1; then
	  (while sleep 8; do echo "        still fetching uv"; done) & ticking=$$!
	  trap 'kill $$ticking 2>/dev/null' EXIT
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.lock
	  kill $$ticking; trap - EXIT
	fi
	echo "2 of 2: the Python environments"
	$(BIN)/python -m embedded.environments --ours
	rm -f .venvs/.building
	echo "$$want" > $(STAMP)

.PHONY: demo
demo: export IMAGES := $(IMAGES)
demo: setup ## Label Studio, services and a project to label (IMAGES=folder SEED=40 ARGS=…)
	@exec $(BIN)/labelloop up $(if $(IMAGES),--images "$$IMAGES") $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: status down
status: ## what the running stack does
	@$(BIN)/labelloop status $(ARGS)
down: ## stop the running stack
	@$(BIN)/labelloop down $(ARGS)

.PHONY: test
test: setup ## all tests: unit, integration, acceptance (TESTS=tests/unit for some)
	@if [ -n "$(TESTS)" ]; then exec $(BIN)/pytest $(TESTS) $(ARGS); fi
	code=0
	# those that wait for servers first: while they wait, others compute
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/integration tests/unit --numprocesses auto --dist loadfile $(ARGS) || code=$$?
	$(BIN)/pytest tests/acceptance tests/faults $(ARGS) || code=$$?
	exit $$code

.PHONY: faults
faults: setup ## break everything, on and on, and look whether all heals (SCHEDULES=100 ACTIONS=200 SEED=0)
	@$(BIN)/python -m tests.faults.run --schedules $(or $(SCHEDULES),100) --actions $(or $(ACTIONS),200) --seed $(or $(SEED),0) $(ARGS)

.PHONY: coverage
coverage: setup ## branch coverage of the unit and integration tests, by room; fails below the floor
	@OMP_NUM_THREADS=1 $(BIN)/pytest tests/integration tests/unit --numprocesses auto --dist loadfile --cov --cov-report=term:skip-covered $(ARGS)

.PHONY: mutants
mutants: setup ## change the rules one line at a time: do their tests notice? (ROOMS="gate split", ARGS="--children 8")
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants.run $(if $(ROOMS),--rooms $(ROOMS)) $(ARGS)

.PHONY: compose-check
compose-check: setup ## the compose stack from nothing, on a Docker engine (ARGS=--stand-ins without an image registry)
	@$(BIN)/python -m tests.compose.check $(ARGS)

.PHONY: bench
bench: setup ## a measurement: make bench NAME=watcher ARGS="--sizes 1e4,1e5" (bench/README.md lists them)
	@test -n "$(NAME)" || { echo "error: say which one, e.g. make bench NAME=watcher; bench/README.md lists them" >&2; exit 1; }
	exec $(BIN)/python -m bench.$(NAME) $(ARGS)

.PHONY: check
check: ## lint, formatting, types, import rules, Dockerfile
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

.PHONY: format
format: ## format the code and sort its imports
	@$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: lock
lock: ## compile the lock files anew (UPGRADE=1 for newer versions)
	@$(UV_COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml --extra all --extra embedded --extra dev --output-file requirements.lock
	# what the image needs: the same versions without the tools and the embedded stack
	$(UV_COMPILE) --constraint requirements.lock pyproject.toml --extra all --output-file requirements-runtime.lock
	for name in label-studio s3 litert; do
	  $(UV_COMPILE) $(if $(UPGRADE),--upgrade) embedded/$$name.in --output-file embedded/$$name.lock
	done
	if grep -nE 'https?://|file:' requirements*.lock embedded/*.lock; then
	  echo "error: a lock names an address: leave it out" >&2; exit 1
	fi

.PHONY: clean clean-all
clean: ## remove caches and build outputs
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
clean-all: clean ## … and the environments (labels and models in .labelloop are kept)
	@rm -rf .venv .venvs
