# Each target sets up all it needs; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help run test test-all test-latest autobahn bench bench-page soak chaos screenshots check format lock clean

SETUP := @scripts/python scripts/setup.py
BIN := .venv/bin
# A file's tests share servers and a browser, so a file stays whole; four, as much of it is waiting.
PARALLEL := --numprocesses=4 --dist=loadfile
# Three times what they take on a small machine; tests/watchdog.py bounds each of them.
AT_MOST := --session-timeout=3000
ALL_AT_MOST := --session-timeout=10800
CODE := chat sessions_app cluster webchat_project examples bench chaos scripts tests manage.py

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12

run: ## Serve: HOST=127.0.0.1 PORT=8000 SERVER=daphne|uvicorn
	@exec scripts/python scripts/serve.py

test: ## Run the tests: ARGS="tests/chat -k order"
	$(SETUP) test
	$(BIN)/python -m pytest $(PARALLEL) $(AT_MOST) -m "not slow" $(ARGS)

test-all: ## Run the tests, the slow ones too
	$(SETUP) test
	$(BIN)/python -m pytest $(PARALLEL) $(ALL_AT_MOST) $(ARGS)

test-latest: ## Run the tests on the newest Python here, with the newest Django
	@scripts/python scripts/latest.py $(PARALLEL) $(ARGS)

autobahn: ## Autobahn|Testsuite on both servers, where there is a Python 2.7
	$(SETUP) test
	$(BIN)/python -m scripts.autobahn $(ARGS)

bench: ## What a delivered frame costs: ARGS="--quick --only a,g --json FILE"
	$(SETUP) test
	$(BIN)/python -m bench $(ARGS)

bench-page: ## What a long conversation costs the page: ARGS="--messages 2000 --kilobytes 200 --json FILE"
	$(SETUP) test
	$(BIN)/python -m bench.page $(ARGS)

soak: ## Minutes of bounded load with flat figures: ARGS="--minutes 30 --server daphne"
	$(SETUP) test
	$(BIN)/python -m bench.soak $(ARGS)

chaos: ## Faults against servers that share a Redis: ARGS="--seconds 60 --nemesis kill,stop --seed 1"
	$(SETUP) test
	$(BIN)/python -m chaos $(ARGS)

screenshots: ## Take the pictures of docs/ again: ARGS="tools queue"
	$(SETUP) test
	$(BIN)/python -m scripts.screenshots $(ARGS)

check: ## Lint, formatting, types, import rules
	$(SETUP) check
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: ## Format, and fix what lint can fix
	$(SETUP) check
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header $(ARGS)

lock: ## Lock the requirements again: ARGS=--upgrade
	$(SETUP) check
	for name in requirements requirements-mcp requirements-otel requirements-dev requirements-tools; do \
		$(LOCK) $$name.in -o $$name.txt || exit 1; \
	done
	$(LOCK) --no-deps requirements-local.in -o requirements-local.txt

clean: ## Remove what was made, but for the database and the secret key
	rm -rf .venv .webchat/static .webchat/static.sha256
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
