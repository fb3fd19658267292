# `make help` lists the targets. Each target installs or builds what it needs into the cache.
CACHE := $(or $(MLFLOW_OPERATOR_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mlflow-operator)
export MLFLOW_OPERATOR_CACHE := $(CACHE)
export KUBECONFIG := $(CACHE)/kubeconfig
export PATH := $(CACHE)/bin:$(PATH)
# If it is set, every Python program that a test starts compiles MLflow again, which takes six seconds.
unexport PYTHONDONTWRITEBYTECODE

# The system's Python is enough: creating the cluster needs the standard library only.
CLUSTER := python3 -m tests.cluster
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

cluster: ## bring up the test cluster, with the images that make demo needs (IMAGES=auto|pull|build)
	@$(CLUSTER) up
images: ## build the operator's image from this checkout and have the cluster pull it
	@$(CLUSTER) images
demo: ## operator, a server, two models trained, registered and loaded back
	@begin=$$(date +%s); $(CLUSTER) demo && tests/demo/run --since $$begin
test: venv ## every tier once, without long-running tests; stops at the first that fails; prints a report
	$(call run-tiers,test,)
test-all: venv ## the same with long-running tests
	$(call run-tiers,test-all,ALL=--all)

REPORT := python3 -m tests.report
LOGS := $(CACHE)/logs
TIER = $(REPORT) tier $(1) -- $(2)
# What make already did for `test` is not repeated by each tier; e2e and contracts find the cluster that is up.
SUB := $(MAKE) --no-print-directory --old-file=venv
# $(1): the suite, $(2): more variables for make. The order is that in which they fail fastest. The cluster comes up beside
# the first tiers, which need none; the tier `cluster` shows the output and ends when the cluster is there.
define run-tiers
	@$(REPORT) begin $(1); mkdir -p $(LOGS); $(CLUSTER) test-cluster >$(LOGS)/test-cluster.log 2>&1 & up=$$!; \
	trap '[ -z "$$up" ] || kill $$up 2>/dev/null || :; wait; $(REPORT) show' EXIT; trap 'exit 130' INT TERM; set -e; \
	$(call TIER,lint,$(SUB) lint); \
	$(call TIER,unit,$(SUB) unit $(2)); \
	$(call TIER,cluster,tail -n +1 -f --pid=$$up $(LOGS)/test-cluster.log); wait $$up; up=; \
	$(call TIER,chart,$(SUB) chart $(2)); \
	$(call TIER,apiserver,$(SUB) apiserver $(2)); \
	$(call TIER,integration,$(SUB) integration $(2)); \
	$(call TIER,contracts,$(SUB) --old-file=cluster contracts $(2)); \
	$(call TIER,e2e,$(SUB) --old-file=cluster e2e $(2))
endef

venv: ## the project's Python environment, as locked
	@$(CLUSTER) python
lint: venv ## style, types, and which layer may import which
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
# ALL=--all adds the long-running tests to unit, chart, apiserver, integration, contracts and e2e.
unit: venv ## tests that need no cluster
	$(PYTEST) -n 2 tests/unit $(ALL)
chart: venv ## both charts, and the manifests
	@$(CLUSTER) test-tools
	$(PYTEST) -n 2 tests/chart $(ALL)
apiserver: venv ## tests against etcd and kube-apiserver alone
	@$(CLUSTER) control-plane
	$(PYTEST) -n 2 tests/apiserver $(ALL)
integration: venv ## the operator against that API server, with simulated pods
	@$(CLUSTER) control-plane
	@$(CLUSTER) test-tools
	$(PYTEST) -n 2 --dist worksteal tests/integration $(ALL)
contracts: cluster venv ## the images used keep the promises of the published ones, and providers work with them
	@$(CLUSTER) docker-images
	@# Tests that need an image of these wait for the same command.
	@$(CLUSTER) test-images >$(LOGS)/test-images.log 2>&1 & images=$$!; \
	trap 'kill $$images 2>/dev/null || :; wait' EXIT; trap 'exit 130' INT TERM; \
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder tests/cluster tests/contracts $(ALL)
e2e: cluster venv ## real servers on the test cluster
	$(PYTHON) -m tests.e2e $(ALL)
bench: cluster venv ## measure every figure beside its baseline (ONLY="a b", ROUNDS=5, RESUME=1, QUICK=1: each one once)
	@$(CLUSTER) test-tools
	@$(PYTHON) -m benchmarks take $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(QUICK),--quick) $(if $(RESUME),--resume)
bench-docs: venv ## put the last figures into docs/figures.md
	@$(PYTHON) -m benchmarks docs
picture: cluster venv ## take the picture in docs/ anew
	$(PYTEST) --all tests/e2e/test_workflows.py -k compared
	cp out/compare.png docs/images/compare.png
generate: venv ## write what is made from the sources: CRD, manifests, charts' values and READMEs
	@$(CLUSTER) test-tools
	@.venv/bin/python -m tests.generate

clean: ## remove the cluster and everything that was created for it, except the cache
	@$(CLUSTER) down
clean-cache: ## remove the cache: the next run builds everything again
	@$(CLUSTER) clean-cache

.PHONY: help cluster images demo test test-all venv lint unit chart apiserver integration contracts e2e picture bench bench-docs generate clean clean-cache
.DEFAULT_GOAL := help
