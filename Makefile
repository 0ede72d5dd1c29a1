# The commands of hvdfilter. Each does the set-up first if it is missing; a second call of it takes a
# second. `make help` lists them.
#
# PYTHON=...        the Python to stand on (3.10 or newer); its torch is used if it has one
# MPICC=...         the machine's own MPI instead of the Open MPI from the package registry
# HOROVOD_*=...     passed to Horovod's build, such as HOROVOD_GPU_OPERATIONS=NCCL
# CUDA_HOME=...     the CUDA toolkit to build with
# HVDFILTER_CUDA=   0: nothing of CUDA; 1: CUDA also where no driver is; auto (default): with a driver,
#                   or where a toolkit that matches torch is
# HVDFILTER_CACHE=  folder for built Horovod wheels (default ~/.cache/hvdfilter), or off
# HVDFILTER_JOBS=   compilers to run at once
# NP=2  ARGS=...    ranks of `make demo`; further arguments of it, of pytest and of the sanitizer run

# Found before .venv joins the path: set-up must not stand on what it makes.
PYTHON := $(or $(PYTHON),$(shell command -v python3))
NP ?= 2
ARGS ?=
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

# Open MPI refuses to start as root, lest a faulty program harm the machine. In a container root is
# the only user there is, so there, and only there, it is told that this is meant.
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif

.PHONY: help setup demo test lint format docs sanitize doctor clean
.DEFAULT_GOAL := help

help:
	@echo "make setup     make .venv: torch, MPI, Horovod, hvdfilter (once; minutes)"
	@echo "make demo      train on real data, filtered, in full and at random, and compare"
	@echo "make test      run the tests"
	@echo "make lint      ruff and mypy"
	@echo "make format    let ruff rewrite the code"
	@echo "make docs      the documentation as a site, in docs/_build/html"
	@echo "make sanitize  the scoring tests under the address and undefined-behaviour sanitizers"
	@echo "make doctor    what is installed, and what is wrong with it"
	@echo "make clean     remove .venv and everything built"

setup:
	@"$(PYTHON)" -m scripts.setup_env

# More ranks than cores must be allowed to Open MPI 4 or 5, here by variables, because the mpirun of
# MPICH knows neither the variables nor the option. Both know the two options below.
demo: export OMPI_MCA_rmaps_base_oversubscribe := 1
demo: export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe
demo: setup
	mpirun --bind-to none -np $(NP) hvdfilter compare --model resnet9:32 --epochs 24 \
		--policy_options.keep 0.6 $(ARGS)

test: setup
	"$(BIN)/python" -m pytest $(ARGS)

lint: setup
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/python" -m mypy

format: setup
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

docs: setup
	@"$(BIN)/python" -m scripts.docs_tools
	"$(BIN)/python" -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

sanitize: setup
	@"$(BIN)/python" -m scripts.sanitize $(ARGS) tests/scoring

doctor: setup
	@hvdfilter doctor

clean:
	rm -rf .venv build docs/_build docs/generated hvdfilter.egg-info hvdfilter/*.so
