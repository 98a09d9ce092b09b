# make demo    replay the shipped sample of KuaiRand, print a table, and the paths of a page with curves and of the scores
# make live    see it on a real Kafka: broker, topics, 2 000 events a second, a worker, a table of how it goes; Ctrl-C ends it
# make quick   tests of every room without a broker; nothing is compiled, so right after an edit
# make test    all checks and all tests: what continuous integration runs; a part of what is slow by its nature
# make coverage  lines of operators/ that tests of the interpreted fold run: at least 97%
# make check   lint, format, types, import directions, doctests
# make peer    speed beside Vowpal Wabbit; make quality: AUC and log loss beside it
# make soak    the whole of what is slow by its nature, and crashes by the hundred:
# make           KILLS=100 BROKER_KILLS=20 REBALANCES=20 FULL_DISKS=10 RESTARTS=10 RUNS=100000
# make kuairand TABLE=events.parquet   import and replay the whole of it
# Needs Python 3.11 or newer; everything else goes into $(VENV).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
SAMPLE := examples/kuairand/kuairand_sample.jsonl.gz
CONFIG := examples/kuairand/thalweg.toml
TABLE ?= ../shared/data/kuairand14d/events.parquet

.DEFAULT_GOAL := help
KILLS ?= 100
BROKER_KILLS ?= 20
REBALANCES ?= 20
FULL_DISKS ?= 10
RESTARTS ?= 10
RUNS ?= 100000
.PHONY: help demo live quick test coverage check lint types warm kuairand peer quality soak clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# make/make/p' Makefile

# Installed again only when pyproject.toml or requirements.lock changes: the packages themselves are used where they lie.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[report]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[bench]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	@mkdir -p build/demo
	$(BIN)/thalweg replay $(SAMPLE) --config $(CONFIG) --out build/demo/scores.jsonl --report build/demo/report.html
	@echo "A page with curves: $(CURDIR)/build/demo/report.html"
	@echo "The scores: $(CURDIR)/build/demo/scores.jsonl"

live: $(VENV)/.installed-test
	$(BIN)/python -m examples.live

check: lint types
	$(BIN)/python -m pytest -q tests/test_architecture.py
	$(BIN)/python -m pytest -q tests/test_doctests.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	@mkdir -p build/typing/thalweg && for name in schemas operators streams; do ln -sfn ../../../$$name build/typing/thalweg/$$name; done
	$(BIN)/mypy

warm: $(VENV)/.installed-test
	$(BIN)/thalweg warm-up

# The fold as plain Python, and of each room what answers soon.
QUICK := tests/schemas/test_golden.py tests/schemas/test_refusals.py tests/schemas/test_json_schemas.py
QUICK += $(addprefix tests/operators/,structures machine/test_reserve.py machine/test_plain.py machine/test_hashing.py \
    edges/test_few.py estimators/test_river.py test_clock.py test_delay.py test_rates.py test_ftrl.py) tests/fold/test_state.py
QUICK += $(addprefix tests/streams/,test_driver.py logs/test_logs.py mapping/test_mapping.py \
    kafka/test_first_blocks.py kafka/test_joined_blocks.py kafka/test_taken_over.py configuration/test_configuration.py \
    partition/test_tally.py checkpoints/test_checkpoints.py replay/test_figures.py worker simulation/test_simulated_loop.py \
    simulation/test_simulated_disk.py commands/test_checkpoint_command.py)
# Left to `make test`: of these files what takes seconds when interpreted.
SLOW := tests/operators/estimators/test_river.py::test_river_finds_nothing
SLOW += tests/operators/estimators/test_river.py::test_embeddings_share_no_row_and_stay_within_their_limit
SLOW += tests/fold/test_state.py::test_an_erased_user_leaves_nothing_in_the_rows_that_are_free
SLOW += tests/fold/test_state.py::test_a_restored_snapshot_has_the_digest_and_the_future_of_the_state
SLOW += tests/streams/replay/test_figures.py::test_baselines_see_the_labels_that_were_final
SLOW += tests/streams/checkpoints/test_checkpoints.py::test_a_real_state_goes_on
SLOW += tests/streams/test_driver.py::test_a_crash_is_not_seen_by_readers
quick: $(VENV)/.installed-test
	THALWEG_INTERPRETED=1 $(BIN)/python -m pytest -q -n 2 -m "not broker and not large and not long" $(QUICK) \
	    $(addprefix --deselect ,$(SLOW))

# Three processes on two cores: tests that need a broker mostly wait, in two of them at first (tests/conftest.py). What is
# compiled is compiled before they start, beside the types. Bytecode is kept, so that no process compiles the tests again.
test: $(VENV)/.installed-test
	$(MAKE) -j2 lint types warm
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder

# The fold as plain Python: coverage sees no line of machine code.
coverage: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q tests/fold/test_coverage.py

kuairand: $(VENV)/.installed-test
	@mkdir -p build/kuairand
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/kuairand/import.sh "$(TABLE)" build/kuairand/kuairand.jsonl.zst
	$(BIN)/thalweg replay build/kuairand/kuairand.jsonl.zst --config $(CONFIG) --out build/kuairand/scores.jsonl

peer: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.peer

quality: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.quality --write

soak: $(VENV)/.installed-test
	THALWEG_SOAK=1 $(BIN)/python -m pytest -m soak -n $$(nproc) --dist loadgroup --no-loadscope-reorder \
	    -o timeout=3600 -o session_timeout=36000
	$(BIN)/python -m benchmarks.faults --kills $(KILLS) --broker-kills $(BROKER_KILLS) --rebalances $(REBALANCES) \
	    --full-disks $(FULL_DISKS) --restarts $(RESTARTS)
	$(BIN)/thalweg simulate --runs $(RUNS) --processes $$(nproc)

clean:
	rm -rf build
