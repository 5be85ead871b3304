# Two commands that need nothing but Python 3.10 or newer, each with all of its own set-up:
#   make demo   see the packaged model at work, then train a small detector for minutes and look at what it finds
#   make test   lint, types and the whole test suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

.PHONY: demo test suite collected lint programs clean

demo: $(VENV)/.demo
	$(BIN)/fssd demo --out runs/demo

# Types are checked, which takes one core for a minute, while the suite runs.
test: $(VENV)/.dev programs
	$(MAKE) --no-print-directory -j 2 lint suite

suite: collected
	$(PYTEST) -n 3 --dist worksteal

# Once on its own, because pytest compiles the tests where they are not: else each process would do that again.
# What is wrong with them is said by the suite.
collected: $(VENV)/.dev
	$(PYTEST) --collect-only >/dev/null 2>&1 || true

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/mypy

# Pages are tested in Debian's Chromium, deploy/nginx.conf with its nginx. Where they are missing and cannot be
# installed (no root, no apt-get, no network), those tests are skipped and say so.
programs:
	@missing=""; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	|| command -v google-chrome >/dev/null || missing="$$missing chromium"; \
	command -v nginx >/dev/null || test -x /usr/sbin/nginx || missing="$$missing nginx-light"; \
	test -z "$$missing" || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		&& timeout 60 apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20 update \
		&& DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -qq -y --no-install-recommends install $$missing; \
	} >/dev/null 2>&1 || echo "not installed:$$missing; their tests will be skipped"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A stamp for each set of extras: it is made again when what it installs from changes.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[all]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
