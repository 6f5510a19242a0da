//go:build !linux

package doctor

import "github.com/cofferbackup/coffer/agent/control"

// Clock looks at whether this machine's clock is kept right.
func Clock() control.Check { return Skipped("synchronised", "this system does not say") }

// Capabilities looks at whether the agent may read every file of this machine.
func Capabilities() control.Check { return Skipped("capabilities", "there are none on this system") }
