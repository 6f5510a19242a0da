// Package work does what is done with the points of items, each as a job: backup, restore,
// verify and repair.
package work

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/point"
	"github.com/cofferbackup/coffer/agent/proof"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/ruling"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/internal/throttle"
	"github.com/cofferbackup/coffer/restore/target"
)

// Config of a desk: exactly what it uses.
type Config struct {
	Settings func() *config.Config // as they are now; never changed
	State    *state.Folder
	Vaults   *vault.Set
	Points   *point.Book
	Rules    *ruling.Judge
	Proofs   *proof.Book
	Jobs     *queue.Queue
	// Start queues a job.
	Start func(by string, job control.Job, do queue.Work) *queue.Job
	// Source makes an item's source; data, if not nil, is a caller's stream to read
	// instead, to be called name.
	Source func(item config.Item, name string, data io.Reader) (source.Source, error)
	// Target makes the target for a folder of this host.
	Target func(path string) (target.Target, error)
	// Limiter returns what holds back the reading of a policy's backups at that rate; nil if
	// nothing does.
	Limiter func(policy string, rate config.Size) *throttle.Limiter
	// Good is told that an item has a good point of a backup that began then.
	Good func(item string, began time.Time)
	// Record has an event in the audit log.
	Record  func(ctx context.Context, e audit.Event) error
	Host    string
	Version string // of the program
	Process string // tells what this process left behind from what others did
	Clock   func() time.Time
	After   func(time.Duration) <-chan time.Time
	Log     *slog.Logger
}

// Desk has the work done. It implements control.Work, and is safe for concurrent use.
type Desk struct {
	cfg Config
}

var _ control.Work = (*Desk)(nil)

// New returns a desk.
func New(cfg Config) *Desk { return &Desk{cfg} }
