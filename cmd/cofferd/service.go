package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kardianos/service"
	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/packaging"
)

// serviceName is what the service is called wherever it is installed.
const serviceName = "cofferd"

// Exit codes of status are those of systemctl status (LSB): whoever asks for the
// status of a service expects them.
const (
	exitStopped      = 3
	exitNotInstalled = 4
)

// errStopped and errNotInstalled are answers of status.
var (
	errStopped      = errors.New("it does not run")
	errNotInstalled = errors.New("it is not installed")
)

// packagedUnits are where packages put the unit.
var packagedUnits = [...]string{"/usr/lib/systemd/system/cofferd.service", "/lib/systemd/system/cofferd.service"}

func serviceCommands() []*cobra.Command {
	var path string
	install := &cobra.Command{
		Use:   "install --config FILE",
		Short: "Install the service on this host",
		Long: `Install the service, so that it starts with the host: with systemd, SysV init,
OpenRC, launchd or the service manager of Windows. The packages (deb, rpm) have done
this already. It is not started: cofferd start.`,
		Example: "  cofferd install --config /etc/coffer/coffer.yaml",
		Args:    nothing,
		RunE:    func(cmd *cobra.Command, _ []string) error { return install(cmd, path) },
	}
	install.Flags().StringVar(&path, "config", defaultConfig(), "configuration `file`")
	all := []*cobra.Command{install, {
		Use:   "uninstall",
		Short: "Take the service off this host",
		Long: `Stop the service and take it off this host. Configuration, keys, the agent's state
and all backups stay where they are.`,
		Args: nothing,
		RunE: func(cmd *cobra.Command, _ []string) error { return uninstall(cmd) },
	}, {
		Use:   "status",
		Short: "Say in one line whether the service runs",
		Long: `Say in one line whether the service runs. The exit code is 0 if it does, 3 if it
does not, and 4 if it is not installed, as of systemctl status. How its vaults and
items are: coffer status.`,
		Args: nothing,
		RunE: func(cmd *cobra.Command, _ []string) error { return status(cmd) },
	}}
	for _, v := range []struct {
		name, short string
		do          func(service.Service) error
	}{
		{"start", "Start the service", service.Service.Start},
		{"stop", "Stop the service, when its jobs are at a safe point", service.Service.Stop},
		{"restart", "Stop the service and start it again", service.Service.Restart},
	} {
		all = append(all, &cobra.Command{Use: v.name, Short: v.short, Args: nothing, RunE: func(*cobra.Command, []string) error {
			s, err := openService("")
			if err != nil {
				return err
			}
			if _, err := stateOf(s); errors.Is(err, service.ErrNotInstalled) {
				return explain(v.name, err)
			}
			return explain(v.name, v.do(s))
		}})
	}
	return all
}

// nothing is what these commands take.
func nothing(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, and there is %q: see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())}
	}
	return nil
}

// program is what kardianos/service is given. It never runs it: run does that.
type program struct{}

func (program) Start(service.Service) error { return nil }
func (program) Stop(service.Service) error  { return nil }

// openService returns the service of this host as the service manager knows it.
func openService(config string) (service.Service, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	coffer := filepath.Join(filepath.Dir(exe), "coffer")
	s, err := service.New(program{}, &service.Config{
		Name: serviceName, DisplayName: "Coffer backup service", Executable: exe, Arguments: []string{"run", "--config", config},
		Description: "Backs this host up under its owner's keys",
		Option: service.KeyValue{
			"SystemdScript": packaging.Unit(exe, coffer, config), "SysvScript": packaging.Script(exe, config), "RunAtLoad": true, "LogOutput": true,
			"OnFailure": "restart", "OnFailureDelayDuration": "5s", "DelayedAutoStart": true,
		},
	})
	if errors.Is(err, service.ErrNoServiceSystemDetected) {
		return nil, &control.Error{Code: control.CodeFailed, Message: "this host has no service manager that cofferd knows",
			Next: "have its own way of starting things run: cofferd run --config FILE"}
	}
	return s, err
}

func install(cmd *cobra.Command, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("find the configuration: %w", err)
	}
	if _, err := config.Load(path); err != nil {
		return err
	}
	if err := privileged("install"); err != nil {
		return err
	}
	if unit, ok := packagedUnit(); ok {
		return &control.Error{Code: control.CodeConflict, Message: "the package has installed the service: " + unit,
			Next: "systemctl enable --now cofferd; another configuration file: systemctl edit cofferd"}
	}
	s, err := openService(path)
	if err != nil {
		return err
	}
	if err := explain("install", s.Install()); err != nil {
		return err
	}
	if err := linkScript(cmd.Context(), s); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "cofferd is installed (%s) with %s. Start it: cofferd start\n", service.Platform(), path)
	return nil
}

// packagedUnit returns the unit that a package has put on this host; ok is false if none
// has.
func packagedUnit() (path string, ok bool) {
	for _, unit := range packagedUnits {
		if _, err := os.Stat(unit); err == nil {
			return unit, true
		}
	}
	return "", false
}

func uninstall(cmd *cobra.Command) error {
	if err := privileged("uninstall"); err != nil {
		return err
	}
	if unit, ok := packagedUnit(); ok {
		return &control.Error{Code: control.CodeConflict, Message: "the package has installed the service: " + unit,
			Next: "remove the package: apt remove coffer, or dnf remove coffer; only to stop it: systemctl disable --now cofferd"}
	}
	s, err := openService("")
	if err != nil {
		return err
	}
	state, err := stateOf(s)
	if errors.Is(err, service.ErrNotInstalled) {
		return explain("uninstall", err)
	}
	if err == nil && state == service.StatusRunning {
		if err := explain("stop", s.Stop()); err != nil {
			return err
		}
	}
	if err := explain("uninstall", s.Uninstall()); err != nil {
		return err
	}
	if err := unlinkScript(cmd.Context(), s); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), "cofferd is uninstalled. Its configuration, keys, state and backups are where they were.")
	return nil
}

func status(cmd *cobra.Command) error {
	s, err := openService("")
	if err != nil {
		return err
	}
	state, err := stateOf(s)
	line, result := "cofferd does not run. Start it: cofferd start", errStopped
	switch {
	case errors.Is(err, service.ErrNotInstalled):
		line, result = "cofferd is not installed. Install it: cofferd install --config FILE", errNotInstalled
	case err != nil:
		line = fmt.Sprintf("cofferd does not run: the service manager does not say how it is (%v). See what it says: %s", err, logPlace())
	case state == service.StatusRunning:
		line, result = "cofferd runs. How it does: coffer status", nil
	}
	fmt.Fprintln(cmd.OutOrStdout(), line)
	return result
}

// privileged refuses what the service manager would refuse with fewer words.
func privileged(verb string) error {
	if os.Geteuid() <= 0 { // -1 on Windows, whose manager says it well
		return nil
	}
	return &control.Error{Code: control.CodeNoPermission, Message: verb + " the service: only root may",
		Next: "sudo cofferd " + verb}
}

// explain says what to do about a fault of the service manager.
func explain(verb string, err error) error {
	if err == nil {
		return nil
	}
	e := &control.Error{Code: control.CodeFailed, Message: fmt.Sprintf("%s the service: %v", verb, err), Next: "see what it says: " + logPlace()}
	switch {
	case errors.Is(err, service.ErrNotInstalled):
		e.Next = "install it: cofferd install --config FILE"
	case os.IsPermission(err) || privileged(verb) != nil:
		e.Code, e.Next = control.CodeNoPermission, "run it as root: sudo cofferd "+verb
	}
	return e
}
