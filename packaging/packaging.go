// Package packaging is what installs Coffer on a host: the unit of systemd, which the
// packages and "cofferd install" share, and the script for System V's init.
package packaging

import (
	_ "embed"
	"strings"
)

//go:embed systemd/cofferd.service
var unit string

//go:embed sysv/cofferd.sh
var script string

// The lines of the unit that say where things are, as the packages have them.
const (
	unitStart  = "ExecStart=/usr/bin/cofferd run --config /etc/coffer/coffer.yaml\n"
	unitReload = "ExecReload=/usr/bin/coffer config reload\n"
)

// Unit returns the unit of the service for programs and a configuration that are
// where they are given: absolute paths.
func Unit(cofferd, coffer, config string) string {
	return strings.NewReplacer(
		unitStart, "ExecStart="+quote(cofferd)+" run --config "+quote(config)+"\n",
		unitReload, "ExecReload="+quote(coffer)+" config reload\n",
	).Replace(unit)
}

// The lines of the script that say where things are.
const (
	scriptProgram = "program=/usr/bin/cofferd\n"
	scriptConfig  = "config=/etc/coffer/coffer.yaml\n"
)

// ScriptLog is where the service writes its log when the script starts it.
const ScriptLog = "/var/log/cofferd.log"

// Script returns the script of System V's init for a program and a configuration that
// are where they are given: absolute paths.
func Script(cofferd, config string) string {
	word := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'\n" }
	return strings.NewReplacer(scriptProgram, "program="+word(cofferd), scriptConfig, "config="+word(config)).Replace(script)
}

// quote makes one word of a command line of systemd (systemd.service(5)).
func quote(s string) string {
	s = strings.NewReplacer("%", "%%", "$", "$$").Replace(s)
	if !strings.ContainsAny(s, " \t\"'\\;") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
