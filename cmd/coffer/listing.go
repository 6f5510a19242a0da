package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

// listing is what a verb does that lists things: it shows them, or says that there
// are none.
func listing[T any](a *app, get func(*control.Client, context.Context) ([]T, error), none string, text func(*page, []T)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		all, err := get(a.Client, cmd.Context())
		if err != nil {
			return err
		}
		return a.print(all, func(p *page) {
			if len(all) == 0 {
				p.line("%s", none)
				return
			}
			text(p, all)
		})
	}
}

// showing is what a verb does that shows what its first argument names.
func showing[T any](a *app, get func(*control.Client, context.Context, string) (T, error), text func(*page, T)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		v, err := get(a.Client, cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return a.print(v, func(p *page) { text(p, v) })
	}
}
