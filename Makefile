# Two commands set everything up: make quickstart, make test. Each makes the virtual environment if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A thread for each of the parallel workers' operations; tests/conftest.py says which tests a worker takes together. A
# test that ends its worker is named, and the run ends: pytest-xdist would give it to the next worker, and so on.
PYTEST := TF_NUM_INTRAOP_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadscope \
	--no-loadscope-reorder --max-worker-restart=0
COV := --cov --cov-report=term:skip-covered --cov-fail-under=90

# Where Python keeps no byte code, each process that a test starts compiles TensorFlow's 2,700 modules anew, 4 s of 6.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-slow test-tf220 test-browser test-servers test-pytorch test-all coverage docs lint format lock benchmark speedrun clean

# The versions that were tested, by their hashes; then what they lack on another system or Python.
$(VENV)/ready: setup.cfg pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --no-compile --editable '.[dev]'
	touch $@

quickstart: $(VENV)/ready  ## train, evaluate, export and serve English to Chinese
	$(BIN)/python -m pipelines.quickstart

test: $(VENV)/ready  ## all but the long ones; COVERAGE=1 says what they leave out
	$(PYTEST) -m 'not slow and not browser and not servers' $(if $(COVERAGE),$(COV))

test-slow: $(VENV)/ready  ## the long ones; FIFTH=0 to 4 runs a fifth of them
	$(PYTEST) -m slow $(if $(FIFTH),--fifth=$(FIFTH))

# The older TensorFlow that is supported, for TPUs, in an environment of its own.
.venv-tf220/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-tf220
	.venv-tf220/bin/pip install --quiet --no-compile tensorflow==2.20.0 tensorflow-text==2.20.1 \
		tensorflow-serving-api==2.20.0 --editable '.[dev]'
	touch $@

test-tf220: .venv-tf220/ready  ## `make test` on TensorFlow 2.20; ONLY="tests/layers ..." runs a part
	TF_NUM_INTRAOP_THREADS=1 .venv-tf220/bin/python -m pytest -n auto --maxprocesses=4 --dist=loadscope \
		--no-loadscope-reorder --max-worker-restart=0 -m 'not slow and not browser and not servers' $(ONLY)

test-browser: $(VENV)/ready  ## pages in headless Chromium (Debian: apt-get install chromium-driver)
	$(BIN)/python -m pytest -m browser

# The C libraries of older versions, with their TensorFlow Text: what a server of that version loads.
build/tensorflow-%/ready: $(VENV)/ready
	$(BIN)/pip install --quiet --no-deps --no-compile --upgrade --target build/tensorflow-$* $(OLDER_$*)
	touch $@
OLDER_2.18 := tensorflow==2.18.1 tensorflow-text==2.18.1
OLDER_2.19 := tensorflow==2.19.1 tensorflow-text==2.19.0
OLDER_2.20 := tensorflow==2.20.0 tensorflow-text==2.20.1

test-servers: build/tensorflow-2.18/ready build/tensorflow-2.19/ready build/tensorflow-2.20/ready  ## older TF Servings
	$(PYTEST) -m servers tests/serving/test_older_servers.py

# PyTorch, which is no dependency, beside the rest.
test-pytorch: $(VENV)/ready  ## what is converted to PyTorch, run in it; installs it
	$(BIN)/pip install --quiet torch==2.13.0 onnx onnxruntime onnxscript
	$(PYTEST) tests/conversion/test_pytorch.py

test-all: $(VENV)/ready  ## all but the last
	$(PYTEST) -m 'not browser and not servers'

coverage:  ## `make test`, and what it leaves out
	$(MAKE) test COVERAGE=1

# In an environment of its own: MkDocs has nothing to do with what is tested.
docs:  ## builds docs/ as a site, build/docs
	test -x build/venv-docs/bin/mkdocs || ($(PYTHON) -m venv build/venv-docs && \
		build/venv-docs/bin/pip install --quiet 'mkdocs==1.6.1' 'mkdocs-material==9.8.2')
	build/venv-docs/bin/mkdocs build --strict --quiet

lint: $(VENV)/ready
	$(BIN)/black --check --quiet .
	$(BIN)/isort --check-only --quiet .
	$(BIN)/flake8
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/isort --quiet .
	$(BIN)/black --quiet .

# In an environment of its own, and before `make test-pytorch`, whose packages are not of the project.
lock: $(VENV)/ready  ## writes the versions of this environment, with hashes, as those that were tested
	test -x build/venv-uv/bin/uv || ($(PYTHON) -m venv build/venv-uv && build/venv-uv/bin/pip install --quiet uv)
	(echo '# The versions that the tests ran with, on Python 3.11 under Linux. `make lock` writes this file.'; \
		$(BIN)/pip freeze --all --exclude pip --exclude setuptools --exclude-editable | build/venv-uv/bin/uv pip compile --no-deps --generate-hashes --no-annotate \
		--no-header --quiet -) > requirements.lock.new
	mv requirements.lock.new requirements.lock

benchmark: $(VENV)/ready  ## the quickstart's corpus against lookup, word by word and no attention
	$(BIN)/python -m benchmarks.quickstart_baselines

speedrun: $(VENV)/ready  ## minutes of one core until Multi30k en-de has a dev BLEU of 33; DATA_DIR=<its folder>, TOOLKIT=joeynmt or opennmt
	$(BIN)/python -m benchmarks.speedrun --data_dir=$(DATA_DIR) $(if $(TOOLKIT),--toolkit=$(TOOLKIT))

clean:
	rm -rf $(VENV) .venv-tf220 build *.egg-info .pytest_cache .mypy_cache .coverage
