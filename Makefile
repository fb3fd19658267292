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
demo: ## operator, a server, a model trained, registered and loaded back
	@$(CLUSTER) demo
	@tests/demo/run
# when it began: the last part of it leaves out, and names, what a slow machine has no time for
test: export MLFLOW_OPERATOR_TEST_BEGAN := $(shell date +%s)
test: lint unit chart cluster contracts e2e ## everything, in the order in which it fails fastest

venv: ## the project's Python environment, as locked
	@$(CLUSTER) python
lint: venv ## style, types, and which layer may import which
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
unit: venv ## tests that need no cluster
	$(PYTEST) -n 2 tests/unit
chart: venv ## both charts, and the manifests
	@$(CLUSTER) test-tools
	$(PYTEST) -n 2 tests/chart
contracts: cluster venv ## the images used keep the promises of the published ones, and providers work with them
	$(PYTEST) -n 2 --dist loadfile tests/cluster tests/providers
e2e: cluster venv ## real servers on the test cluster
	$(PYTHON) -m tests.e2e --durations=40
bench: cluster venv ## every figure beside what it is measured against (ONLY=name, ROUNDS=5, QUICK=1, RESUME=1)
	@$(CLUSTER) test-tools
	@$(PYTHON) -m benchmarks take $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(QUICK),--quick) $(if $(RESUME),--resume)
bench-docs: venv ## put the last figures into docs/figures.md
	@$(PYTHON) -m benchmarks docs
picture: cluster venv ## take the picture in docs/ anew
	$(PYTEST) tests/e2e/test_workflows.py -k compared
	cp out/compare.png docs/images/compare.png
generate: venv ## write what is made from the sources: CRD, manifests, charts' values and READMEs
	@$(CLUSTER) test-tools
	@.venv/bin/python -m tests.generate

clean: ## remove the cluster and everything that was created for it, except the cache
	@$(CLUSTER) down
clean-cache: ## remove the cache: the next run builds everything again
	@$(CLUSTER) clean-cache

.PHONY: help cluster images demo test venv lint unit chart contracts e2e picture bench bench-docs generate clean clean-cache
.DEFAULT_GOAL := help
