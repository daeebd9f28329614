# Every target sets itself up in a virtual environment; nothing but Python and a network is needed.
PYTHON ?= python3
VENV ?= .venv
DIST ?= dist
BIN := $(VENV)/bin
SETUP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := $(shell find csrc build_backend -name '*.py' -o -type f -path 'csrc/*')

# Tests at a time; every process has its own memory of torch, 1 GB and more
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
PYTEST := -m pytest --numprocesses $(JOBS) --dist worksteal

OP_TESTS := $(addprefix tests/test_,upfirdn2d.py functions.py gradients.py nonfinite.py bias_act.py filtered_act.py \
	doors.py compile.py transforms.py errors.py layers.py dimensions.py)
OLDEST_TESTS := $(addprefix tests/test_,distributed.py export.py coexistence.py)

.PHONY: demo test test-native test-oldest lint format bench parity fuzz-checkpoints resources check wheel test-wheel clean

demo: $(VENV)/.examples  ## train the StyleGAN2 of the examples on handwritten digits
	$(BIN)/python -m examples.stylegan.train --out runs/demo --overwrite

test: $(VENV)/.test  ## all tests
	$(BIN)/python $(PYTEST)

test-native: $(VENV)/.test  ## the op's and the layers' tests once more, without compiled kernels
	RESAMPLE_LAYERS_BACKEND=native $(BIN)/python $(PYTEST) $(OP_TESTS)

test-oldest: $(VENV)/.test $(VENV)-oldest/.test  ## the same on the oldest torch that is served
	$(VENV)-oldest/bin/python $(PYTEST) $(OP_TESTS) $(OLDEST_TESTS)

lint: $(VENV)/.dev  ## formatter and linter, without changing a file, and the type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## let the formatter and the linter change the files
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench  ## time everything; writes benchmarks/RESULTS.md, its plots and rows
	$(BIN)/python -m benchmarks

parity: $(VENV)/.test  ## compare the StyleGAN2 with the original codes; PEERS=DIR has their checkouts
	$(if $(PEERS),,$(error parity needs PEERS=DIR, a folder of checkouts: see scripts/parity.py))
	$(BIN)/python scripts/parity.py $(PEERS)

fuzz-checkpoints: $(VENV)/.test  ## give FILES broken and malicious files to the checkpoints' reader
	$(BIN)/python scripts/fuzz_checkpoints.py --files $(or $(FILES),100000)

resources: $(VENV)/.build  ## registers and spills of all CUDA kernels; needs nvcc, no GPU
	$(BIN)/python tests/cuda_host/check_resources.py

check:  ## what CI checks
	.ci/run

# TORCH_CUDA_ARCH_LIST=8.6 after make wheel chooses one; with nothing after the sign, it is as if
# the variable were not set
wheel: export TORCH_CUDA_ARCH_LIST = all
wheel: $(VENV)/.build  ## one wheel for every Python and torch, in dist/; all GPU architectures
	$(BIN)/python -m pip wheel --no-build-isolation --no-deps --wheel-dir "$(DIST)" .

test-wheel: $(BIN)/python  ## build a wheel and test it on several Pythons and versions of torch
	$(BIN)/python scripts/test_wheel.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

# What compiles the kernels. Installed once, here: an isolated build would install torch anew
$(VENV)/.build: | $(BIN)/python
	$(SETUP) "setuptools>=77" ninja "torch>=2.11"
	touch $@

$(VENV)/.examples $(VENV)/.test $(VENV)/.bench $(VENV)/.dev: pyproject.toml setup.py $(SOURCES) | $(VENV)/.build
	$(SETUP) --no-build-isolation --editable ".[$(patsubst .%,%,$(notdir $@))]"
	touch $@

$(VENV)-oldest/.test:
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
		"torch==2.11.*" "pytest>=8" pytest-xdist hypothesis numpy scipy
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest build dist resample_layers/lib *.egg-info .pytest_cache .mypy_cache .ruff_cache
