# Learning to Learn with Language Models: `make book` builds the site, `make test` checks everything.
SHELL := /bin/sh
VENV ?= .venv
PY := $(VENV)/bin/python
SCALE ?= book
PORT ?= 8000
QUARTO ?= auto
PART ?=
DEVICE ?= auto
PRECISION ?= auto
MINUTES ?= 10
# JupyterLab refuses to start for root unless it is told that this is meant, as in a container
LAB := $(shell test "$$(id -u)" = 0 && echo --allow-root)
export QUARTO

.DEFAULT_GOAL := help
.PHONY: help book serve test run full execute export starts models leaderboard bench lab clean assignments grade grade-all

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12
	@echo "Variables: CHAPTER=part/nn_name SCALE=smoke|book|full PART=part DEVICE=auto|cuda:1|cpu PRECISION=auto|bf16|float32 MINUTES=$(MINUTES) PORT=$(PORT) PYTHON=python3.12 QUARTO=auto|1|0 METALEARN_DATA=folder"

# The environment is made once, and brought up to date when one of these files changes.
$(VENV)/.installed: settings.ini setup.py pyproject.toml tools/constraints.txt tools/environment.sh tools/install.py
	@tools/environment.sh $(VENV) dev offline track
	@touch $@

book: $(VENV)/.installed ## install, export the package, run the quick start, render the site
	@$(PY) tools/book.py

serve: ## show the built site on http://127.0.0.1:8000 (PORT=...)
	@test -x $(PY) || { echo "Nothing is built yet: run make book first"; exit 1; }
	@$(PY) tools/book.py --serve $(PORT)

test: $(VENV)/.installed ## run every check, and end with a table
	@$(PY) tools/test_all.py

run: $(VENV)/.installed ## run one chapter: make run CHAPTER=optimization/10_maml SCALE=book
	@test -n "$(CHAPTER)" || { echo "Which one? make run CHAPTER=optimization/10_maml SCALE=smoke|book|full"; $(PY) tools/execute.py list; exit 2; }
	@$(PY) tools/execute.py run $(CHAPTER) --scale $(SCALE)

full: $(VENV)/.installed ## run the chapters of a part at full scale on one GPU: make full PART=language_models; goes on where it stopped
	@test -n "$(PART)" || { echo "Which part? make full PART=language_models [DEVICE=auto|cuda:1|cpu] [PRECISION=auto|bf16|float32] [MINUTES=10; 0: no limit]"; exit 2; }
	@$(PY) tools/full.py $(PART) --device $(DEVICE) --precision $(PRECISION) --minutes $(MINUTES)

execute: $(VENV)/.installed ## run all chapters whose stored outputs are not fresh; can be interrupted and goes on later
	@$(PY) tools/execute.py all

export: $(VENV)/.installed ## write metalearn_book/ from the notebooks, and generated cells into the notebooks
	@$(PY) tools/export.py

assignments: $(VENV)/.installed ## build the students' notebooks from the solutions
	@$(PY) tools/assign.py build

grade: $(VENV)/.installed ## grade a submission, or a folder of them: make grade SUBMISSION=... [OUT=...] [ASSIGNMENT=02]
	@test -n "$(SUBMISSION)" || { echo "Which one? make grade SUBMISSION=notebook-or-folder [OUT=folder] [ASSIGNMENT=02]"; exit 2; }
	@$(PY) tools/assign.py grade "$(SUBMISSION)" $(if $(OUT),--out "$(OUT)") $(if $(ASSIGNMENT),--assignment "$(ASSIGNMENT)")

grade-all: $(VENV)/.installed ## check all assignments at full scale: solutions run whole, full marks, hostile submissions
	@$(PY) tools/assign.py check --scale full

starts: $(VENV)/.installed ## make the starts that come with the package anew, from the data sets: 10 minutes of one core
	@$(PY) benchmarks/starts.py --again

models: $(VENV)/.installed ## pretrain the small language models from the data sets, into the cache: half an hour, once; can be interrupted
	@$(PY) -c "from metalearn_book.language_models.pretraining import build_models; print(*build_models(), sep='\n')"

leaderboard: $(VENV)/.installed ## make the table of all methods, or what is missing of it: at most a day of one core; goes on where it stopped
	@OMP_NUM_THREADS=1 $(PY) benchmarks/leaderboard

bench: $(VENV)/.installed ## measure the inner-loop engine against other libraries: 10 minutes, on a machine that does nothing else
	@benchmarks/rivals.sh $(VENV)
	@$(PY) benchmarks/inner_loop.py
	@echo "Long runs, each started by itself and going on where it stopped:"; grep -l __main__ benchmarks/*.py | grep -v inner_loop.py | sed 's/^/  python /'

lab: $(VENV)/.installed ## open the chapters in JupyterLab
	@$(PY) -c "import jupyterlab, ipywidgets" 2>/dev/null || tools/environment.sh $(VENV) notebook
	@$(PY) -m jupyterlab $(LAB) --LabApp.default_url=/lab/tree/nbs

clean: ## remove what can be made again (not .venv, not results)
	rm -rf _build _book build dist *.egg-info .quarto .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
