# SPDX-License-Identifier: Apache-2.0
# Thin: meson and ninja build, tools/ does the rest.
#
#	make deps build     what users need           make deps-test test
#	make demo           a cluster here, measured   make install

BUILD  ?= build
PREFIX ?= /usr/local

.DEFAULT_GOAL := build

build: $(BUILD)/build.ninja
	ninja -C $(BUILD)

$(BUILD)/build.ninja:
	meson setup --prefix=$(PREFIX) $(BUILD)

deps:
	tools/deps build

deps-test: deps
	tools/deps test

demo: deps build
	tools/demo $(BUILD) --size 64M

# The figures of the manual: near and far say where the threads were.
bench: build
	tools/demo $(BUILD) --size 256M --placement near
	tools/demo $(BUILD) --size 256M --placement far

test:
	tools/test

# Also what takes long or needs a special machine.
test-long:
	tools/test --long

install: build
	meson install -C $(BUILD) --no-rebuild

clean:
	rm -rf $(BUILD) build-asan build-tsan build-fuzz

.PHONY: build deps deps-test demo bench test test-long install clean
