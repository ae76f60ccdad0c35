# On a fresh machine: git, make and a Python from 3.10 to 3.13. `make demo`, `make test`.
PYTHON ?= python3
LOCK := locks/airflow-3.txt
LOCK_2 := locks/airflow-2.txt
LOCK_2_10 := locks/airflow-2.10.txt
LOCK_LOWEST := locks/lowest.txt
LOCK_DOCS := locks/docs.txt
BIN := .venv/bin
READY := .venv/ready

# Tests of real parts mostly wait for them, hence more processes than cores.
PROCESSES ?= 4
PYTEST = $(BIN)/python -m pytest --numprocesses $(PROCESSES) --no-loadscope-reorder $(PYTEST_OPTIONS)

.PHONY: help setup demo up test-fast test test-airflow-3 test-airflow-2 test-airflow-2-10 test-lowest \
  test-celery chromium redis-server monitors pgbouncer build lint docs bench bench-server bench-smoke simulate mutants prove \
  prove-rivals prove-processes prove-cuts prove-requests secrecy lock clean
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' Makefile | expand -t 26

setup: $(READY) ## make .venv, with everything in it
$(READY): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else \
	  "Python 3.10 to 3.13 is needed, this is %d.%d. Choose one: make $(MAKECMDGOALS) PYTHON=python3.12" % v)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making .venv ..."
	@$(PYTHON) -m venv --clear .venv
	@sed -n '/^uv==/,/[^\]$$/p' $(LOCK) > .venv/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.txt
	@$(call INSTALL,.venv,$(LOCK))
	@touch $@

# uv takes a sixth of pip's time; where only pip knows the way to the packages, pip takes its own.
INSTALL = echo "Installing the packages of $(2) into $(1) ..." && \
  { $(BIN)/uv pip install --quiet --python $(1) --require-hashes --no-deps -r $(2) || \
  { echo "uv could not install them; pip tries." && \
  $(BIN)/python -m pip --python $(1)/bin/python install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(2); }; } && \
  $(BIN)/uv pip install --quiet --python $(1) --no-deps --no-build-isolation --editable .

demo: $(READY) ## run the main job once: one token, one rotation, in a real Airflow
	@$(BIN)/python -m demo.main_job

up: $(READY) ## run server, Airflow and its page until Ctrl-C
	@$(BIN)/python -m demo.up

test-fast: $(READY) ## run the quick tests: no Airflow, no browser, no other program
	@$(PYTEST) --fast

test: $(READY) ## run all tests, on real parts
	@$(PYTEST)

test-airflow-3: $(READY) ## run the tests of the Airflow side alone
	@$(PYTEST) tests/provider tests/e2e tests/page

# What starts no Airflow has the same result with each: `--airflow` leaves it out. Alerts know metrics
# alone and the page is the same: both are tested in full in Airflow 3. What differs between generations
# and not between versions, the commands of runbooks and `check`, is tested in 2.11.
test-airflow-2: .venv-airflow-2/ready ## run what starts an Airflow in an Airflow 2.11
test-airflow-2-10: .venv-airflow-2-10/ready ## run the same in an Airflow 2.10, but for what 2.11 shows
ONCE := e2e/test_runbooks.py page/test_check.py
test-airflow-2 test-airflow-2-10:
	@$(PYTEST) --airflow $(@:test-%=.venv-%) tests/provider tests/e2e tests/page \
	  --ignore tests/page/test_alerts.py --ignore tests/page/test_looks.py \
	  $(if $(filter %-10,$@),$(addprefix --ignore tests/,$(ONCE)))
test test-airflow-3 test-airflow-2 test-airflow-2-10: chromium monitors
test test-lowest: pgbouncer

# What needs no Airflow, no browser and no monitoring system. schemathesis and flowclient need newer
# packages than the lowest; a PostgreSQL that crashes tells nothing of versions.
test-lowest: .venv-lowest/ready ## run what needs no Airflow with the lowest versions that are declared
	@$(PYTEST:$(BIN)/%=$(<D)/bin/%) -p tests.click_streams tests/test_versions.py tests/test_rooms.py \
	  tests/test_cli.py tests/core tests/agent tests/contract tests/server \
	  $(addprefix tests/monitoring/test_,service_names.py status.py assessment.py) \
	  --ignore tests/contract/test_flowclient.py --ignore tests/server/test_openapi.py \
	  --ignore tests/server/test_scrapes.py \
	  $(addprefix --deselect tests/server/test_faults.py::test_, \
	  a_postgresql_restarted_under_load_costs_no_token \
	  workers_killed_while_postgresql_is_away_are_replaced)

test-celery: .venv-airflow-2/ready redis-server ## run rotations in a Celery worker of either Airflow, with a Redis
	@$(BIN)/python -m pytest $(PYTEST_OPTIONS) tests/e2e/test_celery.py
	@$(BIN)/python -m pytest $(PYTEST_OPTIONS) --airflow .venv-airflow-2 tests/e2e/test_celery.py

# Programs that are not Python packages are installed by root on Debian. Elsewhere pytest leaves out
# what needs them and says so at its end.
chromium: PACKAGE := chromium-headless-shell
chromium: NAMES := chromium chromium-browser google-chrome
redis-server: PACKAGE := redis-server
chromium redis-server:
	@for name in $(PACKAGE) $(NAMES); do command -v $$name >/dev/null && exit; done; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then echo "Installing $(PACKAGE) ..."; \
	  apt-get update --quiet --quiet && apt-get install --quiet --quiet --yes $(PACKAGE); fi

