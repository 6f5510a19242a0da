package doctor

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferbackup/coffer/agent/control"
)

// Clock looks at whether this machine's clock is kept right.
func Clock() control.Check {
	const what = "synchronised"
	var t unix.Timex // Modes 0: it is read, and not set
	state, err := unix.Adjtimex(&t)
	return judgeClock(what, state, t.Status, err)
}

// judgeClock says what the kernel's answer (adjtimex, linux/timex.h) means.
func judgeClock(what string, state int, status int32, err error) control.Check {
	switch {
	case err != nil:
		return Skipped(what, "the kernel does not say: %v", err)
	case status&unix.STA_UNSYNC != 0 || state == unix.TIME_ERROR:
		return Warning(what, "start a time service: systemctl enable --now systemd-timesyncd, or chrony", "nothing keeps the clock right; points and retention go by it")
	}
	return Good(what, "a time service keeps the clock right")
}

// Capabilities looks at whether the agent may read every file of this machine.
func Capabilities() control.Check {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return Skipped("capabilities", "%v", err)
	}
	return judgeCapabilities(string(text), os.Geteuid())
}

func judgeCapabilities(status string, uid int) control.Check {
	const what = "capabilities"
	for line := range strings.Lines(status) {
		value, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		held, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			break
		}
		if held&(1<<unix.CAP_DAC_READ_SEARCH|1<<unix.CAP_DAC_OVERRIDE) != 0 {
			return Good(what, "the agent (uid %d) may read every file", uid)
		}
		return Warning(what, "give the service AmbientCapabilities=CAP_DAC_READ_SEARCH, or run it as root",
			"the agent (uid %d) has neither CAP_DAC_READ_SEARCH nor CAP_DAC_OVERRIDE: files that this user may not read are skipped", uid)
	}
	return Skipped(what, "the kernel does not say")
}
