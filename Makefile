# make run     install if needed, prepare the database, start the server
# make test    everything that must hold: format, lint, types, contracts, migrations, tests
# make bench   the same prompts to this project and to what people would use instead, side by side
# make torture crashes, cuts, poison and races at full size; takes an hour or more

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Three files at a time, since tests wait more than they work; each with one thread: torch's
# threads would spin against each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadfile
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: setup run test lint bench torture clean

setup: $(VENV)/.installed

run: setup
	@$(BIN)/python manage.py serve

$(VENV)/.installed: requirements.txt requirements-demo.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "llmsite needs Python 3.11 or newer; set PYTHON=python3.x")'
	@echo "Installing into $(VENV); torch is large, so the first time takes minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install $$(grep -o '^torch==[0-9.]*' requirements.txt)
	@$(PIP) install -r requirements.txt
	@$(PIP) install --no-deps -r requirements-demo.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@$(PIP) install -r requirements-dev.txt
	@touch $@

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py check
	@! git grep -nE '^(<<<<<<<|>>>>>>>) '

# The last line is pytest's own. With TEST_DATABASE_URL the database tests run there first.
test: lint
	@if [ -n "$$TEST_DATABASE_URL" ]; then \
		echo "Database tests on $${TEST_DATABASE_URL%%:*}"; \
		DATABASE_URL="$$TEST_DATABASE_URL" $(PYTEST) -m "database and not browser"; \
	fi
	$(PYTEST)

$(VENV)/.installed-bench: $(VENV)/.installed requirements-bench.txt
	@$(PIP) install -r requirements-bench.txt
	@touch $@

# Half an hour. BENCH="--quick" only shows that everything runs; "--help" lists the sizes.
bench: $(VENV)/.installed-bench
	$(BIN)/python -m bench.many $(BENCH)

# Sizes are TORTURE_<NAME>, see tests/torture. On PostgreSQL too where TEST_DATABASE_URL names one.
torture: $(VENV)/.installed-dev
	@[ -n "$$TEST_DATABASE_URL" ] || echo "TEST_DATABASE_URL names no PostgreSQL: all of it on SQLite only."
	TORTURE=full $(PYTEST) --timeout 7200 tests/torture

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
