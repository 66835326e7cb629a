# autoglm-edge. `make help` lists what there is; every target installs and fetches what it needs first.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/autoglm-edge
SETUP := python3 models/setup.py
CARGO ?= cargo
# Extra arguments: make test TEST='--test doors', make bench BENCH=--short
TEST ?=
BENCH ?=
LAB ?=
FUZZ ?=
# Speed is measured on what users run; everything else is built to be built fast.
BENCH_PROFILE ?= release

# ONNX Runtime's official builds report to their maker unless this stands in the environment.
export ORT_DISABLE_TELEMETRY := 1

# Runs of continuous integration share their build output.
ifdef CI
export CARGO_TARGET_DIR ?= $(CACHE)/target
endif

.PHONY: help demo test bench bench-llm fuzz lab models build deb lint man clean-cache
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make test TEST='--test doors'   one test file"
	@echo "  make bench BENCH=--short        a short run"
	@echo "  make lab LAB='replug reboot'    scenarios with one of these words in their names; LAB=--list names them"
	@echo "  models and build tools are kept in $(CACHE)"

demo: ## talk to simulated devices through the real daemon (on a terminal it is yours afterwards)
	@$(SETUP) system --groups build demo
	@$(SETUP) runtime
	@$(SETUP) bundles
	@$(CARGO) build --workspace --bins
	@$(CARGO) run --quiet --package autoglm-tests --bin demo

test: ## run all tests on real parts
	@$(SETUP) all
	@$(SETUP) test-tools
	@$(CARGO) build --workspace --bins
	$(CARGO) test --workspace --no-fail-fast $(TEST)
	$(if $(TEST),,python3 -m unittest discover -s models/tests -t models)
	$(if $(TEST),,python3 -m unittest discover -s tests/lab/tests -t tests/lab)

bench: ## measure, with peers in the same run, and print the README's tables
	@$(SETUP) all
	@$(CARGO) build --workspace --bins --profile $(BENCH_PROFILE)
	@$(CARGO) run --quiet --profile $(BENCH_PROFILE) --package autoglm-tests --bin bench -- $(BENCH)
	@$(CARGO) bench --quiet --profile $(BENCH_PROFILE) --package autoglm-protocol --bench wire -- $(BENCH)

bench-llm: ## measure the language model beside onnxruntime-genai and llama.cpp on the same weights (BENCH='--rounds 5 --threads 1')
	@$(SETUP) all
	@$(SETUP) peers
	@$(CARGO) run --quiet --profile $(BENCH_PROFILE) --package autoglm-tests --bin bench-llm -- $(BENCH)

fuzz: ## fuzz the protocol, SECONDS_EACH=20 for each target (FUZZ=pair for one of them)
	@$(SETUP) system --groups build
	@CARGO_TARGET_DIR=$(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/fuzz protocol/fuzz/run.sh $(FUZZ)

lab: ## run the box in an emulator, pull its plugs, and print what became of it (LAB=--short, LAB='replug reboot')
	@$(SETUP) system --groups build demo lab
	@$(SETUP) lab-tools
	@$(CARGO) build --workspace --bins
	@tests/lab/lab scenarios $(LAB)

models: ## fetch ONNX Runtime and build the model bundles
	@$(SETUP) runtime
	@$(SETUP) bundles

build: ## build the daemon and the command line for use (release)
	@$(SETUP) system --groups build
	$(CARGO) build --release --package autoglm-edge

deb: build models ## make the Debian packages of the daemon and of the models, in target/deb
	@python3 systemd/debian/make_deb.py --binaries $(or $(CARGO_TARGET_DIR),target)/release --into $(or $(CARGO_TARGET_DIR),target)/deb --models $(CACHE)

lint: ## formatting, clippy, documentation and (where it is installed) licences
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --document-private-items --quiet
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check licenses bans sources; else echo "cargo deny is not installed: licences not checked"; fi

man: ## write the man pages to target/man
	@mkdir -p target/man
	$(CARGO) run --quiet --package autoglm-edge --bin autoglmctl -- man target/man

clean-cache: ## delete fetched packages, models and shared build output
	rm -rf $(CACHE)
