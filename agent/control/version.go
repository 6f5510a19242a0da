package control

import (
	"runtime/debug"
	"strings"
)

// stamp is the version that the linker was told (-X). Nothing else writes it.
var stamp string

// BuildVersion returns the version of the running program, "0.1.0": the one that
// make gave it, or else what the Go toolchain recorded; "(devel)" if neither did.
func BuildVersion() string {
	if stamp != "" {
		return stamp
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return strings.TrimPrefix(info.Main.Version, "v")
}
