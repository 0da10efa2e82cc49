# Needs Rust (stable), CPython 3.10 or later, git and make; everything else comes into .venv. `make` alone prints help.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell scripts/pythons | head -n 1 | cut -d ' ' -f 2)
BIN := .venv/bin
export PATH := $(HOME)/.cargo/bin:$(PATH)
# One interpreter for every build of the bindings, or each would build pyo3 anew.
export PYO3_PYTHON = $(CURDIR)/$(BIN)/python

CARGO := cargo --locked
SOURCES := $(shell find src python -type f -not -name '*.pyc') Cargo.toml Cargo.lock pyproject.toml README.md

.PHONY: help
help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.wheel ## Make .venv, with all tools and the package in it

.PHONY: demo
demo: .venv/.wheel ## Show it: a fan-out of several hundred SDK calls against a strict provider, a minute and a half
	$(BIN)/penstock demo $(ARGS)

.PHONY: test
test: .venv/.wheel ## Run every check and every test, on each CPython 3.10 to 3.13 that is found
	scripts/test

.PHONY: check
check: .venv/.wheel ## The inner loop: formatting, lints, the core's tests, the quick Python tests
	cargo fmt --check
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	@$(MAKE) --no-print-directory -j 5 check-rust $(PARTS)

# Tests of the core that take many seconds; `make test` runs them.
SLOW := the_documentation_shows_these_figures

# Tests in Python wait as much as they compute: four parts of them, by first letters, run side by side.
PARTS := $(addprefix check-python-,a-e f g-o p-z)

.PHONY: check-rust $(PARTS)
check-rust: export MAKEFLAGS = # cargo has jobs of its own
check-rust:
	$(CARGO) clippy --quiet --all-targets -- -D warnings
	PENSTOCK_FUZZ_ITERATIONS=20000 $(CARGO) test --quiet -- $(addprefix --skip ,$(SLOW))
$(PARTS): check-python-%:
	$(BIN)/python -m pytest -m "not slow" -p no:cacheprovider tests/python/test_[$*]*.py

.PHONY: lint
lint: .venv/.wheel ## Formatting, lints and types, in Rust and Python
	cargo fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --all-targets --features python -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest penstock._core

.PHONY: bench
bench: .venv-bench/.wheel ## Measure the core alone, and Penstock beside its peers
	$(CARGO) bench
	.venv-bench/bin/python benches/peers.py $(ARGS)
	scripts/servers memcached redis-server
	.venv-bench/bin/python benches/processes.py
	.venv-bench/bin/python benches/wakes.py

.PHONY: fuzz
fuzz: ## New cases of each property, and ten million mutated answers of providers; SEED and ITERATIONS choose them
	PROPTEST_RNG_SEED=$(or $(SEED),$(shell date +%s)) PROPTEST_CASES=$(or $(CASES),20000) $(CARGO) test --release \
		--test bucket --test discovery --test estimate --test provider --test provider_usage --test retry
	PENSTOCK_FUZZ_SEED=$(or $(SEED),$(shell date +%s)000000000) PENSTOCK_FUZZ_ITERATIONS=$(or $(ITERATIONS),10000000) \
		$(CARGO) test --release --test fuzz_provider -- --nocapture

.PHONY: loom
loom: ## Try more orders of accesses in the protocol of shared memory than the tests do
	scripts/loom

.PHONY: wheel
wheel: dist/.wheel ## Build the wheel into dist/, one for every CPython from 3.10 on
	@ls -l dist/*.whl

.PHONY: clean
clean: ## Remove what was built, and every .venv
	cargo clean --quiet
	rm -rf dist .venv .venv-* .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# Stamps: what follows is made again only when what it is made of has changed.

.venv/.tools: pyproject.toml scripts/venv scripts/install
	scripts/venv .venv "$(PYTHON)"
	scripts/install .venv --group dev --group sdks
	touch $@

dist/.wheel: .venv/.tools $(SOURCES)
	rm -rf dist
	$(BIN)/maturin build --quiet --release --locked --out dist
	touch $@

.venv/.wheel: dist/.wheel
	scripts/install .venv --force-reinstall --no-deps dist/*.whl
	touch $@

.venv-3.%/.wheel: dist/.wheel
	scripts/venv .venv-3.$* "$$(scripts/pythons | awk '$$1 == "3.$*" { print $$2 }')"
	scripts/install .venv-3.$* --group test
	scripts/install .venv-3.$* --force-reinstall --no-deps dist/*.whl
	touch $@

.venv-%/.framework: dist/.wheel tests/python/frameworks/%/requirements.txt
	scripts/venv .venv-$* "$(PYTHON)"
	scripts/install .venv-$* -r tests/python/frameworks/$*/requirements.txt
	scripts/install .venv-$* --force-reinstall --no-deps dist/*.whl
	touch $@

.venv-bench/.wheel: dist/.wheel benches/requirements-peers.txt
	scripts/venv .venv-bench "$(PYTHON)"
	scripts/install .venv-bench -r benches/requirements-peers.txt
	scripts/install .venv-bench --force-reinstall --no-deps dist/*.whl
	touch $@