# Prometheus, Nagios, Icinga: unpacked from Debian's packages, since installing them starts services.
MONITORS := prometheus prometheus-node-exporter prometheus-alertmanager nagios4-core icinga2-bin
DEBIAN := $(shell command -v apt-get && command -v dpkg)
APT = apt-get -qq -o Dir::State::lists=$(CURDIR)/$(@D)/lists -o Dir::Cache=$(CURDIR)/$(@D)/cache \
  -o Debug::NoLocking=1 -o APT::Sandbox::User=
monitors: $(if $(DEBIAN),.monitors/ready) ## unpack Prometheus, Nagios and Icinga on Debian or Ubuntu
pgbouncer: $(if $(DEBIAN),.pgbouncer/ready) ## unpack PgBouncer on Debian or Ubuntu
.monitors/ready: PACKAGES := $(MONITORS)
.pgbouncer/ready: PACKAGES := pgbouncer
.monitors/ready .pgbouncer/ready:
	@echo "Unpacking $(PACKAGES) into $(@D) ..."
	@mkdir -p $(@D)/lists/partial $(@D)/cache/archives/partial $(@D)/root
	@$(APT) update
	@$(APT) install --reinstall --yes --download-only --no-install-recommends $(PACKAGES)
	@for package in $(@D)/cache/archives/*.deb; do dpkg -x $$package $(@D)/root || exit; done
	@rm -rf $(@D)/lists $(@D)/cache
	@touch $@

.venv-airflow-2/ready: $(LOCK_2)
.venv-airflow-2-10/ready: $(LOCK_2_10)
.venv-airflow-2/ready .venv-airflow-2-10/ready: pyproject.toml | $(READY)
	@$(BIN)/python -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v <= (3, 12) else \
	  "Airflow 2 needs Python 3.10 to 3.12, .venv has %d.%d. Choose one: make clean $(MAKECMDGOALS) PYTHON=python3.12" % v)'
	$(SET_UP)
.venv-lowest/ready: $(LOCK_LOWEST) pyproject.toml | $(READY)
	$(SET_UP)
.venv-docs/ready: $(LOCK_DOCS) pyproject.toml | $(READY)
	$(SET_UP)
define SET_UP
@$(BIN)/python -m venv --clear --without-pip $(@D)
@$(call INSTALL,$(@D),$(filter locks/%,$^))
@touch $@
endef

build: $(READY) ## build the wheel and the source distribution into dist/, and check them
	@rm -rf dist
	@$(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python
	@$(BIN)/twine check --strict dist/*

lint: $(READY) ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python .ci/phrases.py

docs: .venv-docs/ready ## build the documentation as a site, in site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs --quiet build --strict --clean

bench: $(READY) ## print the figures of the agent
	@$(BIN)/python -m benchmarks

bench-server: $(READY) ## print the figures of the renewal server
	@$(BIN)/python -m benchmarks.server

bench-smoke: $(READY) ## run every benchmark in its smallest form, to check that each figure is produced
	@$(BIN)/python -m benchmarks --smoke
	@$(BIN)/python -m benchmarks.server --smoke
bench bench-smoke: chromium

simulate: $(READY) ## look for a schedule of crashes and faults that breaks an invariant (SCHEDULES=n; SEED=n replays one)
	@$(BIN)/python -m proofs.simulation $(if $(SEED),--seed $(SEED)) $(if $(SCHEDULES),--schedules $(SCHEDULES))

mutants: $(READY) ## put known bugs into the protocol, one by one, and tell by what each is caught
	@$(BIN)/python -m proofs.mutants

secrecy: $(READY) ## search all that the tests of the rotation leave behind for parts of tokens
	@$(BIN)/python -m pytest --secrecy tests/core tests/agent tests/contract tests/provider tests/monitoring tests/proofs tests/test_cli.py

# Each part needs one core, and is ready for others beside it: its folders and ports are its own.
PROOFS := prove-rivals prove-processes prove-cuts prove-requests
prove: $(READY) ## kill real processes, let 50 agents race for 1,000 tokens (EVENTS=n), cut answers at every byte
	@$(MAKE) --no-print-directory --jobs 2 --keep-going $(PROOFS)

prove-rivals prove-processes prove-cuts: $(READY)
	@$(BIN)/python -m $(@:prove-%=proofs.%) $(if $(filter %-rivals,$@),$(if $(EVENTS),--events $(EVENTS)))

prove-requests: $(READY)
	@ALL_EXAMPLES=1 $(BIN)/python -m pytest -q -p no:cacheprovider tests/server/test_openapi.py

COMPILE := $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.10 \
  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --upgrade
# Airflow 2.10 gets what was the newest when it came, as its images do. The lowest versions are those of
# what the package declares: the tools of the tests are the same as in $(LOCK), and the rest is the newest.
lock: $(READY) ## resolve the dependencies again
	@$(COMPILE) --all-extras --group dev --group airflow-3 --output-file $(LOCK)
	@$(COMPILE) --extra aws --extra vault --group build --group airflow-2 --output-file $(LOCK_2)
	@$(COMPILE) --exclude-newer 2025-03-01 --extra aws --extra vault --group build --group airflow-2-10 --output-file $(LOCK_2_10)
	@$(BIN)/uv pip compile --quiet --group test --no-deps --universal --python-version 3.10 \
	  --no-annotate --no-header --constraint $(LOCK) --output-file .venv/test-tools.txt
	@$(COMPILE) --resolution lowest-direct --extra server --extra postgres --group test \
	  --constraint .venv/test-tools.txt --output-file $(LOCK_LOWEST)
	@$(COMPILE) --extra server --group build --group docs --output-file $(LOCK_DOCS)

clean: ## remove what the other targets made
	@rm -rf .venv .venv-airflow-* .venv-lowest .venv-docs site .monitors .pgbouncer .demo .up dist .hypothesis .mypy_cache .pytest_cache .pytest_screens .ruff_cache
