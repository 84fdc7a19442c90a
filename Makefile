# Two commands matter: `make demo` and `make test`. Both build .venv with the versions pinned in constraints.txt.
#
#   PYTHON=python3.12               another interpreter (at least 3.11)
#   ARGS="…"                        more arguments for what a target runs: `tightlip train`, pytest, mkdocs, a script
#   TORCH_INDEX_URL=…               an index for torch alone, such as one of CPU-only builds
#   RESULTS=runs                    where `make paper` looks for the rows (default: results)
#   PIP_INDEX_URL=, PIP_FIND_LINKS= pip's own settings, from the environment or given to make (make exports them)

PYTHON ?= python3
VENV   := .venv
ARGS   ?=
RESULTS ?= results

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
MANUAL := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs

# The stamps' names hold the interpreter's version and this folder: a tree that was moved or copied together with its
# .venv, or another PYTHON, gets a new environment instead of quietly running the old one.
KEY  := $(shell { $(PYTHON) --version; pwd; } 2>/dev/null | cksum | cut -d ' ' -f 1)
MADE := $(VENV)/.made-$(KEY)
RUN  := $(VENV)/.run-$(KEY)
TEST := $(VENV)/.test-$(KEY)
DEV  := $(VENV)/.dev-$(KEY)
DOCS := $(VENV)/.docs-$(KEY)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test sweeps conventions redteam fuzz mutants bench race distances paper docs docs-serve package lint format clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: $(RUN)  ## train on real images, audit, certify, attack; says where the page is
	@$(BIN)/tightlip train $(ARGS)

test: $(TEST)  ## every test, doctest and example, on two processes
	@$(BIN)/python -m pytest -n 2 -q --durations=10 $(ARGS)

sweeps: $(TEST)  ## the tests with every size and seed of the sweeps of which `make test` takes some
	@SWEEPS=1 $(BIN)/python -m pytest -n 2 -q --durations=10 tests $(ARGS)

redteam: $(TEST)  ## 10,000 networks against exact rationals, 1,000 on machines in float32, 1,000 distances against linear programs, 135 commands killed or without disk or power, from fresh seeds
	@$(BIN)/python scripts/redteam.py $(ARGS)

fuzz: $(TEST)  ## 1,000 damaged files for everything that reads one
	@$(BIN)/python scripts/fuzz.py $(ARGS)

mutants: $(TEST)  ## 50 changes to each part that proves, at random: do the tests see them? An hour of one core
	@$(PIP) install --quiet cosmic-ray==8.7.0
	@$(BIN)/python scripts/mutants.py $(ARGS)

conventions: $(TEST)  ## freezing, tying, copying … of weights at widths 64, 256 and 1024: up to an hour on two cores
	@CONVENTION_WIDTHS=64,256,1024 $(BIN)/python -m pytest -n 2 -q --durations=10 tests/conventions $(ARGS)

bench: $(RUN)  ## step times beside peers, as ratios within one run; writes results/step-time.json
	@$(PIP) install --quiet --no-deps geotorch==0.4.0 deel-torchlip==1.0.5 orthogonium==0.0.4 einops
	@$(BIN)/python benchmarks/step_time.py $(ARGS)

race: $(RUN)  ## processor seconds to a certified accuracy on MNIST beside peers, each at its best recipe; a day of one idle core
	@$(PIP) install --quiet --no-deps geotorch==0.4.0 deel-torchlip==1.0.5 orthogonium==0.0.4 einops
	@$(BIN)/python benchmarks/time_to_certificate.py search mnist $(ARGS)
	@$(BIN)/python benchmarks/time_to_certificate.py race mnist $(ARGS)

distances: $(RUN)  ## distances beside POT, how often intervals hold, samples of 10⁷ points: three rows of results/, an hour of one core
	@$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[transport]'
	@$(BIN)/python benchmarks/distances.py
	@$(BIN)/python benchmarks/distances.py d16-100000
	@$(BIN)/python benchmarks/coverage.py
	@$(BIN)/python benchmarks/large_samples.py --critic linear

# The experiments of `tightlip list`, in its order; those without rows are named and left out.
paper: $(RUN)  ## every table and figure of the paper that has rows in results/, on one page: paper.html
	@there=; absent=; for name in $$($(BIN)/tightlip list | cut -d ' ' -f 1); do \
	  if ls "$(RESULTS)/$$name"/*seed*.json >/dev/null 2>&1; then there="$$there $(RESULTS)/$$name"; \
	  else absent="$$absent $$name"; fi; done; \
	if [ -n "$$absent" ]; then echo "Left out for want of rows in $(RESULTS)/:$$absent"; fi; \
	if [ -z "$$there" ]; then \
	  echo "None has rows: make them with '$(BIN)/tightlip run NAME --preset paper --output $(RESULTS)'" >&2; exit 1; fi; \
	$(BIN)/tightlip report $$there --output paper.html

docs: $(DOCS)  ## the manual as a site, in site/; a broken link or an unknown name is an error
	@$(MANUAL) build --strict $(ARGS)

docs-serve: $(DOCS)  ## the same on a port of this machine, made anew as files change
	@$(MANUAL) serve $(ARGS)

package: $(DEV)  ## source distribution and wheel in dist/, installed in an environment of its own and used there
	@$(BIN)/python scripts/smoke_package.py $(ARGS)

lint: $(DEV)  ## ruff and mypy, changing nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(DEV)  ## ruff, changing files
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## removes .venv, build products and caches; keeps runs/
	rm -rf "$(VENV)" build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# One chain, made -> run -> test -> dev -> docs, so that `make -j` never runs two pips in one environment.

$(MADE):
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "There is no '$(PYTHON)' on this machine: install Python 3.11 or newer, or name one with PYTHON=…" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tightlip needs Python 3.11 or newer and '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1): name another with PYTHON=…" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' lacks the venv module: install it (Debian and Ubuntu: the package python3-venv), then run make again." >&2; exit 1; }
	@echo "Making $(VENV) …"
	@"$(PYTHON)" -m venv --clear "$(VENV)"
	@touch $@

# torch goes first and alone, so that it may come from an index of its own; the second call brings what it needs.
$(RUN): $(MADE) constraints.txt pyproject.toml
	@echo "Installing torch (large) and the pinned packages …"
	@$(PIP) install --no-deps $(if $(TORCH_INDEX_URL),--index-url "$(TORCH_INDEX_URL)") "$$(grep '^torch==' constraints.txt)"
	@$(PIP) install --quiet -c constraints.txt hatchling editables
	@$(PIP) install --quiet -c constraints.txt --no-build-isolation -e .
	@touch $@

$(TEST): $(RUN)
	@$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[test]'
	@touch $@

$(DEV): $(TEST)
	@$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# axe-core, which looks at pages in tests, comes inside a package whose own needs are not needed.
$(DOCS): $(DEV)
	@$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[docs]'
	@$(PIP) install --quiet --no-deps axe-playwright-python==0.1.8
	@touch $@
