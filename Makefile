# The doors for people and for CI. Each target does all its own set-up; `make` alone says what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3

help:
	@echo "make hello   pull and run hello-world through every part of Lamina, and draw what happened"
	@echo "make test    every test (root); make check is the fast part without root"
	@echo "make bench   Lamina beside dockerd and podman, as a table (root)"
	@echo "make bench-drivers   the storage drivers side by side, each beside dockerd's (root)"
	@echo "make dev     .venv/bin/lamina, ready to use"

dev:
	@scripts/install dev

hello:
	@scripts/install hello
	@.venv/bin/python scripts/hello.py

check:
	@scripts/install check
	@scripts/check

test:
	@scripts/install test
	@scripts/test

bench:
	@scripts/install bench
	@.venv/bin/python scripts/bench.py

bench-drivers:
	@scripts/install bench
	@.venv/bin/python scripts/bench_drivers.py

.PHONY: help dev hello check test bench bench-drivers
