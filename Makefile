# Verbs a person types. `make` alone lists them.
STUDY ?=
MACHINE ?=
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
PYTHON ?= python3

READY := .venv/.ready
BIN := .venv/bin
PAGE := _build/html/index.html
BUILD = $(BIN)/robustbias build --cores $(CORES) $(if $(STUDY),--study $(STUDY))

# Which parameters of book/edition.yml apply: MACHINE=gpu, or those for any machine.
export ROBUSTBIAS_MACHINE = $(MACHINE)

# For verbs that need a study.
named = $(if $(STUDY),,$(error say which study: make $@ STUDY=name))

.DEFAULT_GOAL := help
.PHONY: help setup lock book pdf test miniature lint lab explorer serve train bench publish verify clean

help:
	@awk -F ': .*## ' '/^[a-z]+: .*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## install everything into .venv, as locked; LATEST=1 takes the newest in range

# The lock pins every package by hash. The project itself comes last, without its dependencies.
LOCKED = --require-hashes --requirement requirements.lock
RANGES = --requirement requirements.txt --editable '.[dev]'
WANTED = $(if $(LATEST),$(RANGES),$(LOCKED))

$(READY): requirements.lock requirements.txt pyproject.toml
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python '>=3.11' .venv && \
		uv pip install --quiet --python .venv $(WANTED) && \
		uv pip install --quiet --python .venv --no-deps --editable .; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install --quiet $(WANTED) && \
		$(BIN)/python -m pip install --quiet --no-deps --editable .; \
	fi
	@touch $@

book: $(READY) ## execute what changed and render the book; STUDY=name executes that study too
	@$(BUILD) book
	@echo "the book: $(CURDIR)/$(PAGE)"

pdf: book ## print the book as one PDF (needs Chromium)
	@echo "the book: $$($(BIN)/robustbias pdf)"

test: $(READY) ## run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(CORES) --dist loadfile

miniature: $(READY) ## fetch, execute and render study imagenet on small files of its formats
	@$(BIN)/python tests/miniature.py _build/miniature --book

lock: ## pin what the ranges allow today into requirements.lock (needs uv)
	@uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
		--no-emit-package robustbias --python-version 3.11 --extra dev \
		requirements.txt pyproject.toml --output-file requirements.lock

lint: $(READY) ## check style, and that chapters carry no outputs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/nbstripout --verify chapters/*.ipynb

lab: $(READY) ## open the chapters in JupyterLab
	@$(BIN)/jupyter lab chapters

# One image at a time gains nothing from threads, and two cores lose much to them.
explorer: $(READY) ## serve the unit explorer, live, on this machine
	@OMP_NUM_THREADS=1 $(BIN)/robustbias explorer

serve: book ## serve the rendered book on this machine
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(dir $(PAGE)) 8000

train: $(READY) ## train the networks of STUDY=name
	$(named)
	@$(BIN)/robustbias train $(STUDY)

bench: $(READY) ## time the slow parts, one JSON line each
	@for benchmark in $(filter-out %/recipes.py %/robustness.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$benchmark || exit 1; done

publish: $(READY) ## execute STUDY=name; put its chapters into book/STUDY, its answer into README
	$(named)
	@$(BUILD) book
	@$(BIN)/robustbias publish $(STUDY)

verify: $(READY) ## execute the published studies again, or STUDY=name, and compare every number
	@$(BIN)/robustbias verify $(STUDY) --jobs $(CORES)

clean: ## remove what was generated, .venv excepted
	@rm -rf _build .snakemake
