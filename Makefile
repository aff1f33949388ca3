PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test test-fast test-wheel check docs typings bench clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt demo/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt --no-deps -r demo/requirements.txt
	@touch $@

# Real text through a real model; run it again, and nothing is left to do.
demo: install
	@$(BIN)/python -m demo.newsgroups

# An S3 server for the tests, whose libraries are no business of pipemill's.
.s3/.installed: Makefile
	$(PYTHON) -m venv .s3
	.s3/bin/pip install -q --disable-pip-version-check swift==2.38.3
	@touch $@

# Libraries that would make the imports of all the other tests slower.
.extras/.installed: $(VENV)/.installed
	$(PYTHON) -m venv .extras
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > `.extras/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'`/others.pth
	.extras/bin/pip install -q --disable-pip-version-check --no-warn-conflicts -c constraints.txt \
	  'pipemill[peft,onnx,openvino,iceberg,lance]' sqlalchemy
	@touch $@

# The tests start hundreds of Pythons, which would all compile the same files.
test test-fast: export PYTHONDONTWRITEBYTECODE :=
# On two processes; tests/conftest.py orders the tests, and groups them.
PYTEST := -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

test: install .s3/.installed .extras/.installed
	$(BIN)/python $(PYTEST) --durations=30
	.extras/bin/python $(PYTEST) -m extras

# What most changes need while they are made: two minutes.
test-fast: install
	$(BIN)/python $(PYTEST) -m 'not (ray or s3 or kill or slow)'

# The wheel alone, where there is no checkout and none of its environment.
test-wheel: install
	bash tests/wheel/check.sh $(BIN)/python

# One folder that holds the package as the wheel does: mypy and mkdocstrings know nothing of the bridge.
typings:
	@rm -rf typings && mkdir -p typings/pipemill
	@ln -s $(CURDIR)/pipemill/* $(CURDIR)/jobs $(CURDIR)/pipelines $(CURDIR)/actors typings/pipemill/
	@ln -s $(CURDIR)/benchmarks typings/benchmarks

check: install typings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd typings && ../$(BIN)/mypy --config-file ../pyproject.toml -p pipemill -p benchmarks

# The site, in site/. A link that leads nowhere ends it; not so with --quiet, which silences the check.
docs: install typings
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: install
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[benchmark]'
	$(BIN)/python -m benchmarks.whole_run

clean:
	rm -rf .demo build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
