package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// journalHandler writes records to journald with each attribute as a field of its
// own: journalctl COFFER_ITEM=etc finds those of an item. The message has them too,
// for people.
type journalHandler struct {
	level  slog.Level
	fields map[string]string
	prefix string                          // of the groups that are open
	text   func(slog.Handler) slog.Handler // attributes and groups so far, for the message
}

// newJournalHandler returns nil unless standard error goes to journald.
func newJournalHandler(level slog.Level) slog.Handler {
	if ok, err := journal.StderrIsJournalStream(); err != nil || !ok {
		return nil
	}
	return &journalHandler{level: level, prefix: "COFFER_", text: func(h slog.Handler) slog.Handler { return h }}
}

func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	var attrs bytes.Buffer
	line := h.text(slog.NewTextHandler(&attrs, &slog.HandlerOptions{Level: h.level, ReplaceAttr: bare}))
	if err := line.Handle(ctx, r); err != nil {
		return err
	}
	message := r.Message
	if rest := strings.TrimSpace(attrs.String()); rest != "" {
		message += " " + rest
	}
	fields := maps.Clone(h.fields)
	if fields == nil {
		fields = make(map[string]string)
	}
	r.Attrs(func(a slog.Attr) bool {
		addField(fields, h.prefix, a)
		return true
	})
	fields["COFFER_MESSAGE"] = r.Message
	err := journal.Send(message, priority(r.Level), fields)
	if err != nil { // journald is being restarted
		_, err = fmt.Fprintln(os.Stderr, message)
	}
	return err
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.fields = maps.Clone(h.fields)
	if next.fields == nil {
		next.fields = make(map[string]string)
	}
	for _, a := range attrs {
		addField(next.fields, h.prefix, a)
	}
	next.text = func(t slog.Handler) slog.Handler { return h.text(t).WithAttrs(attrs) }
	return &next
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.prefix = h.prefix + fieldName(name) + "_"
	next.text = func(t slog.Handler) slog.Handler { return h.text(t).WithGroup(name) }
	return &next
}

// bare leaves out what journald keeps beside the message.
func bare(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
		return slog.Attr{}
	}
	return a
}

func addField(fields map[string]string, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	name := prefix + fieldName(a.Key)
	if v.Kind() != slog.KindGroup {
		fields[name] = v.String()
		return
	}
	if a.Key != "" {
		prefix = name + "_"
	}
	for _, inner := range v.Group() {
		addField(fields, prefix, inner)
	}
}

// fieldName is a name that journald takes: upper case, digits and underscores.
func fieldName(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
