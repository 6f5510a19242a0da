package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/cofferbackup/coffer/agent"
	"github.com/cofferbackup/coffer/agent/control"
)

// manager tells systemd how the agent does (sd_notify(3)). It implements
// agent.Supervisor.
type manager struct {
	log      *slog.Logger
	patience time.Duration
}

// supervisor returns systemd if that started the process and wants to be told, or
// nil.
func supervisor(log *slog.Logger) (agent.Supervisor, error) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil, nil
	}
	patience, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return nil, fmt.Errorf("read what systemd says of its watchdog: %w", err)
	}
	return &manager{log: log, patience: patience}, nil
}

func (m *manager) Ready(status string) { m.tell(daemon.SdNotifyReady, status) }

func (m *manager) Reloading() {
	m.tell(daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec(), "Reading the configuration anew")
}

func (m *manager) Alive(status string) { m.tell(daemon.SdNotifyWatchdog, status) }

func (m *manager) Stopping() {
	m.tell(daemon.SdNotifyStopping, "Jobs come to a safe point")
}

func (m *manager) Patience() time.Duration { return m.patience }

func (m *manager) tell(state, status string) {
	if _, err := daemon.SdNotify(false, state+"\nSTATUS="+status); err != nil {
		m.log.Warn("systemd not told", "state", state, "err", err)
	}
}

// handedOver returns the control socket if systemd listens on it for the agent, or
// nil. It must be the one that coffer looks for.
func handedOver(path string, log *slog.Logger) (net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take the socket that systemd hands over: %w", err)
	}
	if len(listeners) == 0 {
		return nil, nil
	}
	if path == "" {
		path = control.DefaultSocket
	}
	if len(listeners) > 1 || listeners[0] == nil || listeners[0].Addr().String() != path {
		for _, l := range listeners {
			if l != nil {
				l.Close() //nolint:errcheck // it is systemd's
			}
		}
		return nil, &control.Error{Code: control.CodeBadRequest,
			Message: fmt.Sprintf("the socket that systemd hands over is not agent.socket, which is %s", path),
			Next:    "give both the same path: ListenStream in coffer.socket (systemctl edit coffer.socket), or agent.socket in the config"}
	}
	log.Info("systemd holds the control socket", "socket", path)
	return listeners[0], nil
}
