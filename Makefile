# make demo   a local exchange, a recorder, a compaction, a query; ends by itself
# make unit   the tests that start no process and no server
# make test   every promise, each in a short form
# make test-all   the same in long forms; takes half an hour
# make torture   kills and faults at random for ten minutes, and an auditor;
#                TORTURE_ARGS=--all-intervals does it over a new year, beside backfills;
#                TORTURE_ARGS='--lake s3' on an object store that is killed too
# make two-recorders   five minutes of two recorders on one lake, killed at random;
#                TWO_ARGS='--lake s3' does it on SeaweedFS, --gone loses a host for good
# make cluster-test   a real Spark cluster, an executor killed at work, a Connect server; needs Java 17
# make endure    twenty minutes of an exchange that does everything wrong
# make history   years from an archive that lies, interrupted again and again
# make fuzz   two hours of coverage-guided fuzzing of frames and journal lines
# make check  format, lint, types, layers
# make bench  every benchmark, ours beside its limit or peer; takes hours. Each has a form of
#             seconds to try it: `.venv/bin/python benchmarks/NAME.py --quick`
# make bench-peers   the CPU of a frame in other Binance clients, each installed in an environment
#             of its own below .venv/peers, beside ours: as fast as it can, then at 4,000 a second;
#             PEERS_ARGS='--only unicorn lakewriter' measures some of them
# make docs   the docs site, in site/; open site/index.html (its search needs an HTTP server)
# Each makes its own virtual environment; Python 3.11 or newer is all it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo unit test test-all torture two-recorders cluster-test endure history fuzz check format docs bench bench-peers clean

demo: $(VENV)/.installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash demo.sh

unit: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-all: $(VENV)/.installed-dev
	LAKEWRITER_LONG=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

torture: $(VENV)/.installed-dev
	PYTHONPATH=tests $(BIN)/python -m crash.torture $(TORTURE_ARGS)

two-recorders: $(VENV)/.installed-dev
	PYTHONPATH=tests $(BIN)/python -m crash.two_recorders $(TWO_ARGS)

cluster-test: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pyspark[connect]>=4'
	PYTHONPATH=tests $(BIN)/python -m crash.cluster $(CLUSTER_ARGS)

endure: $(VENV)/.installed-dev
	PYTHONPATH=tests $(BIN)/python -m crash.endurance $(ENDURE_ARGS)

history: $(VENV)/.installed-dev
	PYTHONPATH=tests $(BIN)/python -m crash.history $(HISTORY_ARGS)

fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	PYTHONPATH=tests $(BIN)/python -m crash.fuzz wire -max_total_time=3600
	PYTHONPATH=tests $(BIN)/python -m crash.fuzz journal -max_total_time=3600

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-docs
	PYTHONPATH=tools $(BIN)/zensical build --clean --strict

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/merge.py
	$(BIN)/python benchmarks/compaction.py
	$(BIN)/python benchmarks/receive.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/burst.py
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/freshness.py
	$(BIN)/python benchmarks/history.py
	$(BIN)/python benchmarks/flush.py
	$(BIN)/python benchmarks/query.py
	$(BIN)/python benchmarks/read.py
	$(BIN)/python benchmarks/remote.py
	$(BIN)/python benchmarks/store_flush.py --partitions 300 --rounds 3
	$(BIN)/python benchmarks/encoding.py
	$(BIN)/python benchmarks/periods.py
	$(BIN)/python benchmarks/cookbook.py
	$(BIN)/python benchmarks/asked.py
	$(BIN)/python benchmarks/growth.py --sizes 1000,3000,10000

bench-peers: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/receive_peers.py --install $(PEERS_ARGS)
	$(BIN)/python benchmarks/receive_peers.py --rate 4000 --frames 20000 $(PEERS_ARGS)

clean:
	rm -rf $(VENV) demo-data site .cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "lakewriter needs Python 3.11 or newer; try: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "could not make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@ $(VENV)/.installed
