# Everything a person or CI needs; each target sets up what it uses.
.DEFAULT_GOAL := help
.PHONY: help setup demo test nightly bench bench-save bench-compare bench-peers check lock clean
MAKEFLAGS += --no-print-directory
# Every node and every command is a process: without bytecode to load, most of a short one's time is compiling.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
PYTHONS := python3 python3.13 python3.12 python3.11 python3.14 python

help: ## Show the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 15

setup: ## Create .venv; get the broker and Toxiproxy. Quick when all is there.
	@for python in $(PYTHONS); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			exec "$$python" setup/bootstrap.py; \
		fi; \
	done; \
	echo "setup: stopped. No Python 3.11 or newer is on PATH (looked for: $(PYTHONS))." >&2; \
	echo "  Debian, Ubuntu:  sudo apt-get install python3 python3-venv" >&2; \
	exit 1

demo: setup ## Compare the protocols under faults; prints the table and where the report lies.
	@$(BIN)/capbench compare --preset quick

# A worker that is lost (a test that hangs ends its worker) ends the run, named; else pytest-xdist would
# wait for its tests for ever. Half of the suite waits for clusters, which take about half a core: four workers
# keep two cores busy.
test: setup ## All tests, with a real broker, Toxiproxy, node processes, Locust, containers (WORKERS).
	@$(BIN)/pytest -n $(or $(WORKERS),4) --dist loadfile --no-loadscope-reorder --max-worker-restart=0 -rs

# All but quorum-weak, which loses writes by design (docs/LIMITS.md).
KEEP := raft raft-stale-read paxos paxos-basic quorum gossip gossip-lww

nightly: setup ## Absurd frames (FRAMES), all nodes killed (REPEAT), simulated seeds (SEEDS JOBS MINUTES), checkers, a planted slowdown (TRIES).
	@$(BIN)/python -m tests.protocols.fuzz --frames $(or $(FRAMES),200000)
	@$(BIN)/capbench compare crash-all $(addprefix -p ,$(KEEP)) --repeat $(or $(REPEAT),5)
	@$(BIN)/capbench gate --seeds $(or $(SEEDS),10000) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(MINUTES),--minutes $(MINUTES))
	@CHECKER_TINY_HISTORIES=27000 $(BIN)/pytest -q -n 0 --timeout 3600 tests/checkers/test_brute_force.py \
		tests/checkers/test_models.py
	@CORRECT_OPERATIONS=1000000 $(BIN)/pytest -q -n 0 --timeout 3600 \
		tests/checkers/test_correct_by_construction.py
	@$(BIN)/python -m tests.live.planted_slowdown --tries $(or $(TRIES),10)
	@TRANSACTION_TINY_HISTORIES=20000 $(BIN)/pytest -q -n 0 --timeout 3600 tests/transactions

bench: setup ## Measure live protocols, simulator, checkers, parts; writes results/bench/latest.json.
	@$(BIN)/python -m bench

bench-save: setup ## Keep a run of the suites of this machine, for bench-compare (SUITES="micro").
	@$(BIN)/python -m bench.compare --save $(SUITES)

bench-compare: setup ## Fails if a benchmark is more than 20% slower than in that run.
	@$(BIN)/python -m bench.compare $(SUITES)

bench-peers: setup ## Our raft beside three nodes of etcd, in one run; gets etcd the first time.
	@$(BIN)/python -m bench.measure.peers

check: setup ## Lint, format, types and import rules; changes nothing.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate

lock: setup ## Pin the requirements anew, as far as pyproject.toml asks (UPGRADE=1: newest).
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements/runtime.txt
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --group dev \
		-c requirements/runtime.txt -o requirements/dev.txt
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --extra embedded \
		-c requirements/dev.txt -o requirements/embedded.txt
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --extra containers \
		-c requirements/dev.txt -o requirements/containers.txt
	echo hatchling | $(LOCK) $(if $(UPGRADE),--upgrade) - \
		-c requirements/dev.txt -o requirements/build.txt
	echo uv | $(LOCK) $(if $(UPGRADE),--upgrade) - \
		-c requirements/dev.txt -o requirements/uv.txt

clean: ## Remove .venv, caches and what was downloaded; results stay.
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .benchmarks
	find nodes bench reports chaos tests setup -name __pycache__ -type d -prune -exec rm -rf {} +
