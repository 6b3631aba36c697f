# make demo     set up, run the demo suite, print where the leaderboard is
# make test     set up, run the tests
# make setup    only set up: .venv with the tested versions, redone when requirements change
# make ray      add Ray, for sweeps over several machines

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DETECTRON2 ?= auto# auto: try, and go on without; no: do not try
RUNS ?= runs/demo
# One more than there are cores: tests also wait, for processes, browsers and disks.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

.PHONY: demo test setup detectron2 ray lint format clean

demo: setup
	$(BIN)/lowbit-bench run demo --runs-dir $(RUNS)

# A file's tests run in one process, which builds what they share once. The long files come first.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

setup: $(STAMP)

$(STAMP): requirements.txt requirements-detectron2.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; nothing was installed. Name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -r requirements.txt
	$(BIN)/pip install --no-build-isolation --no-deps -e .
	@if [ "$(DETECTRON2)" != no ]; then $(MAKE) --no-print-directory detectron2 || { \
	  echo "Detectron2 could not be installed (see above): it comes from GitHub and is compiled here."; \
	  echo "All else works: detection runs on the torchvision engine, tests marked detectron2 skip."; \
	  echo "To try again: make detectron2"; }; fi
	@touch $@

# A stalled download gives up after half a minute rather than hanging the set-up.
detectron2:
	GIT_TERMINAL_PROMPT=0 GIT_HTTP_LOW_SPEED_LIMIT=1000 GIT_HTTP_LOW_SPEED_TIME=30 \
	  $(BIN)/pip install --no-build-isolation -r requirements-detectron2.txt

ray: setup
	$(BIN)/pip install -r requirements-ray.txt

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs build *.egg-info
