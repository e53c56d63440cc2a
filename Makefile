# The two commands are `make demo` (or `make up`, to stay) and `make test`. `make help` lists the rest.
#   GPU=1      serve on an NVIDIA GPU (GPU=0 goes back); kept until said otherwise
#   OPENVINO=1 install OpenVINO too, for FIRSTREAD_ENGINE=openvino
#   PYTHON=... interpreter for a new .venv (3.11 or 3.12)
#   TEST_SERVERS=required  a server or tool that is not installed fails its tests, which are skipped otherwise
#   ARGS=...   further arguments for `firstread` or pytest

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.PHONY: help setup up demo test test-fast lint format docs soak bench dist lock sbom audit clean

export PYTHON
KIND := $(if $(filter 1,$(GPU)),--gpu,$(if $(filter 0,$(GPU)),--cpu)) $(if $(filter 1,$(OPENVINO)),--openvino)
SOURCES := firstread firstread_cli firstread_web dicom_listener worker training migrations tests tools deploy setup.py
ARGS ?=
PARTS ?=
PYTEST := .venv/bin/python -m pytest --durations=15 --durations-min=1
# side by side, a file in one process; those with servers, and those that kill processes, wait more than they compute
ONE_FILE := --dist=loadfile --no-loadscope-reorder
SIDE_BY_SIDE := $(ONE_FILE) --numprocesses=auto --maxprocesses=4
QUICK_TESTS := $(PYTEST) tests/unit $(SIDE_BY_SIDE)
UNIT_TESTS := $(PYTEST) tests/unit tests/training tests/tools tests/simulation $(SIDE_BY_SIDE)
SERVER_TESTS := $(PYTEST) tests/integration tests/fuzz $(ONE_FILE) --numprocesses=3
SYSTEM_TESTS := $(PYTEST) tests/system $(ONE_FILE) --numprocesses=2

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup:  ## Make .venv with everything that running and training need
	@requirements/install.sh $(KIND)

up: setup  ## Start the system: C-STORE on port 11112, an inbox folder, SQL results; Ctrl-C stops it
	@exec .venv/bin/firstread up $(ARGS)

demo: setup  ## Show the whole path on real pictures in a temporary home, then stop
	@exec .venv/bin/firstread demo $(ARGS)

test:  ## Run the tests; installs what they need first (ARGS="tests/unit -k name" for a part)
	@requirements/install.sh $(KIND) --test
	@requirements/system.sh test
	@code=0; $(if $(ARGS),$(PYTEST) $(ARGS) || code=$$?,\
	$(UNIT_TESTS) || code=$$?; $(SERVER_TESTS) || code=$$?; $(SYSTEM_TESTS) || code=$$?); \
	if [ $$code = 0 ]; then echo "make test: passed"; \
	else echo "make test: FAILED (pytest ended with $$code)"; exit $$code; fi

test-fast:  ## Run the tests without trainings, servers and processes (two minutes on two cores)
	@requirements/install.sh $(KIND) --test
	@$(QUICK_TESTS) $(ARGS)

lint:  ## Check style, types and the import contract
	@requirements/install.sh $(KIND) --test
	.venv/bin/ruff check $(wildcard $(SOURCES))
	.venv/bin/ruff format --check $(wildcard $(SOURCES))
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	@echo "make lint: passed"

format:  ## Format the code and sort its imports
	@requirements/install.sh $(KIND) --test
	.venv/bin/ruff check --fix $(wildcard $(SOURCES))
	.venv/bin/ruff format $(wildcard $(SOURCES))

# dicom-ai-router has requirements of its own, so it gets an environment of its own.
AI_ROUTER := dicom-ai-router==0.3.0
bench: setup  ## Measure everything that docs/performance.md shows on this machine (PARTS="receive flag" for some)
	@requirements/install.sh $(KIND) --test
	@requirements/system.sh test
	@test -x .tools/ai-router/bin/python || { $(or $(PYTHON),python3) -m venv .tools/ai-router && \
	.tools/ai-router/bin/pip -q install $(AI_ROUTER); } || { rm -rf .tools/ai-router; echo "left out: $(AI_ROUTER)"; }
	@.venv/bin/python -m tests.bench $(PARTS) $(ARGS)

