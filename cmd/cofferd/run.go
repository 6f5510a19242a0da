package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent"
	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
)

// Memory is kept small rather than the collector idle: the data itself passes
// through buffers of fixed size, so collecting often costs little.
const (
	gcPercent   = 30
	memoryLimit = 128 << 20 // soft
)

func runCommand(clock func() time.Time) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run the service in the foreground",
		Long: `Run the service in the foreground, until SIGINT or SIGTERM. Running jobs stop at a
safe point; a backup that was stopped goes on where it was when it is run again.
SIGHUP has the configuration read anew, as coffer config reload does.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return underManager(cmd.Context(), func(ctx context.Context) error { return run(ctx, path, clock) })
		},
	}
	cmd.Flags().StringVar(&path, "config", defaultConfig(), "configuration `file`")
	return cmd
}

// run is the service.
func run(ctx context.Context, path string, clock func() time.Time) error {
	settings, err := config.Load(path)
	if err != nil {
		return err
	}
	log, err := newLogger(settings.Agent.Log)
	if err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)

	access, listener, err := listen(ctx, settings.Agent, log)
	if err != nil {
		return err
	}
	parts, closeParts := newParts(log, clock)
	defer closeParts()
	sinks, err := auditSinks(settings.Audit)
	if err != nil {
		return fmt.Errorf("audit.syslog: %w", err)
	}
	watched, err := supervisor(log)
	if err != nil {
		return err
	}
	hup, ignore := reloads()
	defer ignore()
	return agent.Run(ctx, agent.Config{
		Settings: settings, Load: func() (*config.Config, error) { return config.Load(path) }, Reload: hup, Supervisor: watched,
		Access: func(cfg config.Agent) (control.Access, error) { return control.LocalAccess(listenOptions(cfg)) },
		Parts:  parts, Clock: clock, After: time.After, Sinks: sinks, Log: log, Program: versionInfo(path),
	}, listener, access)
}

// listenOptions is who is let in, by a configuration.
func listenOptions(cfg config.Agent) control.ListenOptions {
	return control.ListenOptions{Group: cfg.SocketGroup, Roles: map[control.Role][]string{
		control.RoleViewer: cfg.Roles.Viewer, control.RoleOperator: cfg.Roles.Operator,
		control.RoleRestorer: cfg.Roles.Restorer, control.RoleKeyAdmin: cfg.Roles.KeyAdmin,
	}}
}

// listen opens the control socket, or takes it from systemd.
func listen(ctx context.Context, cfg config.Agent, log *slog.Logger) (access control.Access, l net.Listener, err error) {
	opts := listenOptions(cfg)
	if access, err = control.LocalAccess(opts); err != nil {
		return access, nil, err
	}
	if l, err = handedOver(cfg.Socket, log); l != nil || err != nil {
		return access, l, err
	}
	if l, err = control.Listen(ctx, cfg.Socket, opts); err != nil {
		return access, nil, fmt.Errorf("open control socket: %w", err)
	}
	return access, l, nil
}

// auditSinks is where the audit log goes besides the agent's state.
func auditSinks(cfg config.Audit) ([]audit.Sink, error) {
	if !cfg.Syslog {
		return nil, nil
	}
	s, err := audit.Syslog()
	if err != nil {
		return nil, err
	}
	return []audit.Sink{s}, nil
}

func versionInfo(config string) control.Version {
	return control.Version{Version: control.BuildVersion(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		PKCS11: withPKCS11, FIPS: withFIPS(), Config: config}
}

// newLogger returns the logger that the configuration asks for.
func newLogger(cfg config.Log) (*slog.Logger, error) {
	var level slog.Level
	if cfg.Level != "" {
		if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
			return nil, fmt.Errorf("agent.log.level: %w", err)
		}
	}
	if h := managerLog(level); h != nil {
		return slog.New(h), nil
	}
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
	}
	if h := newJournalHandler(level); h != nil {
		return slog.New(h), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
}
