# One verb each; `make help` lists them. Every verb does its own set-up, in .venv.

PYTHON ?= python3
BIN := .venv/bin
STARTED := $(shell date +%s)
ELAPSED = echo "elapsed: $$(( $$(date +%s) - $(STARTED) )) s, set-up included"
PIP = -m pip install --quiet --disable-pip-version-check
LOCKED = $(BIN)/python $(PIP) --require-hashes
OURS = $(BIN)/python $(PIP) --no-deps --no-build-isolation

.PHONY: help setup demo test test-slow check sanitize fuzz fuzz-native fuzz-http bench lock images sbom audit clean
.DEFAULT_GOAL := help

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: .venv/.dev .venv/.native ## install everything that development needs into .venv (nothing to do when it is up to date)

demo: .venv/.runtime .venv/.native ## classify 20 encrypted digits over HTTP; needs neither torch nor a data set
	@$(BIN)/python -m heinfer demo --started $(STARTED)

# A file's tests stay in one process: they share its services and keys.
PYTEST = $(BIN)/python -m pytest tests --numprocesses auto --maxprocesses 4 --dist loadfile

test: .venv/.dev .venv/.native ## the tests that run on every change
	@$(PYTEST) -m "not slow"
	@$(ELAPSED)

test-slow: .venv/.dev .venv/.native ## the tests that start processes, train, attack the service or build environments
	@$(PYTEST) -m slow
	@$(ELAPSED)

check: .venv/.dev .venv/.native ## style, types, direction of imports; the native code under sanitizers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory sanitize

# Not to look for leaks: the interpreter itself never frees all it has. tests/backends/test_native_runs.py watches the memory.
SANITIZER := $(shell c++ -print-file-name=libasan.so 2>/dev/null | grep /)
SANITIZED = PYTHONPATH=build/sanitized PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$(SANITIZER) $$(c++ -print-file-name=libstdc++.so)"

sanitize: .venv/.dev build/.sanitized ## the native evaluator's tests on small rings, under address and undefined-behaviour sanitizers
ifeq ($(SANITIZER),)
	@echo "not run under sanitizers: that takes GCC with libasan"
else
	@$(SANITIZED) $(BIN)/python -c 'import heinfer_native; assert "sanitized" in heinfer_native.__file__'
	@$(SANITIZED) $(BIN)/python -m pytest -p no:cacheprovider --capture=sys \
		$(addprefix tests/backends/test_native_, circuits.py malformed.py kernels.py constants.py exact.py) \
		-k 'not at_every_level and not 131072'
endif

FUZZ_SECONDS ?= 60

fuzz: .venv/.fuzz ## fuzz the frame reader for FUZZ_SECONDS (60), from tests/fuzz/corpus on; findings stay in build/fuzz
	@mkdir -p build/fuzz/corpus
	@$(BIN)/python tests/fuzz/fuzz_frames.py build/fuzz/corpus tests/fuzz/corpus -artifact_prefix=build/fuzz/ \
		-max_total_time=$(FUZZ_SECONDS) -max_len=2048 -print_final_stats=1 -verbosity=0

