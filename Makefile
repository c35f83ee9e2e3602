# The commands of this project; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

# Real peers of the tests, as Debian calls them.
SYSTEM_PACKAGES ?= dcmtk dicom3tools mosquitto mosquitto-clients orthanc orthanc-dicomweb chromium \
  openssl strace cryptsetup-bin e2fsprogs dcm2niix
# More arguments for demo, unit, soak and lock, such as: make demo ARGS=--once
ARGS ?=
# Which Python the virtual environment is made with; empty: the first suitable one.
PYTHON ?=
export PYTHON

BIN := .venv/bin
# Unit tests share nothing, so that several processes take a file each; two for each core of a small
# machine, for they wait as long as they compute.
PARALLEL := -n 4 --dist loadfile
# Tests with real peers, and all else that is not a unit test; the longest files first, lest one of
# them begins when the others have ended. Those that are marked `alone` run by themselves after them.
LARGER_TESTS := $(wildcard tests/acceptance tests/fuzz tests/benchmarks tests/integration tests/golden)
PARALLEL_LARGER := -n 2 --dist loadfile --no-loadscope-reorder

# Debian puts the broker and the PACS where only root looks.
export PATH := $(PATH):/usr/sbin
# The tests run from another folder: a relative path would point elsewhere there.
ifdef EDGE_TRIAGE_TEST_DATA
export EDGE_TRIAGE_TEST_DATA := $(abspath $(EDGE_TRIAGE_TEST_DATA))
endif

.PHONY: help demo test setup setup-device lint wheel unit coverage soak fuzz lock licences clean

help: ## List the commands
	@echo "usage: make COMMAND [ARGS='...'] [PYTHON=python3.12]"
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: setup-device ## Set up everything, then run a whole device with a scanner, a PACS and a page
	@exec $(BIN)/edge-triage demo $(ARGS)

# Its words go to standard error: `make demo ARGS=--once` prints one JSON object and nothing else.
setup-device:
	@requirements/install-python device >&2

setup: ## Set up .venv for developing (the project stands in it editable)
	@requirements/install-python dev
	requirements/install-pycuda

lint: setup ## Check style, format, types and import directions
	@failed=0
	$(BIN)/ruff check . || failed=1
	$(BIN)/ruff format --check . || failed=1
	$(BIN)/mypy || failed=1
	$(BIN)/lint-imports --no-logo || failed=1
	exit $$failed

unit: setup ## Run the unit tests on the checkout
	@$(BIN)/pytest $(PARALLEL) tests/unit $(ARGS)

coverage: setup ## Say which branches the unit tests do not reach; twice as slow as `make unit`
	@COVERAGE_FILE=.make/coverage $(BIN)/pytest tests/unit --cov $(ARGS)

soak: setup ## Run the tests that take many minutes, on the checkout
	@$(BIN)/pytest -m soak $(ARGS)

# What a run finds new is kept in .make/fuzz, beside the seeds in tests/fuzz/corpus.
FUZZ_SECONDS ?= 600
fuzz: setup ## Fuzz every target for FUZZ_SECONDS (600), on the checkout
	@for target in pdu data_set; do
	  mkdir -p ".make/fuzz/$$target"
	  TMPDIR=$$([ -d /dev/shm ] && echo /dev/shm || echo /tmp) \
	    $(BIN)/python "tests/fuzz/fuzz_$$target.py" ".make/fuzz/$$target" "tests/fuzz/corpus/$$target" \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -len_control=0 -timeout=30 -rss_limit_mb=2048 \
	    -artifact_prefix=".make/fuzz/" -print_final_stats=1 $(ARGS)
	done

wheel: setup ## Build the wheel and install it where `make test` runs it
	@requirements/install-wheel

# Every check runs even when one before it failed, so that one run tells all; nothing can run
# without the setup. The tests run in a folder from which the checkout cannot be imported.
test: ## Set up everything, system packages too, and run all checks and tests
	@summary=() failed=0
	step() {
	  local name=$$1 started=$$SECONDS verdict=ok
	  shift
	  printf '\n==> %s\n' "$$name"
	  "$$@" || { verdict=FAILED; failed=1; }
	  summary+=("$$(printf '%-34s %6d s  %s' "$$name" $$((SECONDS - started)) $$verdict)")
	}
	finish() {
	  printf '\n==> The steps and their times\n'
	  printf '    %s\n' "$${summary[@]}" "$$(printf '%-34s %6d s' 'all' $$SECONDS)"
	  exit $$failed
	}
	tests() {
	  local top=$$PWD
	  cd .make/wheel
	  bin/python -m pytest -c "$$top/pyproject.toml" --rootdir="$$top" "$$@"
	}
	from_here() { printf "$$PWD/%s\n" "$$@"; }
	unit() (tests $(PARALLEL) $$(from_here tests/unit))
	larger() (tests $(PARALLEL_LARGER) -m 'not soak and not alone' $$(from_here $(LARGER_TESTS)))
	alone() (tests -m 'alone and not soak' $$(from_here $(LARGER_TESTS)))
	step 'system packages' requirements/install-system $(SYSTEM_PACKAGES)
	[ $$failed -eq 0 ] || finish
	step 'python packages' requirements/install-python dev
	[ $$failed -eq 0 ] || finish
	step 'pycuda, where CUDA is' requirements/install-pycuda
	step 'ruff check' $(BIN)/ruff check .
	step 'ruff format' $(BIN)/ruff format --check .
	step 'mypy' $(BIN)/mypy
	step 'import directions' $(BIN)/lint-imports --no-logo
	step 'wheel' requirements/install-wheel
	step 'unit tests, on the wheel' unit
	step 'tests with real peers, on the wheel' larger
	step 'whole devices, on the wheel' alone
	finish

# Versions stay where the ranges still allow them, unless: make lock ARGS=--upgrade
COMPILE = .make/lock/bin/uv --quiet pip compile --universal --python-version 3.10 \
  -c requirements/constraints.in --generate-hashes --no-emit-index-url --no-emit-find-links \
  --custom-compile-command 'make lock'
lock: ## Write the pins in requirements/*.txt anew from pyproject.toml
	@[ -x .make/lock/bin/uv ] || {
	  "$${PYTHON:-python3}" -m venv .make/lock
	  .make/lock/bin/python -m pip install --quiet --require-hashes -r requirements/lock.txt
	}
	$(COMPILE) $(ARGS) pyproject.toml -o requirements/device.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra dev -c requirements/device.txt -o requirements/dev.txt
	$(COMPILE) $(ARGS) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	$(COMPILE) $(ARGS) requirements/pycuda.in -c requirements/dev.txt -o requirements/pycuda.txt
	$(COMPILE) $(ARGS) requirements/lock.in -o requirements/lock.txt

licences: setup ## Write the tables of docs/licences.md anew from the pins
	@$(BIN)/python requirements/licences.py

clean: ## Remove everything that the other commands made
	rm -rf .venv .make .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
