# `make help` lists the targets. Everything is installed into .venv and node_modules; scripts/prepare says what else.
SHELL := /bin/bash
.DEFAULT_GOAL := help

BIN := .venv/bin
# Without it every process would compile all that it imports again.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)
PYTEST := $(BIN)/python -m pytest
LAB := $(BIN)/python -m lab
CORES := $(shell nproc)
# Tests on labs wait for most of their time.
WAITING := $(shell echo $$(( 3 * $(CORES) )))
SEED ?=
N ?= 20
TESTS ?= tests/contract tests/lab tests/e2e
SAMPLE := $(if $(SEED),--sample-seed=$(SEED))
NAME ?= demo
ROLLS ?= 1
CLUSTER ?= sentinel
MEGABYTES ?= 0
LOAD ?= 0
ROLLERS ?= drain eks-rolling-update eks-rolling

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' \
		'{ line = sprintf("  %-15s", $$1); n = split($$2, words, " "); \
		   for (i = 1; i <= n; i++) { \
		     if (length(line) + 1 + length(words[i]) > 79) { print line; line = sprintf("%17s", "") } \
		     line = line " " words[i] } \
		   print line }'

.PHONY: prepare
prepare: ## Install what the other targets need
	@scripts/prepare

.PHONY: control-plane
control-plane: prepare ## Build the lab's Kubernetes control plane, unless it is there (ten minutes the first time)
	@$(BIN)/python -m lab.controlplane.build

.PHONY: demo
demo: CLUSTER = demo
demo: control-plane ## Roll a small cluster under live traffic and judge it (CLUSTER=real: one that grew)
	@$(LAB) demo --cluster $(CLUSTER)

.PHONY: baseline
baseline: control-plane ## Compare kubectl drain, another roller and a roll (ROLLS=5 ROLLERS="drain eks-rolling" CLUSTER=shards MEGABYTES=200 LOAD=20)
	@$(LAB) baseline --cluster $(CLUSTER) --rolls $(ROLLS) --megabytes $(MEGABYTES) --load $(LOAD) $(ROLLERS:%=--roller %)

.PHONY: bench-switches
bench-switches: prepare ## Ways to switch a master under Sentinel, side by side and cut off everywhere (15 minutes)
	@$(BIN)/python -m benchmarks.switches

.PHONY: bench-clients
bench-clients: prepare ## Redis clients of four languages while groups are rolled, and drained (5 minutes; needs Node.js, Go, Java, Maven)
	@$(BIN)/python -m benchmarks.clients

.PHONY: bench-load
bench-load: prepare ## How long clients stall under loads of up to 20 MB/s: large values, MULTI, Lua, queues, messages (7 minutes)
	@$(BIN)/python -m benchmarks.load

.PHONY: bench-plan
bench-plan: control-plane ## How long the plan of 1,000 nodes and 10,000 pods takes, and its memory (5 minutes)
	@$(BIN)/python -m benchmarks.plan

.PHONY: bench-command
bench-command: control-plane ## How long `eks-rolling plan` takes on the demo's cluster
	@$(BIN)/python -m benchmarks.command

.PHONY: test
test: lint control-plane ## Everything that CI runs: proves the product, and the lab where that has changed (SEED=1 draws a sample again)
	@$(BIN)/python -m scripts.side_by_side --scope=test $(SAMPLE)
	@$(BIN)/python -m scripts.lab_proven || $(MAKE) --no-print-directory test-lab

.PHONY: test-lab
test-lab: control-plane ## The lab alone: that it behaves as a cluster and an AWS account do; records in tests/lab/proven.sha256 what was proven
	$(PYTEST) -n $(WAITING) --dist loadgroup tests/lab
	@$(BIN)/python -m scripts.lab_proven --record

.PHONY: test-all
test-all: lint control-plane ## All tests: every kill point, every whole roll, the lab, and what rolls called against what is granted
	@$(BIN)/python -m scripts.side_by_side --scope=all $(SAMPLE)
	$(PYTEST) tests/permissions
	@$(MAKE) --no-print-directory test-lab

.PHONY: flakes
flakes: control-plane ## Run TESTS N times beside busy loops, and say how often each failed (N=20 TESTS="tests/contract tests/lab")
	@$(BIN)/python -m scripts.flakes $(N) $(TESTS)