NATIVE_SOURCES = $(filter-out %/module.cpp,$(wildcard native/src/*.cpp native/src/operations/*.cpp)) native/src/kernels/portable.cpp

fuzz-native: .venv/.native build/fuzz-native/target ## fuzz the native library's reader of programs, and runs of them, for FUZZ_SECONDS (60); needs clang
	@mkdir -p build/fuzz-native/corpus
	@$(BIN)/python tests/fuzz/program_seeds.py build/fuzz-native/corpus
	@build/fuzz-native/target build/fuzz-native/corpus tests/fuzz/programs -artifact_prefix=build/fuzz-native/ \
		-max_total_time=$(FUZZ_SECONDS) -max_len=2048 -print_final_stats=1 -verbosity=0

build/fuzz-native/target: tests/fuzz/program_target.cpp $(shell find native/src -type f)
	@mkdir -p build/fuzz-native
	@clang++ -std=c++20 -O1 -g -Wno-psabi -Inative/src -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
		tests/fuzz/program_target.cpp $(NATIVE_SOURCES) -lpthread -o $@

fuzz-http: .venv/.dev build/.schemathesis ## fuzz a running service by its OpenAPI description for FUZZ_SECONDS (60)
	@$(BIN)/python tests/fuzz/openapi.py $(CURDIR)/build/schemathesis/bin/schemathesis $(FUZZ_SECONDS)

bench: .venv/.dev .venv/.native ## measure everything that documents quote into benchmarks/results, and draw it
	$(BIN)/python -m benchmarks latency --json benchmarks/results/latency.json
	$(BIN)/python -m benchmarks latency --policy heinfer --json benchmarks/results/latency-any-upload.json
	$(BIN)/python -m benchmarks accuracy --json benchmarks/results/accuracy.json
	$(BIN)/python -m benchmarks prediction --json benchmarks/results/prediction.json
	$(BIN)/python -m benchmarks primitives --json benchmarks/results/primitives.json
	$(BIN)/python -m benchmarks plan-by-backend --json benchmarks/results/plan-by-backend.json
	$(BIN)/python -m benchmarks startup --json benchmarks/results/startup.json
	$(BIN)/python -m benchmarks lower-bound --json benchmarks/results/lower-bound.json
	$(BIN)/python -m benchmarks constants --json benchmarks/results/constants.json
	$(BIN)/python -m benchmarks constants --sized "c13 64-256-256" --json benchmarks/results/constants-limited.json
	$(BIN)/python -m benchmarks neighbour --json benchmarks/results/neighbour.json
	$(BIN)/python -m benchmarks sweep --json benchmarks/results/sweep.json
	$(BIN)/python -m benchmarks policies --json benchmarks/results/policies.json
	$(BIN)/python -m benchmarks service --json benchmarks/results/service.json
	$(BIN)/python -m benchmarks fairness --json benchmarks/results/fairness.json
	for network in cifar-fast cifar-accurate; do for backend in native tenseal; do \
		$(BIN)/python -m benchmarks latency --network $$network --backend $$backend \
			--json benchmarks/results/latency-$$network-$$backend.json || exit 1; done; \
		$(BIN)/python -m benchmarks accuracy --network $$network --images 200 --cleartext 1000 \
			--json benchmarks/results/accuracy-$$network.json || exit 1; done
	$(BIN)/python -m benchmarks forms --count --json benchmarks/results/forms.json
	$(BIN)/python -m benchmarks layouts
	$(BIN)/python -m benchmarks example
	$(BIN)/python -m benchmarks peers --json benchmarks/results/peers.json
	$(BIN)/python -m benchmarks plots

# PyTorch has other files, and on Linux other dependencies, for each kind of processor and GPU: constraints.txt pins its
# version, nothing its files. What trains needs it; client and server do not.
NOT_LOCKED = torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime \
	nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 \
	nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx
UV = build/lock/bin/uv pip compile --quiet --native-tls --universal --python-version 3.11 --generate-hashes --no-annotate \
	--constraint constraints.txt --custom-compile-command "make lock"

lock: build/.lock ## write requirements/*.lock anew: the versions of constraints.txt, the SHA-256 of every file of them
	@$(UV) --extra server --extra signing pyproject.toml --output-file requirements/server.lock
	@$(UV) --extra client --extra protected pyproject.toml --output-file requirements/client.lock
	@$(UV) --extra dev $(NOT_LOCKED:%=--no-emit-package %) pyproject.toml --output-file requirements/dev.lock
	@$(UV) requirements/build.in --output-file requirements/build.lock
	@$(UV) requirements/audit.in --output-file requirements/audit.lock

images: ## pin the container images by the digests that their registry names now
	@$(PYTHON) requirements/pin_images.py Dockerfile docker-compose.yml

sbom: build/.audit ## write what client and server consist of into build/sbom, as CycloneDX
	@mkdir -p build/sbom
	@for part in server client; do \
		build/audit/bin/cyclonedx-py requirements requirements/$$part.lock --pyproject pyproject.toml \
			--output-reproducible --validate --output-file build/sbom/$$part.cdx.json || exit 1; \
		echo "build/sbom/$$part.cdx.json"; done

audit: build/.audit ## look up known vulnerabilities of all that is pinned; exit code 2 when it could not look
	@$(PYTHON) requirements/audit.py build/audit/bin/pip-audit constraints.txt requirements/server.lock \
		requirements/client.lock requirements/build.lock requirements/audit.lock

clean: ## remove caches and builds; .venv stays
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# Two stamps on one environment: what runs the product, and all of it. The larger holds the smaller.

LOCKS = requirements/build.lock requirements/server.lock requirements/client.lock

.venv/.runtime: pyproject.toml $(LOCKS) | $(BIN)/python
	@echo "installing the client and the server into .venv ..."
	@$(LOCKED) $(LOCKS:%=--requirement %)
	@$(OURS) --editable .
	@touch $@

.venv/.dev: pyproject.toml constraints.txt requirements/build.lock requirements/dev.lock | $(BIN)/python
	@echo "installing the development environment into .venv (with PyTorch: a few minutes) ..."
	@$(LOCKED) --requirement requirements/build.lock --requirement requirements/dev.lock
	@$(BIN)/python $(PIP) --constraint constraints.txt torch
	@$(OURS) --editable .
	@touch .venv/.runtime $@

# The fast evaluator, where a C++ compiler is; heinfer works without it.
.venv/.native: $(shell find native -type f -not -path 'native/build/*') | $(BIN)/python .venv/.runtime
	@if command -v c++ >/dev/null && $(OURS) ./native; \
	then touch $@; \
	else echo "heinfer-native is not built (no working C++ compiler): the tenseal backend serves, about eight times slower"; fi

.venv/.fuzz: .venv/.dev
	@$(BIN)/python $(PIP) --constraint constraints.txt atheris
	@touch $@

# In an environment of its own: it pins much that we use too.
build/.schemathesis: | $(BIN)/python
	@mkdir -p build
	@$(PYTHON) -m venv build/schemathesis
	@build/schemathesis/bin/python $(PIP) schemathesis==4.32.5
	@touch $@

build/.lock:
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python $(PIP) uv==0.13.9
	@touch $@

build/.audit: requirements/audit.lock
	@$(PYTHON) -m venv build/audit
	@build/audit/bin/python $(PIP) --require-hashes --requirement $<
	@touch $@

build/.sanitized: $(shell find native -type f -not -path 'native/build/*') | .venv/.dev
ifneq ($(SANITIZER),)
	@echo "building heinfer-native with sanitizers into build/sanitized ..."
	@rm -rf build/sanitized
	@$(OURS) --target build/sanitized \
		--config-settings cmake.define.HEINFER_SANITIZE=ON --config-settings build-dir=build/sanitizing ./native
	@touch $@
endif

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "heinfer needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv .venv
