# Needs python3 (3.11 or newer) with venv, make and a C++ compiler; everything else is installed here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --use-pep517 --disable-pip-version-check --constraint constraints.txt

# Digits networks in every weight scheme, and the arrays that run them.
SCHEMES := int4:digit int4:fusion int4:sign int4:shift shift4:shift shift5:shift focused5:shift xor0.8:sign xor1.6:sign basis2:sign \
  lq2a2:sign binary:sign \
  mixed:digit mixed:fusion mixed:sign mixed:shift allocated4:digit allocated4:fusion bayesian:digit bayesian:fusion bayesian:sign bayesian:shift

.PHONY: setup demo test regress bench gates clean icarus clang lint types

# The core install runs exported networks; the full one adds every extra.
$(VENV)/core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python must be 3.11 or newer, not $$($(PYTHON) --version)"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "error: Python must have venv: apt-get install python3-venv"; exit 2; }
	@echo "installing the core into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/full: $(VENV)/core
	@echo "installing all extras into $(VENV) (PyTorch among them) ..."
	@$(PIP) --editable '.[quant,rtl,plot,dev]'
	@touch $@

# Icarus comes first: where it is missing, nobody waits for PyTorch to be told so.
setup: icarus clang $(VENV)/full

demo: $(VENV)/core
	@$(BIN)/gatewise demo

# Icarus Verilog comes from Debian; it is installed where that is allowed.
icarus:
	@if command -v iverilog >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing Icarus Verilog ..."; \
	  { apt-get install -qq -y iverilog || { apt-get update -qq && apt-get install -qq -y iverilog; }; } >/dev/null 2>&1 \
	    || { echo "error: Icarus Verilog must be installed: apt-get install iverilog"; exit 2; }; \
	else \
	  echo "error: Icarus Verilog must be installed: sudo apt-get install iverilog"; exit 2; \
	fi

# clang compiles the engine for co-simulation several times faster than g++, which serves where clang cannot be had.
clang:
	@if command -v clang++ >/dev/null || ls /usr/bin/clang++-1[4-9] >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing clang ..." && \
	  { apt-get install -qq -y --no-install-recommends clang \
	    || { apt-get update -qq && apt-get install -qq -y --no-install-recommends clang; }; } >/dev/null 2>&1; then :; \
	else \
	  echo "note: g++ will compile the engine, several times slower than clang: sudo apt-get install clang"; \
	fi

lint: $(VENV)/full
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

# mypy wants the package under its own name: the repository's root is the package.
types: $(VENV)/full
	@mkdir -p build/typing && ln -sfn ../.. build/typing/gatewise
	@MYPYPATH=build/typing $(BIN)/mypy -p gatewise.kernels -p gatewise.sim -p gatewise.quant -p gatewise.rtl -p gatewise.cli

# Each process takes a half of the tests in order, so that tests of one build mostly meet in one process.
test: setup lint types
	@$(BIN)/python -m pytest -n 2 --dist worksteal --durations=10

regress: setup
	@$(BIN)/gatewise regress
	@$(BIN)/python bench/blocks.py --check
	@$(BIN)/gatewise regress --random 300
	@set -e; for run in $(SCHEMES); do $(BIN)/gatewise regress --network sim/digits/digits-$${run%:*}.gw \
	  --engine sim/digits/engine-$${run#*:}.toml --data sim/digits/test.npz --images 10; done

bench: $(VENV)/full
	@$(BIN)/python bench/kernels.py

# Every figure that gates are part of, counted anew unless it is in the caches of syntheses and engines.
gates: $(VENV)/full
	@$(BIN)/python bench/gate_pages.py

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
