# Two commands are enough: `make up` serves a model on this machine, `make test` proves that it works.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# make splits names at spaces, and so do programs of the platform: a path with one is refused before anything is begun.
#   $(call unspaced,WHAT,PATH,FIX)
unspaced = $(if $(word 2,x$(2)x),$(error $(1): '$(2)' has a space (allowed: a path without spaces; fix: $(3))))
$(call unspaced,the checkout,$(CURDIR),move or clone it to a folder without a space in its path)
$(call unspaced,CACHE,$(CACHE),name another folder)
$(call unspaced,MODELCAR_CACHE,$(MODELCAR_CACHE),name another folder)
$(call unspaced,MODELCAR_STATE,$(MODELCAR_STATE),name another folder)

# `make up BUNDLE=FOLDER`: out of a bundle comes all that is downloaded or built otherwise (docs/air-gapped.md).
# It writes what each later command of make has to know of it, so make reads that file, which it makes first.
ifneq ($(BUNDLE),)
# What the user says comes before what a former bundle's file says.
USERS_PACKAGES := $(MODELCAR_PRESENT_PACKAGES)
include .venv/bundle.mk
ifeq ($(MAKE_RESTARTS),)
.venv/bundle.mk: always
	@$(NEW_ENOUGH)
	@MODELCAR_PRESENT_PACKAGES='$(or $(USERS_PACKAGES),$(MODELCAR_PRESENT_PACKAGES))' $(PYTHON3) -m local.bundle unpack "$(BUNDLE)"
always: ;
endif
else
-include .venv/bundle.mk
endif

UV_VERSION := 0.13.9
CACHE ?= $(if $(MODELCAR_CACHE),$(MODELCAR_CACHE),.cache)
# uv from PATH where there is one, else the pinned one from the Python package index, in the cache.
UV := $(or $(if $(BUNDLED),local/bundle/no-uv),$(shell command -v uv),$(CACHE)/uv/bin/uv)
$(call unspaced,uv,$(UV),link it into a folder without a space that comes first on PATH)
PYTHON := .venv/bin/python
LOCAL := UV=$(abspath $(UV)) $(PYTHON) -m local
STACK ?= local
#: A Python that runs before there is an environment.
PYTHON3 ?= python3
NEW_ENOUGH = $(PYTHON3) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"error: Python {v.major}.{v.minor} is $(PYTHON3) here; 3.11 or newer is needed")'

#: What pip and uv show while they download is for terminals.
QUIET = $(shell [ -t 2 ] && [ -z "$$CI" ] || echo --quiet)

.PHONY: help
help: ## show the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(CACHE)/uv/bin/uv:
	@echo "── uv $(UV_VERSION) (not on PATH: installed into $(CACHE)/uv)"
	@$(NEW_ENOUGH)
	@$(PYTHON3) -m venv $(CACHE)/uv
	@$(CACHE)/uv/bin/python -m pip install $(QUIET) --disable-pip-version-check uv==$(UV_VERSION)

# The environment is made again where its Python went, as with an upgrade of the system: its link leads nowhere then.
ifeq ($(realpath .venv/bin/python),)
.PHONY: .venv/.locked
endif

ifneq ($(BUNDLED),)
.venv/.locked: requirements.lock
	@$(PYTHON) -V > /dev/null 2>&1 || { echo "error: $(PYTHON) does not run: the Python that it was made with is gone" \
	  "(fix: make up BUNDLE='$(BUNDLED)', which makes it again)" >&2; exit 1; }
	@$(PYTHON) -m local.bundle check
else
# The lock holds hashes and no index addresses, so it installs from any mirror.
.venv/.locked: requirements.lock | $(UV)
	@echo "── Python environment from requirements.lock"
	@$(UV) venv --quiet --allow-existing .venv
	@$(UV) pip sync $(QUIET) --python .venv --require-hashes requirements.lock
	@touch $@
endif

.PHONY: env
env: .venv/.locked

