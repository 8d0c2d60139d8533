# `make help` lists the targets. All but help, libaom and clean make .venv first if it is missing.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

BIN := .venv/bin
STAGE ?= stage1
# More workers cost more than they save: each imports torch and trains its own fixtures. worksteal
# leaves the tests of a file, which share fixtures, with one worker as far as it can.
WORKERS ?= --numprocesses=auto --maxprocesses=4 --dist=worksteal
# Recipes read these from the environment, quoted, so that a path may hold spaces.
MODEL ?= pretrained
CORPUS ?= datasets/corpus
export PYTHON SOURCE OUT CKPT MODEL CORPUS

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: ARGS (further words for the command), PYTHON (interpreter of setup),"
	@echo "  LAUNCHER (what runs a sweep's jobs: basic, joblib, slurm, slurm_gpu)"

.PHONY: setup
setup: ## Make .venv from requirements.lock (PYTHON=... interpreter of a new one)
	@tools/setup.sh

.PHONY: demo
demo: setup ## The whole chain on the embedded data, in minutes on a CPU
	@$(BIN)/av1part demo $(ARGS)

.PHONY: unit
unit: setup ## The tests of single modules and the doctests, in minutes (ARGS=... for pytest)
	@$(BIN)/python -m pytest -m "not slow" $(WORKERS) tests/unit src $(ARGS)

.PHONY: test
test: setup ## Tests and doctests, without the slow ones (ARGS=... for pytest)
	@$(BIN)/python -m pytest -m "not slow" $(WORKERS) $(ARGS)

.PHONY: test-all
test-all: setup ## Every test
	@$(BIN)/python -m pytest $(WORKERS) $(ARGS)

.PHONY: check
check: setup ## Lint, docstrings, formatting, types and import rules, changing nothing
	@$(BIN)/ruff check
	@$(BIN)/pydoclint src
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

.PHONY: format
format: setup ## Mend what can be mended: imports, formatting, simple lint
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

.PHONY: docs
docs: setup ## Build the site: guides, glossary, experiments, API; a warning is an error
	@rm -rf build/docs build/doctrees docs/api
	@$(BIN)/python tools/experiments_report.py --no-pages
	@$(BIN)/python -m sphinx -q -W --keep-going -c docs -d build/doctrees . build/docs $(ARGS)
	@echo "docs: $(CURDIR)/build/docs/index.html"

.PHONY: data
data: need-source setup ## Build a dataset: SOURCE=clip.y4m [OUT=folder] [ARGS=...]
	@$(BIN)/av1part data build "$$SOURCE" \
	  "out=$${OUT:-datasets/$$(name=$$(basename "$$SOURCE"); echo "$${name%.*}")}" $(ARGS)

.PHONY: corpus
corpus: need-source setup ## Two datasets from a folder, in the background: SOURCE=folder [OUT=datasets/corpus]
	@$(BIN)/python tools/corpus.py "$$SOURCE" "$${OUT:-datasets/corpus}"

.PHONY: encode
encode: need-source need-model setup ## What the pretrained predictor saves on SOURCE=clip.mp4 [MODEL=bundle] [OUT=folder]
	@$(BIN)/av1part encode "$$SOURCE" "model=$$MODEL" \
	  "out=$${OUT:-runs/encode/$$(name=$$(basename "$$SOURCE"); echo "$${name%.*}")}" $(ARGS)

.PHONY: pretrained
pretrained: setup ## Make the pretrained predictor again, from a corpus [CORPUS=datasets/corpus] or CKPT=best.ckpt
	@$(BIN)/python tools/pretrained.py --corpus "$$CORPUS" $(if $(CKPT),--checkpoint "$$CKPT") $(ARGS)

.PHONY: train
train: setup ## Train one stage, or the superblock network: [STAGE=superblock] [ARGS='data.path=folder ...']
	@$(BIN)/av1part train stage=$(STAGE) $(ARGS)

.PHONY: eval
eval: need-ckpt setup ## Validate a checkpoint on its own: CKPT=runs/.../best.ckpt [ARGS=...]
	@$(BIN)/av1part validate "$$CKPT" $(ARGS)

.PHONY: sweep
sweep: need-exp setup ## Run an experiment's jobs: EXP=exp11a/all [LAUNCHER=slurm] [ARGS=...]
	@$(BIN)/av1part train -m experiment=$(EXP) $(if $(LAUNCHER),hydra/launcher=$(LAUNCHER)) $(ARGS)

.PHONY: libaom
libaom: ## Build libaom's inspect and aomenc-av1part once, and see to aomenc
	@tools/libaom.sh

.PHONY: embedded-data
embedded-data: setup ## Make the embedded dataset again, from scikit-image's photographs
	@$(BIN)/python tools/embedded_data.py $(ARGS)

.PHONY: bench
bench: setup ## Benchmarks and the tables of docs/performance.md (ARGS=... a part)
	@$(BIN)/python benchmarks $(ARGS)

.PHONY: gpu-check
gpu-check: setup ## Train the superblock network on a GPU and compare it with the CPU
	@$(BIN)/python tools/gpu_check.py $(ARGS)

.PHONY: reliability
reliability: setup ## Faults with the long figures, for docs/reliability.md (ARGS=... parts)
	@$(BIN)/python tools/reliability.py $(ARGS)

.PHONY: audit
audit: setup ## Known vulnerabilities of the locked dependencies (needs the network)
	@$(BIN)/python tools/audit.py $(ARGS)

.PHONY: compatibility
compatibility: setup ## Tests with the lowest versions and Python 3.12, 3.13 (ARGS=... parts)
	@$(BIN)/python tools/compatibility.py $(ARGS)

.PHONY: experiments-report
experiments-report: setup ## Tables, plots and pages of the folders in experiments/
	@$(BIN)/python tools/experiments_report.py

.PHONY: readme-picture
readme-picture: setup ## Draw the picture of README.md, from the demo's run folder
	@$(BIN)/python tools/readme_picture.py $(ARGS)

.PHONY: lock
lock: setup ## Resolve pyproject.toml into requirements.lock anew
	@.uv/bin/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 --extra dev --extra joblib --extra cluster --extra bench --extra trees --extra vmaf pyproject.toml -o requirements.lock $(ARGS)

.PHONY: clean
clean: ## Remove the environments and all caches; runs/ and datasets stay
	@rm -rf .venv .venv-compat .uv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist docs/api
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Before setup, which may take minutes.
.PHONY: need-source need-model need-ckpt need-exp
need-source:
	@test -n "$$SOURCE" || { echo "make $(firstword $(MAKECMDGOALS)): name a video, picture or folder: SOURCE=clip.y4m" >&2; exit 2; }
need-model:
	@test "$$MODEL" = pretrained -o -f "$$MODEL" || { echo "make encode: there is no $$MODEL: give MODEL=bundle, or leave it out for the pretrained predictor" >&2; exit 2; }
need-ckpt:
	@test -n "$$CKPT" || { echo "make eval: name a checkpoint: make eval CKPT=runs/.../best.ckpt" >&2; exit 2; }
need-exp:
	@test -n "$(EXP)" || { echo "make sweep: name an experiment: make sweep EXP=exp11a/all" >&2; exit 2; }
