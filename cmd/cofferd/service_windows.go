package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
)

// underManager runs the service. Where the service control manager started the
// process, that is told of each step and may end it.
func underManager(ctx context.Context, serve func(context.Context) error) error {
	managed, err := svc.IsWindowsService()
	if err != nil {
		return fmt.Errorf("ask Windows who started this: %w", err)
	}
	if !managed {
		return serve(ctx)
	}
	h := &handler{ctx: ctx, serve: serve}
	if err := svc.Run(serviceName, h); err != nil {
		return fmt.Errorf("answer the service control manager: %w", err)
	}
	return h.err
}

// handler answers the service control manager.
type handler struct {
	ctx   context.Context //nolint:containedctx // svc.Handler has no other way
	serve func(context.Context) error
	err   error
}

// Execute implements svc.Handler. An end that nobody asked for has an exit code, so
// that Windows starts the service again.
func (h *handler) Execute(_ []string, asked <-chan svc.ChangeRequest, tell chan<- svc.Status) (bool, uint32) {
	ctx, stop := context.WithCancel(h.ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- h.serve(ctx) }()
	running := svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown}
	tell <- running
	for {
		select {
		case h.err = <-ended:
			tell <- svc.Status{State: svc.StopPending}
			if h.err != nil {
				return true, 1
			}
			return false, 0
		case r := <-asked:
			switch r.Cmd {
			case svc.Interrogate:
				tell <- running
			case svc.Stop, svc.Shutdown:
				running = svc.Status{State: svc.StopPending, WaitHint: 30_000}
				tell <- running
				stop()
			}
		}
	}
}

// managerLog is the event log of Windows, where there is nobody to read standard
// error.
func managerLog(level slog.Level) slog.Handler {
	if managed, err := svc.IsWindowsService(); err != nil || !managed {
		return nil
	}
	log, err := eventlog.Open(serviceName)
	if err != nil {
		return nil
	}
	e := &eventHandler{level: level, out: &events{log: log}}
	e.Handler = slog.NewTextHandler(&e.out.line, &slog.HandlerOptions{Level: level, ReplaceAttr: bare})
	return e
}

// eventHandler writes each record as an event.
type eventHandler struct {
	slog.Handler // writes to out.line
	level        slog.Level
	out          *events
}

// events is the event log, and the line that is being written.
type events struct {
	mu   sync.Mutex
	line bytes.Buffer
	log  *eventlog.Log
}

func (e *eventHandler) Handle(ctx context.Context, r slog.Record) error {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	e.out.line.Reset()
	if err := e.Handler.Handle(ctx, r); err != nil {
		return err
	}
	text := r.Message + " " + strings.TrimSpace(e.out.line.String())
	switch {
	case r.Level >= slog.LevelError:
		return e.out.log.Error(3, text)
	case r.Level >= slog.LevelWarn:
		return e.out.log.Warning(2, text)
	}
	return e.out.log.Info(1, text)
}

func (e *eventHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &eventHandler{Handler: e.Handler.WithAttrs(attrs), level: e.level, out: e.out}
}

func (e *eventHandler) WithGroup(name string) slog.Handler {
	return &eventHandler{Handler: e.Handler.WithGroup(name), level: e.level, out: e.out}
}

// reloads never says anything: Windows has no SIGHUP. See coffer config reload.
func reloads() (<-chan os.Signal, func()) { return nil, func() {} }

func defaultConfig() string { return filepath.Join(os.Getenv("ProgramData"), "coffer", "coffer.yaml") }