.PHONY: lock
lock: | $(UV) ## resolve requirements.lock again from pyproject.toml
	$(UV) pip compile --no-config --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml --extra google --group program --group dev --output-file requirements.lock
	$(PYTHON) -m local.lock

.PHONY: up
up: env ## serve a model here: tools, platform, image, service, one request; in Docker: make up KIND=1
	@$(LOCAL) up $(if $(KIND),--kind "$(KIND)")

.PHONY: bundle
bundle: env ## pack all that `make up` needs for a machine without registries: make bundle ARGS="--python 3.12"
	@UV=$(abspath $(UV)) $(PYTHON) -m local.bundle pack $(ARGS)

.PHONY: platform
platform: env ## start the embedded platform only; with others' programs: make platform ARGS="--with keda"
	@$(LOCAL) platform $(ARGS)

.PHONY: status
status: env ## show the platform's processes
	@$(LOCAL) status

.PHONY: down
down: env ## stop the platform; its data stay for the next `make up`
	@$(LOCAL) down

.PHONY: clean
clean: env ## stop it and remove its data and the local stack's state
	@$(LOCAL) clean

.PHONY: pulumi
pulumi: env ## run pulumi on the local stack: make pulumi ARGS="preview --stack local"
	@$(LOCAL) pulumi $(ARGS)

.PHONY: preview
preview: env ## preview a stack with the policy pack, without any account: make preview STACK=dev
	@$(LOCAL) preview $(STACK) $(ARGS)

.PHONY: deploy
deploy: env ## run `pulumi up` on a stack of your backend, with the policy pack: make deploy STACK=dev
	@$(LOCAL) deploy $(STACK) $(ARGS)

.PHONY: drift
drift: env ## tell whether somebody changed a stack past the program: make drift STACK=dev
	@$(LOCAL) drift $(STACK) $(ARGS)

.PHONY: smoke
smoke: env ## try which placements a cluster's KServe honours: make smoke STACK=local
	@$(LOCAL) operate smoke $(STACK) $(ARGS)

.PHONY: validate
validate: env ## look whether a stack's model serves, offline for certain: make validate STACK=local
	@$(LOCAL) operate validate $(STACK) $(ARGS)

.PHONY: chat
chat: env ## talk to a model of a stack: make chat STACK=local ARGS="--ask 'What are you?'"
	@$(LOCAL) operate chat $(STACK) $(ARGS)

.PHONY: kernels
kernels: env ## save what a stack's servers compiled, for the model's image: make kernels STACK=dev
	@$(LOCAL) operate kernels $(STACK) save $(ARGS)

.PHONY: idle
idle: env ## let a stack keep no pod, so that its GPU nodes go: make idle STACK=local
	@$(LOCAL) idle $(STACK) $(ARGS)

.PHONY: wake
wake: env ## let it serve again: make wake STACK=local
	@$(LOCAL) wake $(STACK) $(ARGS)

.PHONY: rollback
rollback: env ## serve the image that was served before: make rollback STACK=local
	@$(LOCAL) rollback $(STACK) $(ARGS)

.PHONY: doctor
doctor: env ## look whether machine, credentials, registry and cluster are ready: make doctor STACK=dev
	@$(LOCAL) doctor $(STACK) $(ARGS)

.PHONY: prune
prune: env ## tell which images of removed models can go: make prune STACK=dev (ARGS=--delete deletes them)
	@$(LOCAL) operate prune $(STACK) $(ARGS)

.PHONY: coldstart
coldstart: env ## measure how long models of several sizes take to be served, phase by phase
	@$(LOCAL) coldstart $(ARGS)

.PHONY: gpu-report
gpu-report: env ## serve models of true dimensions on this machine's GPU, measured beside bare vLLM: ARGS="--minutes 25"
	@UV=$(abspath $(UV)) $(PYTHON) -m local.gpu_report $(ARGS)

.PHONY: runbook
runbook: env ## walk through the runbook here, with evidence for each step; more: ARGS="--with keda,argocd"
	@$(LOCAL) runbook $(ARGS)

