//go:build !linux

package testkit

import "syscall"

// dieWithUs asks for nothing: only Linux ends a child whose test was killed.
func dieWithUs() *syscall.SysProcAttr { return nil }
