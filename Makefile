# The verbs a developer and the CI share. `make test` is everything that must hold before a change goes in.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

CARGO ?= cargo
LOGS := target/logs
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# Recorded workloads for tests and benchmarks; what needs them is skipped where there are none.
LARDER_DATA ?= $(abspath $(wildcard ../shared/data))
export LARDER_DATA

.PHONY: build dist packages test tools fmt clippy doc cargo-test conformance sdk console dashboards packaging documents instructions load-test fuzz chaos

build:
	$(CARGO) build

# What is shipped: link-time optimisation, laid out by a profile of a gateway under load. A quarter of an hour on two cores.
dist:
	python3 load-tests/train.py

# What a package installs, in target/packages: a tree, a tarball and a .deb, of the binary that `make dist` has made.
packages:
	@test -x target/dist/larder || $(CARGO) build --locked --profile dist --bin larder
	packaging/build.py

# Every stage leaves its output in target/logs; the end of this one is the sum of them.
test: tools fmt clippy doc cargo-test conformance sdk console dashboards packaging documents instructions
	@echo
	@grep -h '^test result:' $(LOGS)/cargo-test.log
	@grep -h '^conformance:' $(LOGS)/conformance.log
	@grep -h '^sdk:' $(LOGS)/sdk.log
	@grep -h '^console:' $(LOGS)/console.log
	@grep -h '^dashboards:' $(LOGS)/dashboards.log
	@grep -h '^packaging:' $(LOGS)/packaging.log
	@grep -h '^docs:' $(LOGS)/documents.log
	@grep -h '^instructions:' $(LOGS)/instructions.log

# Whatever is there already is left as it is.
tools:
	@command -v node >/dev/null && command -v npm >/dev/null \
		|| { $(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends nodejs npm; }
	@command -v valgrind >/dev/null \
		|| { $(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends valgrind; }
	@python3 -c 'import ensurepip, venv' 2>/dev/null \
		|| { $(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends python3-venv python3-pip; }
	@command -v redis-server >/dev/null && command -v redis-sentinel >/dev/null && command -v redis-cli >/dev/null \
		|| { $(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends redis-server redis-sentinel redis-tools; }
	@command -v prometheus >/dev/null && command -v promtool >/dev/null \
		|| { $(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends prometheus; }
	@command -v g++ >/dev/null \
		|| { $(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends g++; }
	@for tool in fish jq man mandoc strace systemd-analyze zsh; do command -v $$tool >/dev/null || missing=1; done; \
		test -z "$${missing:-}" || { $(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends fish jq man-db mandoc strace systemd zsh; }
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
		|| { $(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends chromium chromium-driver; }
	@cd tests/conformance && { node -e 'require.resolve("http-cache-tests/package.json")' 2>/dev/null \
		|| npm install --no-package-lock; }

fmt:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

# Unit, property and integration tests, and the examples in the documentation.
cargo-test:
	@mkdir -p $(LOGS)
	$(CARGO) test --no-fail-fast 2>&1 | tee $(LOGS)/cargo-test.log

# The public HTTP cache suite against the binary the tests have built.
conformance: tools
	@mkdir -p $(LOGS)
	$(CARGO) build
	node tests/conformance/run.mjs 2>&1 | tee $(LOGS)/conformance.log

# The SDKs for language models, through the binary the tests have built; their providers are simulated.
sdk: tools
	@mkdir -p $(LOGS)
	$(CARGO) build
	python3 tests/sdk/run.py 2>&1 | tee $(LOGS)/sdk.log

# The console in Chromium, of the binary the tests have built.
console: tools
	@mkdir -p $(LOGS)
	$(CARGO) build
	python3 tests/console/run.py 2>&1 | tee $(LOGS)/console.log

# Dashboards, rules and alerts, with a Prometheus of its own on gateways under traffic. The package's service is not needed.
dashboards: tools
	@mkdir -p $(LOGS)
	$(CARGO) build
	python3 tests/dashboards/run.py 2>&1 | tee $(LOGS)/dashboards.log

# Dockerfile, compose file, unit, chart, packages, manual pages and completions, as far as no engine and no cluster is needed.
packaging: tools
	@mkdir -p $(LOGS)
	$(CARGO) build --bin larder
	tests/packaging/run.py 2>&1 | tee $(LOGS)/packaging.log

# Every command, configuration and link of the documents; docs/METRICS.md against a running gateway, UPDATE=1 writes it anew.
documents: tools
	@mkdir -p $(LOGS)
	$(CARGO) build --bin larder
	tests/docs/run.py $(if $(UPDATE),--update) 2>&1 | tee $(LOGS)/documents.log

# What a request costs in instructions, against what it did; UPDATE=1 writes the figures anew.
instructions: tools
	@mkdir -p $(LOGS)
	$(CARGO) build --bin larder --example bare
	tests/instructions/run.py $(if $(UPDATE),--update) 2>&1 | tee $(LOGS)/instructions.log

# Measures beside nginx, Varnish, HAProxy, Traffic Server and Squid; installs what is missing, builds, needs two cores.
# SET=short takes some minutes, SET=full an hour and more; PROFILE overrides what is built. See load-tests/README.md.
load-test:
	python3 load-tests/run.py --install --set $${SET:-short} $${PROFILE:+--profile $$PROFILE}

# The property tests with many more cases than a change has to wait for. CASES=1000000 make fuzz runs overnight.
fuzz:
	PROPTEST_CASES=$${CASES:-100000} $(CARGO) test --lib -- --nocapture prop

# The disk tier killed a hundred times and more while it writes, removes and evicts, as a library and as a gateway.
chaos:
	LARDER_KILLS=$${KILLS:-100} $(CARGO) test --test it -- --nocapture disk_chaos
	LARDER_CRASHES=$${KILLS:-100} LARDER_DAMAGES=$${KILLS:-100} $(CARGO) test --lib -- store::l3::tests
	LARDER_READS=$${READS:-1000000} $(CARGO) test --test it -- --nocapture fleet_chaos
	LARDER_SCHEDULES=$${SCHEDULES:-1000000} $(CARGO) test --lib -- --nocapture purge::fleet::simulation::no_schedule
