# `make help` lists the targets. Every target makes what it needs; nothing but Python 3.11 or newer is expected.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
VENV := .venv
PYTHON := $(VENV)/bin/python
ENV := $(VENV)/.complete

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: demo
demo: $(ENV) ## start the embedded worker with an example bot, show real dialogs, then chat
	@$(PYTHON) -m examples.demo

.PHONY: test
test: $(ENV) ## the tests, with servers from the environment, containers or local processes
	$(PYTHON) -m pytest tests -q -m "not long" --numprocesses 2 --max-worker-restart 0 --dist loadfile \
		--no-loadscope-reorder

.PHONY: test-long
test-long: $(ENV) ## further cases of the longest tests
	$(PYTHON) -m pytest tests -q -m long

.PHONY: check
check: lint types size secrets ## everything a change must pass besides the tests

.PHONY: lint
lint: $(ENV) ## style and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

.PHONY: format
format: $(ENV) ## put the code into the project's format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

.PHONY: types
types: $(ENV) ## strict type check
	$(VENV)/bin/mypy

.PHONY: size
size: $(ENV) ## length of modules and functions
	$(PYTHON) tests/check_size.py

.PHONY: secrets
secrets: $(ENV) ## whether a password or key stands in any file that is kept; the passwords of tests are named here, and what only looks like one
	git ls-files -z -- . ':!tests/corpus' ':!requirements' | xargs -0 $(VENV)/bin/detect-secrets-hook \
		--exclude-secrets '^(guest|hunter2.*|wrong|wrong-word|secret|secret-word|word|password|PASSWORD|test|one|two|>new|pass%2Fword)$$' \
		--exclude-secrets '^(%s|switchboard-(worker|operator)|af7651916cd43dd8448eb211c80319c|b7ad6b7169203331)$$'

.PHONY: audit
audit: $(ENV) ## known vulnerabilities of the pinned dependencies, as the package index tells them
	deploy/audit.sh $(PYTHON) $(VENV)/audit

.PHONY: docs
docs: $(ENV) ## the documentation as a site in docs/_build/html; a warning or a link that leads nowhere is an error
	$(PYTHON) -m sphinx -b html --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build/html

.PHONY: reference
reference: $(ENV) ## settings, commands and codes from the code; writes docs/reference.md
	$(PYTHON) -m tests.reference_page

.PHONY: asyncapi
asyncapi: $(ENV) ## the wire contract from the code; writes docs/asyncapi.yaml
	$(PYTHON) -m tests.asyncapi_document

.PHONY: asyncapi-check
asyncapi-check: $(ENV) ## whether docs/asyncapi.yaml is AsyncAPI 3, by AsyncAPI's own parser (npm installs it)
	npm install --prefix $(VENV)/asyncapi --no-audit --no-fund --ignore-scripts @asyncapi/parser@3.6.6
	NODE_PATH=$(VENV)/asyncapi/node_modules node tests/asyncapi_check.js docs/asyncapi.yaml

.PHONY: test-images
test-images: ## container images with RabbitMQ, Redis and Valkey from Debian's packages (as root)
	deploy/test-images/build.sh

.PHONY: test-matrix
test-matrix: $(ENV) ## the integration tests on every supported pair of servers, in containers
	$(PYTHON) -m tests.matrix

.PHONY: containers-check
containers-check: $(ENV) ## the worker's image stopped under load, and the Compose files, where a container engine answers
	$(PYTHON) -m pytest tests/integration/check_image.py tests/integration/check_compose.py -q

.PHONY: alerts-check
alerts-check: $(ENV) ## cause every alert for real, 8 minutes; writes docs/alerts.md (CAUSE=redis for one)
	$(PYTHON) -m tests.alerts $(CAUSE)

.PHONY: dashboard-plot
dashboard-plot: $(ENV) ## the dashboard's graphs over a minute of load with an outage; writes docs/dashboard.svg
	$(PYTHON) -m tests.dashboard

.PHONY: dashboards
dashboards: ## write the dashboards from their source
	python3 deploy/grafana/dashboards.py

.PHONY: chaos
chaos: $(ENV) ## three minutes of faults on workers, servers and links, then the verdict (SEED=n, SENTINEL=1)
	$(PYTHON) -m tests.chaos.run --seconds 180 $(if $(SEED),--seed $(SEED)) $(if $(SENTINEL),--sentinel)

.PHONY: chaos-report
chaos-report: $(ENV) ## fifteen minutes of faults over 2,000 contexts; writes docs/chaos-report.md
	$(PYTHON) -m tests.chaos.run --seconds 900 --contexts 2000 --rate 170 --workers 6 \
		--report docs/chaos-report.md $(if $(SEED),--seed $(SEED))

.PHONY: bench
bench: $(ENV) .venv-bench ## Switchboard against a bare loop and other frameworks, 40 minutes; writes docs/performance.md
	$(PYTHON) -m tests.bench

.PHONY: bench-quick
bench-quick: $(ENV) .venv-bench ## one round of that in three minutes, printed only
	$(PYTHON) -m tests.bench --quick

.PHONY: bench-compare
bench-compare: $(ENV) ## whether a turn costs more than docs/performance.md has it, against the bare loop in the same run
	$(PYTHON) -m tests.bench --compare

.PHONY: bench-telemetry
bench-telemetry: $(ENV) ## what telemetry costs a turn, in pairs of runs; fails above 3 % (WITHOUT=directory of a checkout)
	$(PYTHON) -m tests.bench.telemetry $(if $(WITHOUT),--without $(WITHOUT))

.PHONY: bench-memory
bench-memory: $(ENV) ## memory of one worker over a million requests
	$(PYTHON) -m tests.bench.memory

.venv-bench: requirements/bench.in
	rm -rf $@
	python3 -m venv $@
	$@/bin/pip install --quiet --requirement requirements/bench.in --editable ".[chatsky]"

.PHONY: availability
availability: $(ENV) ## time without service around each fault; writes docs/availability.md (FAULT=kill for one)
	$(PYTHON) -m tests.availability.run $(FAULT)

.PHONY: scaling
scaling: $(ENV) ## throughput against worker processes; writes docs/scaling.md and its plot
	$(PYTHON) -m tests.scaling

.PHONY: chatsky-comparison
chatsky-comparison: $(ENV) ## a Chatsky pipeline here and on Chatsky's own Redis storage; writes docs/chatsky.md
	$(PYTHON) -m tests.chatsky_comparison

.PHONY: fuzz
fuzz: $(ENV) ## 100,000 mutated inputs for the decoders and the whole worker (COUNT=n, SEED=n)
	$(PYTHON) -m tests.fuzz --count $(or $(COUNT),100000) $(if $(SEED),--seed $(SEED))

.PHONY: fuzz-report
fuzz-report: $(ENV) ## 1,000,000 of them; writes docs/fuzz-report.md (SEED=n)
	$(PYTHON) -m tests.fuzz --count 1000000 $(if $(SEED),--seed $(SEED)) --report docs/fuzz-report.md

.PHONY: chaos-check
chaos-check: $(ENV) ## show that the chaos suite convicts workers without fencing, deduplication or hand-over by closing
	$(PYTHON) -m pytest tests/chaos/check_sabotage.py -q

.PHONY: pins
pins: ## choose the newest allowed dependencies anew and write requirements/*.txt
	deploy/pins.sh

.PHONY: clean
clean: ## remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist docs/_build

$(ENV): requirements/dev.txt pyproject.toml deploy/environment.sh
	@deploy/environment.sh $(VENV)
	@touch $@
