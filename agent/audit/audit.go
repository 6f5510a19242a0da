// Package audit is the log of what was done with keys: every operation, change of
// state, decision of a rule, erasure and restore.
//
// The log is a folder of files 000001.jsonl, 000002.jsonl and so on, with a JSON
// object on each line:
//
//	{"seq":57,"prev":"<hash>","time":"2026-11-22T09:00:03.1Z","kind":"key.unwrapped","vault":"site",...}
//
// seq counts the lines of the whole log from 1. prev is the SHA-256, in lower-case
// hexadecimal, of the bytes of the line before, without its newline; 64 zeros before
// the first. The first line of a file is of kind log.opened and names the file before
// and the hash of its last line; the last line of a file that is not written any more
// is of kind log.sealed and says how many lines come before it. The file head has
// the number and hash of the last line, so that lines missing at the end are noticed.
// Room for some thousand lines is kept behind the last one, and for the head in
// head.spare, so that keys can be used and backups restored for a while after the disk
// is full. Lines that a crash tore are moved to files NNNNNN.SEQ-N.torn, and a line says so.
//
// Invariants:
//   - What Record returned without an error is on disk.
//   - Nothing that was written is changed. A line that is changed, removed, inserted
//     or moved is found by Verify, and so is a file.
//   - Who can write to the folder can forge the whole log anew. A hash noted
//     elsewhere, and a sink, are what is held against that.
//   - No secret is in it: an Event has no room for bytes.
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Kind is what an event is about: words of lower-case letters, joined by points.
type Kind string

// The kinds. Those of log are the log's own, and Record refuses them.
const (
	KeyUnwrapped   Kind = "key.unwrapped"   // a key opened a secret
	KeyRefused     Kind = "key.refused"     // a key did not open a secret
	KeyCreated     Kind = "key.created"     // a key, or a version of it, was made
	KeyFollowed    Kind = "key.followed"    // a new version of a key came into use
	KeyLinked      Kind = "key.linked"      // a key was linked to a vault to open it
	KeyUnlinked    Kind = "key.unlinked"    // and unlinked
	KeyRotated     Kind = "key.rotated"     // secrets were wrapped with other keys or versions
	KeyChecked     Kind = "key.checked"     // an operator had a key checked
	KeyRevalidated Kind = "key.revalidated" // an operator confirmed that a vault may be used again
	VaultCreated   Kind = "vault.created"
	VaultMode      Kind = "vault.mode" // the mode of a vault was raised
	StateChanged   Kind = "state.changed"
	AlarmRaised    Kind = "alarm.raised"
	RuleAudited    Kind = "rule.audited" // a rule was broken, and it was let pass
	RuleDenied     Kind = "rule.denied"  // a rule was broken, and it was refused
	RecordRefused  Kind = "record.refused"
	RestoreStarted Kind = "restore.started"
	RestoreDone    Kind = "restore.done"
	ItemErased     Kind = "item.erased"
	ConfigReloaded Kind = "config.reloaded"
	PointHeld      Kind = "point.held"      // a hold was put on a point
	PointReleased  Kind = "point.released"  // and taken away
	PointForgotten Kind = "point.forgotten" // an operator asked for a point to go
	PointRemoved   Kind = "point.removed"   // prune removed a point
	ObjectsGone    Kind = "objects.gone"    // objects are missing that no prune removed
	DrillStarted   Kind = "drill.started"
	DrillDone      Kind = "drill.done"

	LogOpened   Kind = "log.opened"   // the first line of a file
	LogSealed   Kind = "log.sealed"   // the last line of a file
	LogRepaired Kind = "log.repaired" // lines that a crash tore were moved aside
	LogBroken   Kind = "log.broken"   // the log does not end where it ended the last time
)

// Event is something that was done or decided. It never has a secret.
type Event struct {
	Kind        Kind              `json:"kind"`
	Vault       string            `json:"vault,omitempty"`
	Item        string            `json:"item,omitempty"`
	Point       string            `json:"point,omitempty"`
	Key         string            `json:"key,omitempty"` // its name in the config
	Fingerprint string            `json:"fingerprint,omitempty"`
	By          string            `json:"by,omitempty"`      // who asked for it; "": the agent itself
	Outcome     string            `json:"outcome,omitempty"` // one word or two
	Says        string            `json:"says,omitempty"`    // for people
	Job         int64             `json:"job,omitempty"`
	Fields      map[string]string `json:"fields,omitempty"` // what else belongs to it
}

// Line is a line of the log.
type Line struct {
	Seq  int64     `json:"seq"`
	Prev string    `json:"prev"`
	Time time.Time `json:"time"`
	Event
}

// Sink is another place that every line goes to, such as the system's log. It is not
// used by two goroutines at once. If it is an io.Closer, closing the log closes it.
type Sink interface {
	// Send takes a line without its newline, after it is on disk. It does not keep it,
	// and does not wait for long. After an error it is used again for the next line.
	Send(line []byte) error
}

// Config is what a log needs.
type Config struct {
	Dir     string           // made if it is not there, mode 0700
	MaxSize int64            // of a file in bytes, before it is sealed; default 16 MiB
	Clock   func() time.Time // default time.Now
	Log     *slog.Logger     // for alarms about the log itself; default none
	Sinks   []Sink
}

// ByAgent is who asked for what the agent does by itself.
const ByAgent = "agent"

// Errors of the log.
var (
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("audit log is closed")
	// ErrEvent: the event cannot be recorded as it is.
	ErrEvent = errors.New("event cannot be recorded")
)

// Bounds of what is written and read.
const (
	defaultSize = 16 << 20
	maxReserve  = 1 << 20  // bytes of room kept on the disk: some thousand events
	maxSays     = 8 << 10  // bytes of Says; the rest is cut off
	maxEvent    = 64 << 10 // bytes of all texts of an event
	maxLine     = 1 << 20  // bytes of a line
	maxTorn     = 64 << 20 // bytes after the last whole line that a crash can have left
)

// Record writes an event, and returns when it is on disk. It is safe for concurrent
// use, and events recorded at once share the cost.
//
// After an error the event may be in the log or not. A caller must then refuse the
// operation that the event is about: an agent whose disk is full works with no key, once
// the room is used up that the log has kept for that.
// The next Record tries again; the log is whole in any case. Once ctx is done nothing
// is written; it is not looked at after the writing began.
func (l *Log) Record(ctx context.Context, e Event) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("record %s in the audit log: %w", e.Kind, err)
	}
	e, err := checked(e)
	if err == nil {
		err = l.join(e)
	}
	if err != nil {
		return fmt.Errorf("record %s in the audit log: %w", e.Kind, err)
	}
	return nil
}
