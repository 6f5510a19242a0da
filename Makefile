# Everything a developer runs. Heavy tools are built once, at the versions below,
# into a folder outside the tree; a new version here builds them anew.

SHELL      := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

MODULE      := github.com/cofferbackup/coffer
MINIO       := v0.0.0-20260212201848-7aac2a2c5b7c
STATICCHECK := v0.8.2
NFPM        := v2.43.4

CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)
export COFFER_TOOLS ?= $(CACHE)/coffer-tools
TOOLS := $(COFFER_TOOLS)/bin

# The tag, with what came after it; without tags the newest version of the
# changelog and the commit; in a tree without git that version alone.
RELEASE := $(shell sed -n 's/^\#\# \([0-9][0-9.]*\).*/\1/p' CHANGELOG.md | head -n 1)
COMMIT  := $(shell git rev-parse --short HEAD 2>/dev/null)
TAG     := $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null)
VERSION ?= $(if $(TAG),$(TAG:v%=%),$(RELEASE)$(if $(COMMIT),-dev+$(COMMIT)))

# cofferd drives HSMs through cgo where a C compiler with its headers is there,
# and says so in "coffer version" where it is not.
CGO     = $(shell printf '\#include <stdlib.h>\n' | $${CC:-gcc} -E - >/dev/null 2>&1 && echo 1 || echo 0)
# What is released bears the time of the last commit, and of no clock.
SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),$(shell stat -c %Y CHANGELOG.md))
LDFLAGS := -s -w -X $(MODULE)/agent/control.stamp=$(VERSION)
BUILD   := go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# As root nothing may be missing and nothing is skipped.
ROOT := $(shell [ "$$(id -u)" = 0 ] && echo yes)

.PHONY: build demo demo-keyvault test bench package checks lint cross tools clean help

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 20

build: ## bin/cofferd and bin/coffer
	@mkdir -p bin
	CGO_ENABLED=$(CGO) $(BUILD) -o bin/cofferd ./cmd/cofferd
	CGO_ENABLED=0 $(BUILD) -o bin/coffer ./cmd/coffer

demo: ## a tour: keys, a vault, two backups, two restores, compared
	@.ci/need demo
	@$(MAKE) --no-print-directory build
	@packaging/demo/demo.sh

demo-keyvault: ## a tour of a key in Key Vault, without Azure: rotate, revoke, recover
	@.ci/need demo
	@$(MAKE) --no-print-directory build
	@go build -trimpath -buildvcs=false -o bin/kvserver ./internal/kvserver
	@packaging/demo/keyvault.sh

test: ## every test there is
	@.ci/need test
	@$(MAKE) --no-print-directory tools checks

# checks is test on a machine that has what it needs.
checks:
	go vet ./...
	@CGO_ENABLED=$(CGO) $(if $(ROOT),COFFER_TEST_ALL=1) \
		go run ./internal/testrun -race=$(if $(filter 1,$(CGO)),true,false) $(if $(ROOT),-all)

bench: ## beside restic and borg; BENCH='-case a -n 1' for a part
	@.ci/need bench
	@$(MAKE) --no-print-directory build
	go build -trimpath -buildvcs=false -o $(TOOLS)/coffer-bench ./internal/bench
	$(TOOLS)/coffer-bench -o docs/performance.md $(BENCH)

package: ## dist/: deb, rpm, tar.gz, Windows zip, SBOM, checksums
	@.ci/need package
	@$(call tool,nfpm,github.com/goreleaser/nfpm/v2/cmd/nfpm,$(NFPM))
	VERSION='$(VERSION)' SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) TOOLS=$(TOOLS) packaging/build.sh dist $(PARTS)
	@cat dist/SHA256SUMS

lint: tools ## format, vet, staticcheck, go.mod, import arrows, scripts
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
		[ -z "$$unformatted" ] || { echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; }
	go vet ./...
	$(TOOLS)/staticcheck ./...
	go mod tidy -diff
	go test -count=1 ./internal/archtest
	@if command -v shellcheck >/dev/null; then \
		echo shellcheck; shellcheck .ci/run .ci/need packaging/*.sh packaging/*/*.sh; fi

cross: ## does it build for linux/arm64 and windows/amd64, without cgo
	@for target in linux/arm64 windows/amd64; do \
		export CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/}; \
		echo "build and vet $$target"; \
		go build -o /dev/null ./cmd/cofferd; \
		go build -o /dev/null ./cmd/coffer; \
		go vet ./...; \
	done

tools: ## MinIO, staticcheck, nfpm and promtool, once, into $COFFER_TOOLS
	@$(call tool,nfpm,github.com/goreleaser/nfpm/v2/cmd/nfpm,$(NFPM))
	@$(call tool,minio,github.com/minio/minio,$(MINIO))
	@.ci/need promtool
	@$(call tool,staticcheck,honnef.co/go/tools/cmd/staticcheck,$(STATICCHECK))

# tool NAME PACKAGE VERSION: what a binary was built from is in the binary.
define tool
have=$$(go version -m $(TOOLS)/$(1) 2>/dev/null || true); \
	if [[ $$have != *"$$(go env GOVERSION)"*"$(3)"* ]]; then \
		echo "build $(1) $(3) into $(TOOLS), once"; \
		GOBIN=$(TOOLS) GOFLAGS= CGO_ENABLED=0 go install $(2)@$(3); \
	fi
endef

clean: ## what make made in the tree
	rm -rf bin dist
