//go:build unix

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps secrets out of core dumps.
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turn off core dumps: %w", err)
	}
	return undumpable()
}