# What is long. Each part goes on where another one failed; FUZZ_SECONDS is for each door, HISTORIES for the simulation.
FUZZ_SECONDS ?= 600
HISTORIES ?= 50000
soak: setup  ## What takes hours: fuzzers, whole networks, processes and hosts lost, every fault at every step (ARGS="--minutes 10")
	@requirements/install.sh $(KIND) --test --fuzz
	@requirements/system.sh test
	@test -x .tools/jax/bin/python || { .venv/bin/python -m venv .tools/jax && .tools/jax/bin/pip -q install \
	--no-deps --require-hashes --prefer-binary -r requirements/jax.txt; } || { rm -rf .tools/jax; echo "left out: JAX"; }
	@code=0; .venv/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS) || code=$$?; \
	.venv/bin/python -m tests.simulation --histories $(HISTORIES) || code=$$?; \
	$(PYTEST) -m soak tests/training || code=$$?; \
	.venv/bin/python -m tests.soak $(ARGS) || code=$$?; \
	.venv/bin/python -m tests.system.hosts_soak $(ARGS) || code=$$?; \
	.venv/bin/python -m tests.grid || code=$$?; \
	if [ $$code = 0 ]; then echo "make soak: passed"; else echo "make soak: FAILED"; exit 1; fi

dist: setup  ## Build wheel and images, run the commands of each, upgrade a filled home and go back (PARTS="wheel upgrade images")
	@requirements/install.sh $(KIND) --test
	@.venv/bin/python -m tools.dist $(PARTS) $(ARGS)

docs:  ## Write the generated tables of the documents anew
	@requirements/install.sh $(KIND) --test
	.venv/bin/python -m tools.docs.generate

# A lock names versions and hashes and neither an index nor a URL. What is pinned stays pinned unless UPGRADE=1.
UV_VERSION := 0.13.8
COMPILE := .tools/bin/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	--generate-hashes --no-emit-index-url --no-header $(if $(UPGRADE),--upgrade) pyproject.toml requirements/build.in
lock:  ## Write the lock files anew from pyproject.toml (UPGRADE=1: newest versions)
	@test -x .tools/bin/uv || { $(or $(PYTHON),python3) -m venv .tools && .tools/bin/pip -q install uv==$(UV_VERSION); }
	$(COMPILE) --extra cpu --extra train --extra s3 -o requirements/cpu.txt >/dev/null
	$(COMPILE) --extra gpu --extra train --extra s3 -c requirements/cpu.txt -o requirements/gpu.txt >/dev/null
	$(COMPILE) --extra s3 -c requirements/cpu.txt -o requirements/listener.txt >/dev/null
	$(COMPILE) --extra openvino -c requirements/cpu.txt -o requirements/openvino.txt >/dev/null
	$(COMPILE) --extra jax --extra train -c requirements/cpu.txt -o requirements/jax.txt >/dev/null
	$(COMPILE) --extra s3 --extra test --extra wandb --extra optimize -c requirements/cpu.txt -c requirements/openvino.txt \
		-o requirements/test.txt >/dev/null
	$(filter-out pyproject.toml requirements/build.in,$(COMPILE)) requirements/fuzz.in -o requirements/fuzz.txt >/dev/null

SBOM_TOOL := cyclonedx-bom==7.5.0
SBOM_LOCKS := cpu gpu listener
sbom:  ## Write a bill of materials (CycloneDX) of each lock, with licences, into build/
	@requirements/install.sh $(KIND) --test
	@test -x .tools/bin/cyclonedx-py || { $(or $(PYTHON),python3) -m venv .tools && .tools/bin/pip -q install $(SBOM_TOOL); }
	@mkdir -p build
	@for lock in $(SBOM_LOCKS); do .tools/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	--of JSON -o build/sbom-$$lock.json requirements/$$lock.txt; done
	@.venv/bin/python -m tools.sbom $(SBOM_LOCKS:%=build/sbom-%.json)

AUDIT_TOOL := pip-audit==2.10.1
audit:  ## Compare the locks with the advisories that are known for their packages; needs a network
	@test -x .tools/bin/pip-audit || { $(or $(PYTHON),python3) -m venv .tools && .tools/bin/pip -q install $(AUDIT_TOOL); }
	.tools/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/cpu.txt -r requirements/listener.txt

clean:  ## Remove .venv and caches; data homes are left alone
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build
