#!/usr/bin/env bash
# build.sh DIR PART...: builds what is released into DIR. The parts are deb, rpm, tar
# and zip; all, if none is named.
#
# VERSION is stamped into everything, and everything bears SOURCE_DATE_EPOCH: the same
# source, version, Go and C compiler make the same bytes, wherever the tree lies.
set -euo pipefail

out=$(mkdir -p "${1:?usage: build.sh DIR [deb|rpm|tar|zip]...}" && cd "$1" && pwd)
shift
parts=${*:-deb rpm tar zip}
cd "$(dirname "$0")/.."

: "${VERSION:?}" "${SOURCE_DATE_EPOCH:?}" "${TOOLS:?}"
export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C
module=github.com/cofferbackup/coffer
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# programs DIR: coffer and cofferd for GOOS and GOARCH. CC of another machine where
# cofferd, which talks to HSMs by cgo, is for that.
programs() {
	local dir=$1 suffix=
	[ "$(go env GOOS)" != windows ] || suffix=.exe
	mkdir -p "$dir"
	local flags=(-trimpath -buildvcs=false -ldflags "-s -w -buildid= -X $module/agent/control.stamp=$VERSION")
	go build "${flags[@]}" -o "$dir/cofferd$suffix" ./cmd/cofferd
	CGO_ENABLED=0 go build "${flags[@]}" -o "$dir/coffer$suffix" ./cmd/coffer
}

release() { "$work/release" "$@"; }

# documents DIR: what goes with the programs on every system.
documents() {
	mkdir -p "$1"
	cp LICENSE README.md CHANGELOG.md docs/install.md docs/runbook.md docs/threat-model.md packaging/coffer.yaml "$1"
}

# host: what is made with the programs of this machine: man pages, completions.
host() {
	CGO_ENABLED=1 programs "$work/bin"
	mkdir -p "$work/man" "$work/completion"
	for program in coffer cofferd; do
		release manual "$work/bin/$program" "$work/man"
		for shell in bash zsh fish; do
			"$work/bin/$program" completion "$shell" >"$work/completion/$program.$shell"
		done
	done
	gzip -n9 "$work"/man/*.1
	release sbom "$VERSION" "$work/bin/coffer" "$work/bin/cofferd" >"$out/coffer-$VERSION-linux-$arch.cdx.json"
}

# package PACKAGER FILE
package() {
	(cd "$work" && ARCH=$arch VERSION=$VERSION "$TOOLS/nfpm" package --config nfpm.yaml --packager "$1" --target "$out/$2" >nfpm.log) || {
		cat "$work/nfpm.log" >&2
		return 1
	}
}

arch=$(go env GOARCH)
GOOS='' GOARCH='' go build -o "$work/release" ./internal/release
host
cp -r packaging/systemd packaging/scripts packaging/nfpm.yaml "$work"
mkdir -p "$work/share"
cp LICENSE CHANGELOG.md docs/install.md packaging/coffer.yaml "$work/share"
cp "$out/coffer-$VERSION-linux-$arch.cdx.json" "$work/share/sbom.cdx.json"

for part in $parts; do
	case $part in
	deb) package deb "coffer_${VERSION}_$arch.deb" ;;
	rpm) package rpm "coffer-$VERSION.$arch.rpm" ;;
	tar)
		dir=$work/coffer-$VERSION-linux-$arch
		documents "$dir"
		cp -r "$work/bin" "$work/man" "$work/completion" "$work/systemd" "$dir"
		release archive "$out/$(basename "$dir").tar.gz" "$dir"
		;;
	zip)
		dir=$work/coffer-$VERSION-windows-amd64
		documents "$dir"
		cp packaging/windows/*.ps1 "$dir"
		CGO_ENABLED=1 GOOS=windows GOARCH=amd64 CC=x86_64-w64-mingw32-gcc programs "$dir"
		release archive "$out/$(basename "$dir").zip" "$dir"
		release sbom "$VERSION" "$dir/coffer.exe" "$dir/cofferd.exe" >"$out/coffer-$VERSION-windows-amd64.cdx.json"
		;;
	*)
		echo "build.sh: no part $part: there are deb, rpm, tar and zip" >&2
		exit 2
		;;
	esac
done
release sums "$out"
