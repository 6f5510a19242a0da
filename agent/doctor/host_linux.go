package doctor

import (
	"errors"
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
	// The filters of the unit (SystemCallFilter=@system-service) and of containers refuse
	// the whole of @clock, though this only reads. Then a file may tell.
	if _, gone := os.Stat(timesynced); errors.Is(err, unix.EPERM) && gone == nil {
		state, err = unix.TIME_OK, nil
	}
	return judgeClock(what, state, t.Status, err)
}

// timesynced is there once systemd-timesyncd has set the clock.
const timesynced = "/run/systemd/timesync/synchronized"

// judgeClock says what the kernel's answer (adjtimex, linux/timex.h) means.
func judgeClock(what string, state int, status int32, err error) control.Check {
	switch {
	case errors.Is(err, unix.EPERM):
		return Skipped(what, "not known: the service, or its container, may not ask the kernel; see for yourself: timedatectl, or chronyc tracking")
	case err != nil:
		return Skipped(what, "not known: %v", err)
	case status&unix.STA_UNSYNC != 0 || state == unix.TIME_ERROR:
		return Warning(what, "start a time service: systemd-timesyncd, chrony or ntpd", "nothing keeps the clock right; points and retention go by it")
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
