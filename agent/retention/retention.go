// Package retention has the vaults keep what the policies and the holds say, and lets go of
// the rest: it prunes, holds points and releases them, and explains why a point stays.
package retention

import (
	"context"
	"log/slog"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/point"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/vault"
)

// Config of a warden: exactly what it uses.
type Config struct {
	Settings func() *config.Config // as they are now; never changed
	Vaults   *vault.Set
	Points   *point.Book
	// Start queues a job.
	Start func(by string, job control.Job, do queue.Work) *queue.Job
	// Record has an event in the audit log.
	Record func(ctx context.Context, e audit.Event) error
	Host   string
	Clock  func() time.Time
	Log    *slog.Logger
}

// Warden keeps points, and has them go. It implements control.Retention, and is safe for
// concurrent use.
type Warden struct {
	cfg Config
}

var _ control.Retention = (*Warden)(nil)

// New returns a warden.
func New(cfg Config) *Warden { return &Warden{cfg} }
