# Each target makes the environment that it needs; nothing is installed by hand, and nothing needs root.
#   make demo         see it work: workers, a kill, a recovery
#   make test         the checks and every test, JOBS=3 of them at a time
#   make check        ruff, mypy, the import contracts
#   make test-matrix  the tests that depend on the server, on every one and with the oldest clients; the namespace's with redis-py 8 too
#   make screenshots  the pictures of the README, by the system's Chromium
#   make bench        the benchmarks; BENCH="--quick" for a minute's worth
#   make soak         the long tests, MINUTES=10 for each
#   make mutants      take one safeguard out at a time, and show that a test notices
#   make lock         pin anew what the tests use

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/test.txt
# Of what is installed a third is ever imported, and compiled then.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
MINUTES ?= 10
JOBS ?= 3
TESTS ?=
BENCH ?=
MATRIX ?=
CHECKED := async_tracker tests $(wildcard benchmarks)

# One finding must not hide the next: everything is run, and then everything counts.
MAKEFLAGS += --keep-going --no-print-directory

# A shell's own settings must not reach what runs here. Without bytecode each of the thousand processes that the tests start would
# compile the package anew, which is half of the time that it needs to start.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE TRACKER_REDIS_URL REDIS_URL

.PHONY: demo test check lint types imports scripts screenshots compiled pytest test-matrix bench soak mutants lock clean

demo: $(VENV)/.has-demo
	$(BIN)/async-tracker demo

# The tests come last and always: their closing line is what a reader of the log looks for.
test: $(VENV)/.has-test
	@$(MAKE) --jobs=2 check compiled; checked=$$?; $(MAKE) pytest && exit $$checked

check: lint types imports scripts

# The page's scripts are checked as they are, where there is node; nothing is built.
scripts:
	@if command -v npm >/dev/null; then $(MAKE) $(VENV)/.has-tsc && $(VENV)/node/node_modules/.bin/tsc -p async_tracker/web/tsconfig.json; \
	else echo "The page's scripts are not checked: there is no node here (apt-get install npm)."; fi

$(VENV)/.has-tsc: | $(BIN)/python
	npm install --silent --no-fund --no-audit --prefix $(VENV)/node typescript@5
	@touch $@

lint: $(VENV)/.has-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.has-test
	$(BIN)/mypy $(CHECKED)

imports: $(VENV)/.has-test
	$(BIN)/lint-imports --no-logo

# Beside mypy, which takes one core: else each process of the tests would compile all of them, and what they import, at the same time as
# the others. What cannot be imported is said by the tests themselves.
compiled: $(VENV)/.has-test
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null || true

# Most tests wait for processes rather than compute, so there may be more of them at a time than there are cores.
pytest: $(VENV)/.has-test
	$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=worksteal $(TESTS)

test-matrix: $(VENV)/.has-test
	$(BIN)/python -m tests.harness.matrix --jobs=$(JOBS) $(MATRIX)

screenshots: $(VENV)/.has-test
	$(BIN)/python -m tests.web.screenshots

bench: $(VENV)/.has-bench
	$(BIN)/python -m benchmarks $(BENCH)

soak: $(VENV)/.has-test
	$(BIN)/python -m pytest -m soak --soak-minutes=$(MINUTES) --timeout=0 $(TESTS)

mutants: $(VENV)/.has-test
	$(BIN)/python -m tests.crash.mutants

# In an environment of its own, so that nothing is pinned that the project does not ask for.
lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check -e ".[test,demo]"
	{ echo "# Written by 'make lock'; a constraints file of what the tests use."; \
	  $(VENV)-lock/bin/python -m pip freeze --exclude-editable --disable-pip-version-check; } > $(LOCK)
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# The stamp of an extra is older than what it was installed from: then it is installed again.
$(VENV)/.has-%: pyproject.toml $(LOCK) | $(BIN)/python
	$(PIP_INSTALL) -c $(LOCK) -e ".[$*]"
	@touch $@
