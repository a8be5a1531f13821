# What a person types. Each target is one sentence here and one script in scripts/; `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: help run test e2e bench fuzz audit image clean

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## Install what is missing, build, and start CodeCast (RELEASE=1: fully optimised; ARGS='--http 0.0.0.0:8080')
	@scripts/run.sh $(ARGS)

test: ## Everything a change must pass: format, clippy, tests, real clients (this is what CI runs)
	@scripts/test.sh

e2e: ## The long tests as well: ten-minute runs, whole client matrices (about an hour)
	@scripts/e2e.sh

bench: ## Benchmarks of the cores and of the whole server, with optimisation
	@scripts/bench.sh

fuzz: ## What peers may send, by libFuzzer: a minute each; nightly where present (ARGS='session 600': one, longer)
	@scripts/fuzz.sh $(ARGS)

audit: ## Licences, banned crates and sources of all dependencies
	@scripts/audit.sh

image: ## Build the container image codecast:latest with docker, podman or buildah
	@scripts/image.sh

clean: ## Remove everything that was built or installed inside this folder; keeps codecast-data/
	@rm -rf target fuzz/target web/dist web/node_modules tests/node_modules
