// Release makes what "make package" puts beside the programs: man pages from their
// help, a software bill of materials from what the linker wrote into them, archives
// and checksums. What it makes depends on its inputs alone: the same source makes the
// same bytes.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

const usage = `usage:
  release manual PROGRAM DIR            man pages of a program and its verbs
  release sbom VERSION PROGRAM...       CycloneDX, to standard output
  release archive FILE DIR              DIR as FILE: .tar.gz or .zip
  release sums DIR                      SHA256SUMS of the files in DIR`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	at, err := epoch()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 3 && args[0] == "manual":
		return manual(args[1], args[2], at)
	case len(args) > 2 && args[0] == "sbom":
		return sbom(os.Stdout, args[1], args[2:], at)
	case len(args) == 3 && args[0] == "archive":
		return archive(args[1], args[2], at)
	case len(args) == 2 && args[0] == "sums":
		return sums(args[1])
	}
	return errors.New(usage)
}

// epoch is the time that everything bears (reproducible-builds.org).
func epoch() (time.Time, error) {
	s, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(s, 0).UTC(), nil
}
