# Two commands: `make serve` and `make test`. Both set everything up first, once.
PYTHON ?= $(firstword $(foreach p,python3.11 python3,$(shell command -v $(p))))
ARGS ?=
WORKERS ?= $(shell echo $$(( $$(nproc) < 8 ? $$(nproc) : 8 )))
OPEN_WEBUI := open-webui==0.12.4
PAGES := deploy/monitoring/README.md loadtests/quality/README.md routing/README.md server/README.md
# A first start writes Python's bytecode, so that later ones are fast, whatever the caller's
# environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup serve test check unit servers rest lint docs dashboards pictures tools lock reproducibility \
	triton upstream gpu-setup gpu-check gpu-dry-run \
	conformance conformance-lock open-webui battery presets quality bench bench-full bench-start bench-rivals fuzz faults soak \
	promises clean

help:
	@echo "make serve [ARGS=\"--port 8123\"]   set up if needed, serve the demo model"
	@echo "make test                         set up if needed, run every check and test"
	@echo "make check                        lint, and the tests that need no engine"
	@echo "make setup                        only set up (.venv)"
	@echo "make lint                         formatting, lint, types, import contracts, dependencies"
	@echo "make docs                         write the tables that the code prints into the pages"
	@echo "make dashboards                   write Grafana's dashboards and Prometheus's rules"
	@echo "make pictures                     take those of the page and of the dashboards"
	@echo "make tools                        Debian's Chromium and Prometheus, which some tests need"
	@echo "make lock [ARGS=--upgrade]        write requirements-*.lock from pyproject.toml"
	@echo "make gpu-setup                    set up for NVIDIA's GPUs instead of the CPU (.venv)"
	@echo "make gpu-check                    what Galton promises, tried on this machine's GPU; a report"
	@echo "make reproducibility              the same requests alone, in crowds, chunks, preempted"
	@echo "make battery                      randomness tests of the router's noise (TestU01)"
	@echo "make triton                       compile the kernels with the Tritons of GPUs' torches"
	@echo "make upstream                     faults of vLLM's that Galton works around, each as a program"
	@echo "make gpu-dry-run                  what of a GPU's set-up can be tried without a GPU"
	@echo "make conformance                  real clients (openai, LangChain, lm-eval, ...) on the demo"
	@echo "make conformance-lock             write tests/clients/requirements.lock"
	@echo "make open-webui                   Open WebUI in a browser, in front of the demo"
	@echo "make presets                      tune the demo's presets (galton tune)"
	@echo "make quality                      measure the demo by task and policy, with plots"
	@echo "make bench                        cost of routing beside stock vLLM, ten minutes; a report"
	@echo "make bench-full                   all that loadtests/bench measures, hours"
	@echo "make bench-start                  how long a start takes beside stock vLLM's"
	@echo "make bench-rivals                 beside llama.cpp's server, too"
	@echo "make fuzz                         100,000 wrong requests, and schemathesis's"
	@echo "make faults                       what can happen to a server, five times each"
	@echo "make soak                         an hour of mixed load: is every promise kept?"
	@echo "make promises                     overload, scrapes, disconnects, idle connections: in figures"
	@echo "make clean                        remove .venv and caches"

setup: .venv/.ready

.venv/.ready: deploy/setup.sh requirements-cpu.lock pyproject.toml
	@bash deploy/setup.sh "$(PYTHON)"
	@touch $@

gpu-setup:
	@bash deploy/setup.sh "$(PYTHON)" cuda
	@touch .venv/.ready

# Half an hour. ARGS="--only kernels" for one of the checks.
gpu-check: setup
	.venv/bin/python -m tests.slow.gpu_check $(ARGS)

# Two minutes, and 9 GB the first time.
gpu-dry-run: .venv-cuda/.ready
	.venv-cuda/bin/python -m tests.slow.gpu_dry_run

.venv-cuda/.ready: requirements-cuda.lock | setup
	.venv/bin/uv venv --quiet --clear --python .venv/bin/python .venv-cuda
	.venv/bin/uv pip sync --quiet --python .venv-cuda/bin/python --require-hashes $<
	.venv/bin/uv pip install --quiet --python .venv-cuda/bin/python --no-deps --editable .
	@touch $@

serve: setup
	@exec .venv/bin/galton serve $(ARGS)

# Two lanes, as long as each other: the tests on servers, one engine after another; and all that needs
# none, in the time that engines leave (`nice`), then the rest of the servers.
REST := $(addprefix tests/engine/test_,families.py known_attacks.py reports.py runner_v2.py server_v2.py tune.py)
test: setup
	@$(MAKE) --no-print-directory --jobs=3 --keep-going servers rest lint

check: lint unit

unit: setup
	nice -n 5 .venv/bin/python -m pytest tests/unit --quiet --numprocesses=$(WORKERS) --dist=loadfile \
		--no-loadscope-reorder $(ARGS)

servers: setup
	.venv/bin/python -m pytest tests/engine $(addprefix --ignore=,$(REST)) $(ARGS)

rest: unit
	.venv/bin/python -m pytest $(REST) $(ARGS)

lint: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	nice -n 5 .venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/deptry server models routing loadtests --extend-exclude server/examples
	.venv/bin/deptry tests deploy server/examples --exclude tests/clients --ignore DEP002,DEP004
	.venv/bin/cog -I . --check $(PAGES)

# Tables that the code prints are written into the pages that show them.
docs: setup
	.venv/bin/cog -I . -r $(PAGES)

dashboards: setup
	.venv/bin/python -m deploy.monitoring.rules
	.venv/bin/python -m deploy.monitoring.dashboards

