package control

import (
	"context"
	"io"
	"iter"
)

// Backend is what the agent offers. All methods are safe for concurrent use, and
// return an error that wraps an *Error where the caller's program should know
// which fault it is.
//
// A sequence (iter.Seq2) yields values with a nil error, and ends after its
// first error. It may be walked once. Stopping early releases what it holds.
type Backend interface {
	System
	Settings
	Vaults
	Keys
	Custody
	Items
	Points
	Retention
	Policies
	Work
	Jobs
}

// System is the agent itself.
type System interface {
	Status(ctx context.Context) (Status, error)
	Version(ctx context.Context) (Version, error)
	// Diagnose tries every key, store, folder and source, and says what to mend. What
	// does not work is in the diagnosis, not an error.
	Diagnose(ctx context.Context) (Diagnosis, error)
	// VerifyAudit reads the audit log and checks its chain. A broken chain is a
	// report, not an error.
	VerifyAudit(ctx context.Context, req AuditVerify) (AuditReport, error)
}

// Settings is the agent's configuration.
type Settings interface {
	// CheckConfig reads a configuration as the agent would on its next start, and
	// changes nothing. A wrong configuration is a report, not an error.
	CheckConfig(ctx context.Context, req ConfigCheck) (ConfigReport, error)
	// ReloadConfig has the agent read its configuration file anew. One that is wrong,
	// or that only a restart can take up, is a report, and changes nothing.
	ReloadConfig(ctx context.Context) (ConfigReport, error)
}

// Vaults are the vaults of the configuration, made or not.
type Vaults interface {
	Vaults(ctx context.Context) ([]Vault, error)
	Vault(ctx context.Context, name string) (Vault, error)
	// CreateVault makes a vault in the store that the configuration names.
	// CodeConflict if there is one already.
	CreateVault(ctx context.Context, req VaultCreate) (VaultCreated, error)
}

// Keys are the keys of the configuration.
type Keys interface {
	// Keys lists every version that is known of every key, of each key the one in
	// use first.
	Keys(ctx context.Context) ([]Key, error)
	// CreateKey makes a key where the configuration says that it should be.
	CreateKey(ctx context.Context, req KeyCreate) (Key, error)
	// CheckKey goes through everything that a key needs, in order, and says what to
	// mend where. A key that fails is a report, not an error.
	CheckKey(ctx context.Context, req KeyCheckRequest) (KeyReport, error)
	// KeyUsage says what would be lost without a key, or one version of it.
	KeyUsage(ctx context.Context, req KeyUsageRequest) (KeyUsage, error)
}

// Items are the items of the configuration.
type Items interface {
	Items(ctx context.Context) ([]Item, error)
	Item(ctx context.Context, name string) (Item, error)
	// EraseItem destroys every wrapping of an item's secrets, and what of its
	// objects may be deleted. CodeBadRequest unless it is confirmed, CodeConflict
	// while a hold or a retention keeps the item.
	EraseItem(ctx context.Context, req ItemErase) (ItemErased, error)
}

// Points are the recovery points. Where a point is named, it is a selector as
// ParseSelector reads it, unless it is to be forgotten.
type Points interface {
	// Points lists the points of an item, the oldest first, or those of all items, item
	// by item. However many there are, few are in memory at a time.
	Points(ctx context.Context, req PointsRequest) iter.Seq2[Point, error]
	Point(ctx context.Context, item, point string) (Point, error)
	// Entries lists what a point holds, in the order of the tree.
	Entries(ctx context.Context, req EntriesRequest) iter.Seq2[Entry, error]
	// Diff lists what differs between two points, in the order of the tree.
	Diff(ctx context.Context, req DiffRequest) iter.Seq2[DiffEntry, error]
	// Content writes one file to w. If it returns an error, what was written is
	// not the file.
	Content(ctx context.Context, req ContentRequest, w io.Writer) error
}

// Retention is what is kept beyond its policy, and what goes.
type Retention interface {
	// HoldPoint puts a hold on a point: nothing lets it go until it is released.
	HoldPoint(ctx context.Context, req PointHold) (Hold, error)
	// ReleasePoint takes one hold or all of them from a point, which is returned as it
	// is then. CodeNotFound if there is no such hold.
	ReleasePoint(ctx context.Context, req PointRelease) (Point, error)
	// ForgetPoints asks for points to go, and returns them: the next prunes mark and
	// remove them. CodeBadRequest if one is not named by its whole id, CodeConflict if one
	// is held, or if the item would have none left.
	ForgetPoints(ctx context.Context, req PointForget) ([]Point, error)
	// Prune starts the job that marks what nothing needs any more, and removes what was
	// marked long enough ago.
	Prune(ctx context.Context, req PruneRequest) (Job, error)
}

// Policies are the policies of the configuration.
type Policies interface {
	Policies(ctx context.Context) ([]Policy, error)
	// Explain says what a policy does next, and of each point of its items why it is
	// kept or when it goes.
	Explain(ctx context.Context, name string) (Explanation, error)
	// RunPolicy starts the backups of a policy now, outside its schedule.
	RunPolicy(ctx context.Context, req PolicyRun) ([]Job, error)
}

// Work starts jobs. Each method returns as soon as the job exists; the job goes
// on when ctx ends.
type Work interface {
	Backup(ctx context.Context, req BackupRequest) (Job, error)
	Restore(ctx context.Context, req RestoreRequest) (Job, error)
	Verify(ctx context.Context, req VerifyRequest) (Job, error)
}

// Jobs are the jobs that the agent remembers.
type Jobs interface {
	// Jobs lists jobs, the newest first, without their skipped entries.
	Jobs(ctx context.Context, filter JobFilter) ([]Job, error)
	Job(ctx context.Context, id int64) (Job, error)
	// Cancel asks a job to stop and returns at once; that it has stopped is in its
	// events. No error if it has ended already.
	Cancel(ctx context.Context, id int64) error
	// Events follows a job until it ends. The first event is always the job as it
	// is now, the last one the job as it ended; they are one if it has ended. after
	// is the Seq of the last event that the caller has seen (0 for none), so that
	// notes are not told twice. A caller that is slow misses progress, never notes or
	// states.
	Events(ctx context.Context, id int64, after uint64) iter.Seq2[Event, error]
	// Input is the data of a backup that was asked for with an input. It returns
	// when the job has read all of r or has ended; with what the job failed with, if
	// it did. It is called once; a job whose input does not come within a minute
	// fails, since its caller is gone. Reading io.EOF from r is the
	// end of the data; any other error means that the data is not whole, and the
	// backup must fail.
	Input(ctx context.Context, id int64, r io.Reader) error
}
