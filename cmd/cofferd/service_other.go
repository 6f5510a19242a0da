//go:build !windows

package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// underManager runs the service. Its manager, if there is one, ends it by a signal.
func underManager(ctx context.Context, serve func(context.Context) error) error { return serve(ctx) }

// managerLog is where the service manager wants the log; nil: standard error.
func managerLog(slog.Level) slog.Handler { return nil }

// reloads returns a channel that says when somebody sends SIGHUP.
func reloads() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

func defaultConfig() string { return "/etc/coffer/coffer.yaml" }
