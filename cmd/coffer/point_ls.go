package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferbackup/coffer/agent/control"
)

func (a *app) pointLsCmd() *cobra.Command {
	var shallow bool
	cmd := &cobra.Command{
		Use:   "ls ITEM[@POINT] [PATH]",
		Short: "List what a point holds",
		Long: `List what a point holds below PATH, or all of it. With --json each entry is one
line.`,
		Example: `  coffer point ls etc
  coffer point ls etc@2026-09-02 /etc/ssh
  coffer point ls etc --json | jq -r 'select(.size > 1e6) | .path'`,
		Args: takes(1, 2, "an item and a path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			item, point, err := splitPoint(args[0])
			if err != nil {
				return err
			}
			req := control.EntriesRequest{Item: item, Point: point, Path: strings.Join(args[1:], ""), Recursive: !shallow}
			now := a.now()
			return list(a, a.Entries(cmd.Context(), req), func(w io.Writer, e control.Entry) {
				entryLine(w, e, now)
			})
		},
	}
	cmd.Flags().BoolVar(&shallow, "shallow", false, "only what is directly in PATH")
	return cmd
}

// list writes a sequence as it comes: lines of text, or of JSON.
func list[T any](a *app, seq iter.Seq2[T, error], text func(io.Writer, T)) error {
	out := bufio.NewWriterSize(a.out, 64<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for v, err := range seq {
		if err == nil && a.json {
			err = unwritten(enc.Encode(v))
		} else if err == nil {
			text(out, v)
		}
		if err != nil {
			out.Flush() //nolint:errcheck // there is an error already
			return err
		}
	}
	return unwritten(out.Flush())
}

// entryLine writes an entry as ls -l does.
func entryLine(w io.Writer, e control.Entry, now time.Time) {
	name := safe(e.Path)
	if e.Type == "symlink" {
		name += " -> " + safe(e.Target)
	}
	if e.Changing {
		name += "  (would not hold still)"
	}
	fmt.Fprintf(w, "%s  %-8s %-8s %9s  %s  %s\n", modeText(e), owner(e.User, e.UID), owner(e.Group, e.GID),
		control.Size(e.Size), entryTime(e.MTime, now), name)
}

func owner(name string, id uint32) string {
	if name == "" {
		return strconv.FormatUint(uint64(id), 10)
	}
	return safe(name)
}

// modeText writes type and mode as ls does.
func modeText(e control.Entry) string {
	kind := map[string]byte{"dir": 'd', "symlink": 'l', "fifo": 'p', "char device": 'c', "block device": 'b'}[e.Type]
	if kind == 0 {
		kind = '-'
	}
	text := []byte{kind, '-', '-', '-', '-', '-', '-', '-', '-', '-'}
	for i, c := range []byte("rwxrwxrwx") {
		if e.Mode&(0o400>>i) != 0 {
			text[i+1] = c
		}
	}
	for _, special := range []struct {
		bit  uint32
		at   int
		mark byte
	}{{0o4000, 3, 's'}, {0o2000, 6, 's'}, {0o1000, 9, 't'}} {
		if e.Mode&special.bit == 0 {
			continue
		}
		if text[special.at] == '-' {
			special.mark -= 'a' - 'A'
		}
		text[special.at] = special.mark
	}
	return string(text)
}
