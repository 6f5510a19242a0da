package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"

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

// array writes a sequence as it comes, as writeJSON writes a list. After an error the
// list has no end: nobody takes it for all there is.
func array[T any](w io.Writer, seq iter.Seq2[T, error]) error {
	out := bufio.NewWriterSize(w, 64<<10)
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("  ", "  ")
	before := "[\n  "
	for v, err := range seq {
		text.Reset()
		if err == nil {
			err = enc.Encode(v)
		}
		if err != nil {
			out.Flush() //nolint:errcheck // there is an error already
			return err
		}
		out.WriteString(before) //nolint:errcheck // the next one says it
		if _, err := out.Write(bytes.TrimSuffix(text.Bytes(), []byte("\n"))); err != nil {
			return unwritten(err)
		}
		before = ",\n  "
	}
	end := "\n]\n"
	if before[0] == '[' {
		end = "[]\n"
	}
	out.WriteString(end) //nolint:errcheck // Flush says it
	return unwritten(out.Flush())
}
