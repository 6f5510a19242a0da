package testkit

import "syscall"

// dieWithUs makes the kernel end a child whose test was killed.
func dieWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
