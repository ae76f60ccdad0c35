# On a fresh machine: git, make and a Python from 3.10 to 3.13. `make demo`, `make test`.
PYTHON ?= python3
LOCK := locks/airflow-3.txt
BIN := .venv/bin
READY := .venv/ready

# Most of a test of real parts is waiting for them: two files are run at a time.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

LOCK_2 := locks/airflow-2.txt
LOCK_2_10 := locks/airflow-2.10.txt

.PHONY: help setup demo up test test-airflow-3 test-airflow-2 test-airflow-2-10 test-celery chromium redis-server lint bench bench-server simulate mutants prove prove-rivals prove-processes prove-cuts prove-requests secrecy lock clean
help: ## say what there is
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' Makefile | expand -t 26

setup: $(READY) ## make .venv, with everything in it
$(READY): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else \
	  "Python 3.10 to 3.13 is needed, this is %d.%d. Choose one: make $(MAKECMDGOALS) PYTHON=python3.12" % v)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up .venv; this takes a minute or two."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY) ## run the main job once: one token, one rotation, in a real Airflow
	@$(BIN)/python -m demo.main_job

up: $(READY) ## run server, Airflow and its page until Ctrl-C
	@$(BIN)/python -m demo.up

test: $(READY) ## run all tests, on real parts
	@$(PYTEST)

test-airflow-3: $(READY) ## run the tests of the Airflow side alone
	@$(PYTEST) tests/provider tests/e2e tests/page

# The alerts, which take minutes to come, are awaited in Airflow 3: they know of metrics alone.
test-airflow-2: .venv-airflow-2/ready ## run the same in an Airflow 2.11
test-airflow-2-10: .venv-airflow-2-10/ready ## run the same in an Airflow 2.10
test-airflow-2 test-airflow-2-10:
	@$(PYTEST) --airflow $(@:test-%=.venv-%) tests/provider tests/e2e tests/page \
	  --ignore tests/page/test_alerts.py
test test-airflow-3 test-airflow-2 test-airflow-2-10: chromium .monitors/ready

test-celery: .venv-airflow-2/ready redis-server ## run rotations in a Celery worker of either Airflow, with a Redis
	@$(BIN)/python -m pytest tests/e2e/test_celery.py
	@$(BIN)/python -m pytest --airflow .venv-airflow-2 tests/e2e/test_celery.py

# What is no Python package: installed where one may, asked for elsewhere.
chromium: LIKE := chromium-browser google-chrome
chromium: HOW := On Debian: apt-get install chromium. Google's Chrome will do, too.
redis-server: HOW := On Debian and Ubuntu: apt-get install redis-server
chromium redis-server:
	@for one in $@ $(LIKE); do command -v $$one >/dev/null && exit; done; \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update --quiet --quiet && apt-get install --quiet --quiet --yes $@ || { \
	  echo "$@ is needed. $(HOW)" >&2; exit 1; }

# Prometheus, Nagios, Icinga: unpacked from Debian's packages, since installing them starts services.
MONITORS := prometheus prometheus-node-exporter prometheus-alertmanager nagios4-core icinga2-bin
APT := apt-get -qq -o Dir::State::lists=$(CURDIR)/.monitors/lists -o Dir::Cache=$(CURDIR)/.monitors/cache \
  -o Debug::NoLocking=1 -o APT::Sandbox::User=
.monitors/ready:
	@command -v apt-get >/dev/null && command -v dpkg >/dev/null || { \
	  echo "The tests of monitoring take Prometheus, Nagios and Icinga from Debian's packages:" \
	  "run them on Debian or Ubuntu." >&2; exit 1; }
	@mkdir -p .monitors/lists/partial .monitors/cache/archives/partial .monitors/root
	@$(APT) update
	@$(APT) install --reinstall --yes --download-only --no-install-recommends $(MONITORS)
	@for package in .monitors/cache/archives/*.deb; do dpkg -x $$package .monitors/root || exit; done
	@rm -rf .monitors/lists .monitors/cache
	@touch $@

# A lock is complete; pip 23 looks beyond it for what is required with an extra, hence --no-deps.
.venv-airflow-2/ready: $(LOCK_2)
.venv-airflow-2-10/ready: $(LOCK_2_10)
.venv-airflow-2/ready .venv-airflow-2-10/ready: pyproject.toml | $(READY)
	@$(BIN)/python -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v <= (3, 12) else \
	  "Airflow 2 needs Python 3.10 to 3.12, .venv has %d.%d. Choose one: make clean $(MAKECMDGOALS) PYTHON=python3.12" % v)'
	@echo "Setting up $(@D); this takes a minute or two."
	@$(BIN)/python -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(filter locks/%,$^)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lint: $(READY) ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY) ## print the figures of the agent
	@$(BIN)/python -m benchmarks

bench-server: $(READY) ## print the figures of the renewal server
	@$(BIN)/python -m benchmarks.server

simulate: $(READY) ## look for a schedule of crashes and faults that breaks an invariant (SCHEDULES=n; SEED=n replays one)
	@$(BIN)/python -m proofs.simulation $(if $(SEED),--seed $(SEED)) $(if $(SCHEDULES),--schedules $(SCHEDULES))

mutants: $(READY) ## put known bugs into the protocol, one by one, and tell by what each is caught
	@$(BIN)/python -m proofs.mutants

secrecy: $(READY) ## search all that the tests of the rotation leave behind for parts of tokens
	@$(BIN)/python -m pytest --secrecy tests/core tests/agent tests/contract tests/provider tests/monitoring tests/proofs tests/test_cli.py

# Each part needs one core, and is ready for others beside it: its folders and ports are its own.
PROOFS := prove-rivals prove-processes prove-cuts prove-requests
prove: $(READY) ## kill real processes, let 50 agents race for 1,000 tokens, cut answers at every byte
	@$(MAKE) --no-print-directory --jobs 2 --keep-going $(PROOFS)

prove-rivals prove-processes prove-cuts: $(READY)
	@$(BIN)/python -m $(@:prove-%=proofs.%)

prove-requests: $(READY)
	@ALL_EXAMPLES=1 $(BIN)/python -m pytest -q -p no:cacheprovider tests/server/test_openapi.py

COMPILE := $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.10 \
  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --upgrade
# Airflow 2.10 gets what was the newest when it came, as its images do.
lock: $(READY) ## resolve the dependencies anew
	@$(COMPILE) --all-extras --group dev --group airflow-3 --output-file $(LOCK)
	@$(COMPILE) --group build --group airflow-2 --output-file $(LOCK_2)
	@$(COMPILE) --exclude-newer 2025-03-01 --group build --group airflow-2-10 --output-file $(LOCK_2_10)

clean: ## remove what the other targets made
	@rm -rf .venv .venv-airflow-* .monitors .demo .up dist .hypothesis .mypy_cache .pytest_cache .pytest_screens .ruff_cache
