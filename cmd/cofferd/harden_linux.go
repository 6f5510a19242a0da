package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// undumpable also keeps other processes of the same user from reading this one's
// memory.
func undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep this process from being dumped: %w", err)
	}
	return nil
}
