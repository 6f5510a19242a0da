package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/kardianos/service"

	"github.com/cofferbackup/coffer/packaging"
)

// What kardianos/service calls the service managers that are treated apart here.
const (
	platformSystemd = "linux-systemd"
	platformSysV    = "unix-systemv"
)

// initScript is where System V's init has the script of the service.
const initScript = "/etc/init.d/" + serviceName

// stateOf asks the service manager for the state of the service. With System V's init
// kardianos/service takes one that does not run for a fault, and does not know one
// that is not installed.
func stateOf(s service.Service) (service.Status, error) {
	if s.Platform() != platformSysV {
		return s.Status()
	}
	if _, err := os.Stat(initScript); errors.Is(err, fs.ErrNotExist) {
		return service.StatusUnknown, service.ErrNotInstalled
	}
	state, err := s.Status()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == exitStopped {
		return service.StatusStopped, nil
	}
	return state, err
}

// linkScript has the runlevels start and stop the service as its script asks. What
// boots in parallel goes by what these programs write, not by the links alone that
// kardianos/service makes.
func linkScript(ctx context.Context, s service.Service) error {
	if s.Platform() != platformSysV {
		return nil
	}
	for _, linker := range [...][]string{{"update-rc.d", serviceName, "defaults"}, {"chkconfig", "--add", serviceName}} {
		path, err := exec.LookPath(linker[0])
		if err != nil {
			continue
		}
		if err := removeLinks(); err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, path, linker[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("link the service into the runlevels: %s: %w: %s", linker[0], err, bytes.TrimSpace(out))
		}
		return nil
	}
	return nil
}

// unlinkScript takes the service out of the runlevels, when its script is gone.
func unlinkScript(ctx context.Context, s service.Service) error {
	if s.Platform() != platformSysV {
		return nil
	}
	if path, err := exec.LookPath("update-rc.d"); err == nil {
		if out, err := exec.CommandContext(ctx, path, serviceName, "remove").CombinedOutput(); err != nil {
			return fmt.Errorf("take the service out of the runlevels: update-rc.d: %w: %s", err, bytes.TrimSpace(out))
		}
	}
	return removeLinks()
}

func removeLinks() error {
	links, err := filepath.Glob("/etc/rc[0-6].d/[SK][0-9][0-9]" + serviceName)
	if err != nil {
		return fmt.Errorf("find the links of the runlevels: %w", err)
	}
	for _, link := range links {
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the link of a runlevel: %w", err)
		}
	}
	return nil
}

// logPlace is where there is more about a service that does not do what it should.
func logPlace() string {
	switch service.Platform() {
	case platformSystemd:
		return "journalctl -u " + serviceName
	case platformSysV:
		return packaging.ScriptLog
	}
	return "the log of the service manager"
}