# Three minutes. Needs `make tools`.
pictures: setup
	.venv/bin/python -m tests.slow.pictures $(ARGS)

# Tests that need one of them are skipped without it. As root.
tools:
	apt-get update -qq
	RUNLEVEL=1 apt-get install -y -qq --no-install-recommends chromium prometheus

# torch is left out: its CPU build is not on PyPI, deploy/setup.sh installs it by version and
# without what it requires, which is asked of the installed one.
LOCK := --extra tune --extra train --extra loadtests --extra dev --generate-hashes --no-annotate \
	--python-version 3.11 --custom-compile-command "make lock"
lock: setup
	.venv/bin/python -c "from importlib.metadata import requires; print(*requires('torch'), sep='\n')" \
		> .venv/torch-requires.txt
	.venv/bin/uv pip compile pyproject.toml .venv/torch-requires.txt --extra cpu $(LOCK) \
		--override deploy/lock-overrides.txt --output-file requirements-cpu.lock $(ARGS)
	.venv/bin/uv pip compile pyproject.toml --extra cuda $(LOCK) \
		--python-platform x86_64-manylinux_2_28 --output-file requirements-cuda.lock $(ARGS)

# About 12 minutes on 2 cores: 250 requests in each of 7 circumstances.
reproducibility: setup
	.venv/bin/python -m tests.slow.reproducibility $(ARGS)

# The clients' requirements contradict vLLM's: they have an environment of their own.
conformance: .venv-clients/.ready
	.venv-clients/bin/python -m pytest tests/clients $(ARGS)

.venv-clients/.ready: tests/clients/requirements.lock | setup
	.venv/bin/uv venv --quiet --clear --python .venv/bin/python .venv-clients
	.venv/bin/uv pip sync --quiet --python .venv-clients/bin/python --require-hashes $<
	@touch $@

conformance-lock: setup
	.venv/bin/uv pip compile tests/clients/requirements.in --generate-hashes --no-annotate \
		--python-version 3.11 --custom-compile-command "make conformance-lock" \
		--output-file tests/clients/requirements.lock $(ARGS)

# About five minutes, and two GiB the first time. Needs Chromium: `make tools`.
open-webui: .venv-open-webui/.ready
	.venv/bin/python -m tests.slow.open_webui $(ARGS)

.venv-open-webui/.ready: Makefile | setup
	.venv/bin/uv venv --quiet --clear --seed --python .venv/bin/python .venv-open-webui
	eval "$$(grep -E '^TORCH_(VERSION|INDEX)=' deploy/setup.sh)" && .venv-open-webui/bin/pip install \
		--quiet --no-deps --extra-index-url "$$TORCH_INDEX" "torch==$$TORCH_VERSION"
	.venv/bin/uv pip install --quiet --python .venv-open-webui/bin/python $(OPEN_WEBUI)
	@touch $@

# Needs TestU01: Debian's package libtestu01-0, in the component non-free. A minute and a half;
# ARGS="--battery Crush --stream experts --bits highest" takes about half an hour.
battery: setup
	.venv/bin/python -m tests.slow.battery $(ARGS)

# Those that come with a GPU's torch, vLLM's release and the one before. A minute.
triton: setup
	for version in 3.6.0 3.7.1; do \
		.venv/bin/uv pip install --quiet --no-deps --target build/triton-$$version triton==$$version && \
		PYTHONPATH=build/triton-$$version .venv/bin/python -m tests.shared.compiled_kernels || exit 1; \
	done

# Stock vLLM, without Galton's plugins. A minute.
upstream: setup
	for fault in drafts seeds spinning; do \
		VLLM_PLUGINS= VLLM_LOGGING_LEVEL=ERROR .venv/bin/python tests/slow/upstream/$$fault.py \
			models/demo/checkpoint || exit 1; \
	done

# About an hour. Trials are kept in build/presets: the same command goes on from them.
presets: setup
	.venv/bin/python -m loadtests.presets $(ARGS)

# About an hour; ARGS="--control CONTROL/checkpoint" measures the control beside the demo. Goes on
# from where it was killed.
quality: setup
	.venv/bin/python -m loadtests.quality $(ARGS)

# Both go on from where they were killed. Run nothing else meanwhile.
bench: setup
	.venv/bin/python -m loadtests.bench $(or $(ARGS),routing --rounds 4)

bench-full: setup
	.venv/bin/python -m loadtests.bench $(ARGS)

# ARGS=--cold, ARGS=--compiled. Run nothing else meanwhile.
bench-start: setup
	.venv/bin/python -m loadtests.bench.start $(ARGS)

# Needs a C++ compiler; ten minutes to build, twenty to measure.
bench-rivals: setup
	loadtests/bench/rivals/setup.sh
	.venv/bin/python -m loadtests.bench loadtests/bench/rivals/*.toml $(ARGS)

# About 20 minutes. ARGS="--cases 1000 --examples 0" for a try.
fuzz: setup
	.venv/bin/python -m tests.fuzz $(ARGS)

# About an hour. ARGS="--repeats 1 -k SIGKILL" for some of them. Jumps of the clock need Debian's
# package libfaketime.
faults: setup
	.venv/bin/python -m pytest tests/faults $(ARGS)

# An hour. ARGS="--minutes 150" for longer.
soak: setup
	.venv/bin/python -m loadtests.soak $(ARGS)

# About 40 minutes. ARGS="overload --quick" for one of them, and a tenth of it.
promises: setup
	.venv/bin/python -m loadtests.promises $(ARGS)

clean:
	rm -rf .venv .venv-clients .venv-cuda .venv-open-webui build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