.PHONY: rehearse
rehearse: env ## do what the workflows do to dev, on this machine and without an account
	@$(LOCAL) rehearse

.PHONY: pin
pin: env ## resolve a tag to its digest: make pin IMAGE=vllm/vllm-openai:v0.23.0
	@$(LOCAL) pin $(IMAGE)

.PHONY: bench
bench: env ## measure build and push beside other ways (half an hour, 40 GB): make bench ARGS="--cases 1x16"
	@UV=$(abspath $(UV)) $(PYTHON) -m bench run $(ARGS)

.PHONY: reference
reference: env ## write the generated pages of docs/, and the provider's types, again
	@$(PYTHON) -m components.config.reference
	@$(PYTHON) -m components.stack.output_schema > docs/outputs.schema.json
	@$(PYTHON) -m local.provider_types
	@$(PYTHON) -m local.support

.PHONY: docs
docs: env ## build the documentation site into .local/site; a broken link fails
	@$(PYTHON) -m sphinx -q -W --keep-going -b html docs .local/site

.PHONY: pictures
pictures: env ## draw the pictures of docs/ again from their text (D2)
	@for picture in docs/images/*.d2; do \
	  $$($(PYTHON) -m local.tools d2) --layout elk --pad 16 $$picture $${picture%.d2}.svg; done

# What needs no program of the platform.
.PHONY: static
static: env
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@$(PYTHON) -m local.lock --check
	@$$($(PYTHON) -m local.tools actionlint) .github/workflows/*.yml
	@$(MAKE) --no-print-directory docs

.PHONY: check
check: static ## static checks: format, lint, types, the lock, the workflows, the documentation, the scanners
	@$(MAKE) --no-print-directory audit

.PHONY: audit
audit: env ## what is known to be wrong with what this is built on, and with what it puts into clusters
	@UV=$(abspath $(UV)) $(PYTHON) -m local.audit $(ARGS)

.PHONY: campaign
campaign: env ## try faults and bad input on a platform of its own, and report: make campaign ARGS="--seed 2"
	@UV=$(abspath $(UV)) $(PYTHON) -m tests.campaign $(ARGS)

.PHONY: soak
soak: env ## change and roll back 200 times, then serve 24 models at once: does anything grow?
	@UV=$(abspath $(UV)) $(PYTHON) -m tests.campaign.soak $(ARGS)

.PHONY: release
release: env ## check, build, sign and tag a version: make release VERSION=0.3.0 ARGS="--key cosign.key --dry-run"
	@UV=$(abspath $(UV)) $(PYTHON) -m local.release "$(VERSION)" $(ARGS)

.PHONY: hooks
hooks: env ## check each commit of this checkout before it is made (pre-commit)
	@$(PYTHON) -m pre_commit install --install-hooks > /dev/null

.PHONY: test-unit
test-unit: env ## unit tests (Pulumi mocks; under a minute), on all processors
	@$(PYTHON) -m pytest -n auto -q tests/unit

SELECTED := not extended

.PHONY: test
test: static ## the tests of a change: static, unit, engine (real CLI), local (real cluster)
	@$(LOCAL) tools
	@$(MAKE) --no-print-directory audit # it looks at what was built
	@failed=0; export UV=$(abspath $(UV)); \
	  $(PYTHON) -m pytest -n auto -q tests/unit || failed=1; \
	  $(PYTHON) -m pytest -n 4 --dist loadfile -m "$(SELECTED)" --durations=25 tests/engine || failed=1; \
	  $(PYTHON) -m pytest -m "$(SELECTED)" --durations=25 tests/local || failed=1; \
	  exit $$failed

.PHONY: test-all
test-all: env ## also those that take minutes each, or build programs that only they need
	@for tool in cosign kaniko kyverno kserve-manager-older; do $(PYTHON) -m local.tools $$tool > /dev/null; done
	@$(MAKE) --no-print-directory test SELECTED="extended or not extended"
