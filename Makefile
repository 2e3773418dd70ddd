# Everything here needs make and one Python, 3.11 or newer. Each target makes the virtual
# environment that it runs in; nothing is installed outside this directory.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev,test
DEMO_VENV ?= $(VENV)-demo
FRAMEWORKS_VENV ?= $(VENV)-frameworks
URL ?= demo.db
TESTS ?=
SEEDS ?= 20000
SECONDS ?= 3600
KILLS ?= 1000
TRACES ?= 200
HISTORIES ?= /tmp/kvstore-histories.db
ARGS ?=
WORKERS ?= auto

BIN = $(VENV)/bin
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
CODE = $(wildcard kvstore migrations tests benchmarks)
CORE_TESTS = $(addprefix tests/,unit flow sqlite conformance/test_memory.py conformance/test_sqlite.py)
FRAMEWORKS_TESTS = $(addprefix tests/integrations/test_,deepagents.py frameworks_page.py google_adk.py haystack.py \
	langchain.py llama_index.py openai_agents.py lifetimes.py) tests/examples

# What Python has compiled it keeps, whatever the surroundings say: each test process would do it anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo docs release test test-slow test-fast test-frameworks simulate histories crash-states lint format type bench bench-quick build

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12  another interpreter (give VENV=... with it)"
	@echo "  URL=other.db       another store for the demo"
	@echo "  TESTS=tests/docs   some of the tests; ARGS='-k ttl -x' goes to pytest"
	@echo "  WORKERS=0          tests one after the other, as --pdb needs it"

install: $(VENV)/ready ## a virtual environment for development, in .venv

# The core alone, as a user would install it; for a PostgreSQL URL, with its extra.
demo: $(DEMO_VENV)/ready $(if $(filter postgres%,$(URL)),$(DEMO_VENV)/postgres) ## show the store at work; run it twice
	@$(DEMO_VENV)/bin/python -m kvstore.examples.demo "$(URL)"

test: $(VENV)/ready ## the tests, in some minutes
	$(PYTEST) -m "not slow" $(ARGS) $(TESTS)

test-slow: $(VENV)/ready ## those that install, kill or grow something real
	$(PYTEST) -m slow $(ARGS) $(TESTS)

test-fast: $(VENV)/ready ## those of the core, in a minute
	$(PYTEST) -m "not slow" $(ARGS) $(CORE_TESTS)

simulate: $(VENV)/ready ## SEEDS=20000 schedules of concurrent calls, cancelled and failing
	$(BIN)/python -m tests.simulation.schedules --seeds $(SEEDS) $(ARGS)

histories: $(VENV)/ready ## processes on one file for SECONDS=3600 and KILLS=1000, killed and judged
	$(BIN)/python -m tests.faults.histories --seconds $(SECONDS) --kills $(KILLS) --file $(HISTORIES) $(ARGS)

crash-states: $(VENV)/ready ## TRACES=200 of what reaches the disk, and each state that a crash could leave
	KVSTORE_CRASH_TRACES=$(TRACES) $(BIN)/python -m pytest -q \
		-rP -o faulthandler_timeout=0 tests/faults/test_crash_states.py $(ARGS)

test-frameworks: $(FRAMEWORKS_VENV)/ready ## the adapters, by the frameworks' own suites (700 MB)
	$(FRAMEWORKS_VENV)/bin/python -m pytest --noconftest $(ARGS) $(FRAMEWORKS_TESTS)

lint: $(VENV)/ready ## the whole gate before a commit
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict $(CODE)
	$(BIN)/codespell
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/docs/test_changelog.py

type: $(VENV)/ready ## check the types
	$(BIN)/mypy --strict $(CODE)

format: $(VENV)/ready ## sort imports and lay the code out
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format

bench: $(VENV)/bench ## measure, and write the tables and the charts
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-quick: $(VENV)/bench ## the same on little data, in a minute or two
	$(BIN)/python -m benchmarks.run --quick $(ARGS)

docs: $(VENV)/docs ## the documentation site, in build/site
	$(BIN)/zensical build --clean --strict

release: $(VENV)/release docs lint ## build and check what is to be published, and stop before that
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	KVSTORE_TEST_DIST=dist $(BIN)/python -m pytest tests/docs/test_package.py tests/docs/test_release.py
	@echo
	@echo "  All is well with $$(ls dist | tr '\n' ' '). What is left to do by hand:"
	@echo "  git tag v$$($(BIN)/python -m kvstore --version | cut -d' ' -f2) && git push --tags"
	@echo "  $(BIN)/twine upload dist/*"

build: $(VENV)/ready ## the source archive and the wheel, in dist
	$(BIN)/python -m build

# A virtual environment is ready when its last step, the stamp file, is done. It is made anew when
# pyproject.toml, which names what goes into it, is newer.
$(VENV)/ready: pyproject.toml
	$(call make_venv,$(VENV),-e '.[$(EXTRAS)]')

$(VENV)/bench: $(VENV)/ready
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[$(EXTRAS),bench]'
	@touch $@

$(VENV)/release: $(VENV)/ready
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[$(EXTRAS),release]'
	@touch $@

$(VENV)/docs: $(VENV)/ready
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[$(EXTRAS),docs]'
	@touch $@

$(FRAMEWORKS_VENV)/ready: pyproject.toml
	$(call make_venv,$(FRAMEWORKS_VENV),-e '.[test-frameworks]')

$(DEMO_VENV)/ready: pyproject.toml
	$(call make_venv,$(DEMO_VENV),-e .)

$(DEMO_VENV)/postgres: $(DEMO_VENV)/ready
	@$(DEMO_VENV)/bin/python -m pip install -qq --disable-pip-version-check -e '.[postgres]'
	@touch $@

define make_venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kvstore needs Python 3.11 or newer; PYTHON=$(PYTHON) is %d.%d" % sys.version_info[:2])'
@echo "Setting up $(1) (once) ..."
@$(PYTHON) -m venv $(1)
@$(1)/bin/python -m pip install -qq --disable-pip-version-check $(2)
@touch $@
endef
