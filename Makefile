# `make help` lists the targets. Each target installs or builds what it needs into the cache.
CACHE := $(or $(MLFLOW_OPERATOR_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mlflow-operator)
export MLFLOW_OPERATOR_CACHE := $(CACHE)
export KUBECONFIG := $(CACHE)/kubeconfig
export PATH := $(CACHE)/bin:$(PATH)
# If it is set, every Python program that a test starts compiles MLflow again, which takes 6 s.
unexport PYTHONDONTWRITEBYTECODE

# The system's Python is enough: creating the cluster only needs the standard library.
CLUSTER := python3 -m tests.cluster
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

cluster: ## create the test cluster with the images for make demo (IMAGES=auto|pull|build)
	@$(CLUSTER) up
images: ## build the operator's image from this checkout and pull it on the cluster's node
	@$(CLUSTER) images
demo: ## create the cluster, install the operator, create a server, train and load two models
	@begin=$$(date +%s); $(CLUSTER) demo && tests/demo/run --since $$begin
test: venv ## run all test tiers without long-running tests until one fails, and print a report
	$(call run-tiers,test,)
test-all: venv ## like test, with long-running tests
	$(call run-tiers,test-all,ALL=--all)

REPORT := python3 -m tests.report
LOGS := $(CACHE)/logs
TIER = $(REPORT) tier $(1) -- $(2)
# The tiers do not repeat what make has already done for `test`; e2e and contracts use the existing cluster.
SUB := $(MAKE) --no-print-directory --old-file=venv
# $(1): the suite, $(2): additional variables for make. Fast tiers run first. The cluster is created in parallel to the
# first tiers, which do not need it; the tier `cluster` shows the output and ends when the cluster is complete.
define run-tiers
	@$(REPORT) begin $(1); mkdir -p "$(LOGS)"; : >"$(LOGS)/test-cluster.log"; \
	$(CLUSTER) test-cluster >"$(LOGS)/test-cluster.log" 2>&1 & up=$$!; \
	trap '[ -z "$$up" ] || kill $$up 2>/dev/null || :; wait; $(REPORT) show' EXIT; trap 'exit 130' INT TERM; set -e; \
	$(call TIER,lint,$(SUB) lint); \
	$(call TIER,unit,$(SUB) unit $(2)); \
	$(call TIER,cluster,tail -n +1 -f --pid=$$up "$(LOGS)/test-cluster.log"); wait $$up; up=; \
	$(call TIER,chart,$(SUB) chart $(2)); \
	$(call TIER,apiserver,$(SUB) apiserver $(2)); \
	$(call TIER,integration,$(SUB) integration $(2)); \
	$(call TIER,contracts,$(SUB) --old-file=cluster contracts $(2)); \
	$(call TIER,e2e,$(SUB) --old-file=cluster e2e $(2))
endef

venv: ## install the locked Python packages into .venv
	@$(CLUSTER) python
# Recorded, generated from other files, or data.
NOT_PROSE := ^(tests/unit/recorded_manifests|tests/unit/kube/apply/as_stored|tests/prose|LICENSE|uv.lock)|crd.yaml$$|go.(sum|mod)$$|[.](png|svg|json)$$
lint: venv ## check style, types, prose, and the imports between layers
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	@$(MAKE) --no-print-directory --old-file=venv prose
prose: venv ## check the prose of code, messages, charts and docs, and the GitHub workflows
	@$(CLUSTER) lint-tools
	@git ls-files -co --exclude-standard | grep -Ev '$(NOT_PROSE)' | while read -r file; do [ ! -f "$$file" ] || echo "$$file"; done | \
	  xargs vale --output line
	$(if $(wildcard .github/workflows),actionlint)
# ALL=--all adds the long-running tests to unit, chart, apiserver, integration, contracts and e2e.
unit: venv ## run the tests that need no cluster
	$(PYTEST) -n 2 -p tests.report.coverage tests/unit $(ALL)
chart: venv ## test both charts and the manifests
	@$(CLUSTER) test-tools
	$(PYTEST) -n 2 tests/chart $(ALL)
apiserver: venv ## run the tests that only need etcd and kube-apiserver
	@$(CLUSTER) control-plane
	$(PYTEST) -n 2 tests/apiserver $(ALL)
integration: venv ## test the operator with a real control plane and simulated pods
	@$(CLUSTER) control-plane
	@$(CLUSTER) test-tools
	$(PYTEST) -n 2 --dist worksteal tests/integration $(ALL)
contracts: cluster venv ## test the contracts of the images, and the clients of Postgres and S3 with real servers
	@$(CLUSTER) docker-images
	@# Tests that need one of these images wait for the same command.
	@$(CLUSTER) test-images >$(LOGS)/test-images.log 2>&1 & images=$$!; \
	trap 'kill $$images 2>/dev/null || :; wait' EXIT; trap 'exit 130' INT TERM; \
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder tests/cluster tests/contracts $(ALL)
e2e: cluster venv ## run end-to-end tests with real servers on the test cluster
	$(PYTHON) -m tests.e2e $(ALL)
bench: cluster venv ## run the benchmarks (ONLY="a b", ROUNDS=5, RESUME=1, QUICK=1: one shortened round)
	@$(CLUSTER) test-tools
	@$(PYTHON) -m benchmarks take $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(QUICK),--quick) $(if $(RESUME),--resume)
bench-docs: venv ## write the latest benchmark results to docs/figures.md
	@$(PYTHON) -m benchmarks docs
picture: cluster venv ## update the screenshot in docs/
	$(PYTEST) --all tests/e2e/test_workflows.py -k compared
	cp out/compare.png docs/images/compare.png
docs: venv ## build the documentation site in out/site, and check every link and anchor
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build
generate: venv ## generate the CRD, manifests, the charts' values and READMEs, and docs/reference
	@$(CLUSTER) test-tools
	@.venv/bin/python -m tests.generate
catalogue: venv ## add the MLflow release VERSION to the version catalogue; a later version than the default becomes it
	@$(PYTHON) -m tests.catalogue $(VERSION)
	@$(CLUSTER) test-tools
	@.venv/bin/python -m tests.generate
	@.venv/bin/python -m tests.unit.snapshots
package: ## package both charts into out/charts
	@$(CLUSTER) test-tools
	@rm -rf out/charts
	helm package charts/mlflow-operator charts/mlflow-server --destination out/charts
# HELM_PUSH_FLAGS=--plain-http allows a registry without TLS. The signatures are for the digests.
push-charts: package ## push both charts to CHARTS=oci://..., and write their digests to out/charts/digests.txt
	@set -e; for chart in out/charts/*.tgz; do \
	  pushed=$$(helm push "$$chart" "$(CHARTS)" $(HELM_PUSH_FLAGS) 2>&1) || { echo "$$pushed"; exit 1; }; echo "$$pushed"; \
	  echo "$$(helm show chart "$$chart" | sed -n 's/^name: //p')@$$(echo "$$pushed" | sed -n 's/^Digest: //p')" >>out/charts/digests.txt; \
	done
release-notes: venv ## check that all files name VERSION, and write its notes from CHANGELOG.md to out/release-notes.md
	@$(PYTHON) -m tests.release $(VERSION)

clean: ## remove the cluster and everything that was created for it, but keep the cache
	@$(CLUSTER) down
clean-cache: ## remove the cache; the next run builds everything again
	@$(CLUSTER) clean-cache

.PHONY: help cluster images demo test test-all venv lint prose unit chart apiserver integration contracts e2e picture bench bench-docs docs generate catalogue package push-charts release-notes clean clean-cache
.DEFAULT_GOAL := help