.PHONY: fuzz
fuzz: N = 100000
fuzz: prepare ## Give the product N hostile declarations, marks, replies, requests and answers each (N=100000 SEED=1 PART=marks)
	@$(BIN)/python -m tests.fuzz --number $(N) $(if $(SEED),--seed $(SEED)) $(if $(PART),--part $(PART)) $(if $(FROM),--first $(FROM))

.PHONY: planted
planted: control-plane ## Plant faults in a copy of the product, and say which suite finds each (FAULTS="lock restore": some of them)
	@$(BIN)/python -m tests.planted $(FAULTS)

.PHONY: test-large
test-large: control-plane ## Rolls over large Redis Clusters and large data sets, which take their time (not part of test)
	$(PYTEST) tests/large

.PHONY: test-versions
test-versions: prepare ## Migrations on Redis 6.2, 7.2, 7.4 and 8, Valkey 8 and 9, which are fetched (not part of test)
	EKS_ROLLING_REDIS_VERSIONS="$$(scripts/redis-versions)" $(PYTEST) tests/versions

.PHONY: quick
quick: prepare ## The tests that need no lab, kill points sampled (70 seconds)
	$(PYTEST) -q -n $(CORES) --scope=quick $(SAMPLE) tests/hostile tests/unit tests/stacks tests/model

.PHONY: lint
lint: prepare ## Format check, linter, types, import rules, dead code
	@$(BIN)/ruff format --check --quiet . || (echo "run: make format" && exit 1)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m scripts.dead_code

.PHONY: format
format: prepare ## Format the code
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .

.PHONY: synth
synth: prepare ## Synthesize the stack that cdk.json describes into cdk.out
	@npx cdk synth --quiet

.PHONY: settings
settings: prepare ## Write the table of all settings into docs/settings.md, and the schema for editors
	@$(BIN)/python -m scripts.settings_table
	@$(BIN)/python -m scripts.settings_schema

.PHONY: costs
costs: prepare ## Count what a roll costs, into docs/costs.md
	@$(BIN)/python -m scripts.cost_table

.PHONY: roles
roles: prepare ## Write what each step's role could do into docs/threat-model.md
	@$(BIN)/python -m scripts.role_table

.PHONY: permissions
permissions: control-plane ## Write what each Kubernetes group may do into docs/permissions.md, as a lab's API server answers
	@$(BIN)/python -m scripts.permissions_page

.PHONY: layer
layer: prepare ## Build the functions' dependency layer, and measure its size and how fast steps start
	@$(BIN)/python -m scripts.measure_layer

.PHONY: drawing
drawing: prepare ## Draw the state machines into docs/workflow.md
	@$(BIN)/python -m scripts.draw_workflow

.PHONY: screenshots
screenshots: control-plane ## Take the pictures of the documents, from a real roll in a lab (ten minutes)
	@$(BIN)/python -m scripts.screenshots

.PHONY: lab-up
lab-up: control-plane ## Start a lab with the demo's cluster (NAME=demo) and deploy the application into it
	@$(LAB) up --name $(NAME) --spec lab/clusters/demo.yaml
	@$(LAB) deploy --name $(NAME)

.PHONY: lab-roll
lab-roll: ## Roll that lab's cluster
	@$(LAB) roll --name $(NAME)

.PHONY: lab-shell
lab-shell: ## A shell inside that lab, with kubectl and eks-rolling
	@$(LAB) shell --name $(NAME)

.PHONY: lab-down
lab-down: ## End that lab
	@$(LAB) down --name $(NAME)

.PHONY: lock
lock: prepare ## Resolve the dependencies of pyproject.toml again
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --custom-compile-command "make lock" \
		--group functions --group deploy --group lab --group dev --output-file requirements.txt pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --custom-compile-command "make lock" \
		--group functions --output-file lambdas/requirements.txt
	@npm install --package-lock-only --silent

.PHONY: dist
dist: prepare ## Build the wheel and the sdist into dist/, check them, and try the wheel in an empty environment
	@$(BIN)/python -m scripts.distribution

.PHONY: clean
clean: ## Remove everything that was made here, labs included; the built control plane stays in the user's cache
	@if [ -x $(BIN)/python ]; then $(LAB) down --all >/dev/null 2>&1 || true; fi
	@rm -rf .venv node_modules cdk.out dist .lab .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
