package control

import "time"

// BackupRequest asks for a backup of an item.
type BackupRequest struct {
	Item string   `json:"item"`
	Tags []string `json:"tags,omitempty"`
	// FullRead reads every file, also those that look unchanged.
	FullRead bool `json:"full_read,omitempty"`
	// Input says that the data comes from the caller (Jobs.Input) and not from
	// the item's own source.
	Input *BackupInput `json:"input,omitempty"`
}

// BackupInput describes the data that a caller sends.
type BackupInput struct {
	Name string `json:"name,omitempty"` // of the one file in the point; "": the item's choice
}

// Overwrite is what a restore does with files that are there already.
type Overwrite string

// The ways. The zero value is OverwriteIfDifferent.
const (
	OverwriteIfDifferent Overwrite = "if-different" // write where size or time differ
	OverwriteNever       Overwrite = "never"        // leave what is there
	OverwriteAlways      Overwrite = "always"       // compare the content, and write what differs
)

// RestoreRequest asks for a restore.
type RestoreRequest struct {
	Item         string    `json:"item"`
	Point        string    `json:"point,omitempty"`    // a selector; "": latest
	Target       string    `json:"target"`             // absolute path on the agent's host
	Paths        []string  `json:"paths,omitempty"`    // exact paths in the point; none: all
	Patterns     []string  `json:"patterns,omitempty"` // globs over paths in the point
	Overwrite    Overwrite `json:"overwrite,omitempty"`
	Delete       bool      `json:"delete,omitempty"`        // remove what the point does not have
	DryRun       bool      `json:"dry_run,omitempty"`       // say what would be done
	NumericOwner bool      `json:"numeric_owner,omitempty"` // ids as they are, not by name
}

// VerifyLevel is how deep a verify looks.
type VerifyLevel string

// The levels. The zero value is VerifyData.
const (
	VerifyStructure VerifyLevel = "structure" // all that points refer to is there
	VerifyData      VerifyLevel = "data"      // and all of it is read, opened and compared
)

// VerifyRequest asks for a verify.
type VerifyRequest struct {
	Item  string      `json:"item,omitempty"`  // "": all items
	Point string      `json:"point,omitempty"` // "": all points
	Level VerifyLevel `json:"level,omitempty"`
	// Part reads only packs that were not read for long, so many in a hundred of all;
	// 0: all. For VerifyData.
	Part int `json:"part,omitempty"`
	// Repair rebuilds indexes and stores again what the source still has. It throws
	// nothing away.
	Repair bool `json:"repair,omitempty"`
	// Restore restores the item's newest point into a scratch folder and compares it.
	Restore bool `json:"restore,omitempty"`
}

// Kinds of jobs.
const (
	KindBackup  = "backup"
	KindRestore = "restore"
	KindVerify  = "verify"
	KindRekey   = "rekey"
	KindDrill   = "drill"
	KindPrune   = "prune"
)

// JobState is where a job is in its life.
type JobState string

// The states.
const (
	JobQueued    JobState = "queued"
	JobRunning   JobState = "running"
	JobDone      JobState = "done" // also with skipped entries
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// Ended tells whether s is final.
func (s JobState) Ended() bool { return s == JobDone || s == JobFailed || s == JobCancelled }

// Job is one run.
type Job struct {
	ID       int64      `json:"id"`
	Kind     string     `json:"kind"`
	Item     string     `json:"item,omitempty"`  // "" for all
	Vault    string     `json:"vault,omitempty"` // of a job that is about a vault's keys
	Point    string     `json:"point,omitempty"` // id of the point that it reads
	State    JobState   `json:"state"`
	Queued   time.Time  `json:"queued,omitzero"`
	Started  time.Time  `json:"started,omitzero"`
	Ended    time.Time  `json:"ended,omitzero"`
	By       string     `json:"by,omitempty"` // who asked: "uid 0", "policy nightly"
	Policy   string     `json:"policy,omitempty"`
	Priority int        `json:"priority,omitempty"`
	Try      int        `json:"try,omitempty"` // of a policy's run, from 1
	Progress Progress   `json:"progress"`
	Result   *JobResult `json:"result,omitempty"` // of a job that is done
	// Error of a job that failed or was cancelled. Its message need not repeat Kind
	// and Item.
	Error *Error `json:"error,omitempty"`
	// Skips are the first skipped entries, 1000 at the most. Progress.Skipped
	// counts all.
	Skips []Skip `json:"skips,omitempty"`
	// Output is what the job's hooks printed, the last 64 KiB.
	Output string `json:"output,omitempty"`
}

// JobResult is what a job did; the field of its kind is set.
type JobResult struct {
	Point   *Point         `json:"point,omitempty"` // a backup
	Restore *RestoreResult `json:"restore,omitempty"`
	Verify  *VerifyResult  `json:"verify,omitempty"`
	Rekey   *RekeyResult   `json:"rekey,omitempty"`
	Drill   *DrillResult   `json:"drill,omitempty"`
	Prune   *PruneResult   `json:"prune,omitempty"`
}

// RestoreResult says what a restore did, or would do on a dry run.
type RestoreResult struct {
	Target       string  `json:"target"`
	DryRun       bool    `json:"dry_run,omitempty"`
	Files        int64   `json:"files"` // everything that is not a directory
	Dirs         int64   `json:"dirs"`
	Unchanged    int64   `json:"unchanged"`     // files that were right already
	Kept         int64   `json:"kept"`          // files left as they were by OverwriteNever
	Deleted      int64   `json:"deleted"`       // entries removed
	Bytes        int64   `json:"bytes"`         // size of all files
	WrittenBytes int64   `json:"written_bytes"` // of them written
	Seconds      float64 `json:"seconds"`
}

// VerifyResult says what a verify looked at. What it found is in Faults.
type VerifyResult struct {
	Points    int64    `json:"points"`
	Objects   int64    `json:"objects"`
	Files     int64    `json:"files"`
	ReadBytes int64    `json:"read_bytes"`
	Seconds   float64  `json:"seconds"`
	Faults    []string `json:"faults,omitempty"`   // the first 1000
	Repaired  []string `json:"repaired,omitempty"` // what a repair did, the first 1000
	Compared  int64    `json:"compared,omitempty"` // files that a restore put back and compared
}

// Progress is how far a job is.
type Progress struct {
	Phase        string `json:"phase,omitempty"` // "reading", "writing", "checking", "wrapping"
	Bytes        int64  `json:"bytes"`           // done, of the source or target
	BytesTotal   int64  `json:"bytes_total"`     // 0 while it is not known
	Entries      int64  `json:"entries"`         // of a rekey or drill: secrets
	EntriesTotal int64  `json:"entries_total"`   // 0 while it is not known
	NewBytes     int64  `json:"new_bytes"`
	StoredBytes  int64  `json:"stored_bytes"`
	Skipped      int64  `json:"skipped"`
	Faults       int64  `json:"faults,omitempty"` // that a verify has found
}

// Skip is an entry that was passed over and should not have been.
type Skip struct {
	Path   string `json:"path"` // for people
	Reason string `json:"reason"`
}

// JobFilter chooses jobs. The zero value chooses all that are remembered.
type JobFilter struct {
	Item  string
	State JobState
	Limit int // 0: the agent's choice
}

// Event is something that happened in a job. Exactly one of Job, Progress and
// Note is set.
type Event struct {
	Seq      uint64    `json:"seq"` // grows; not every number is seen
	Time     time.Time `json:"time"`
	Job      *Job      `json:"job,omitempty"` // the job's state, first and whenever it changes
	Progress *Progress `json:"progress,omitempty"`
	Note     *Note     `json:"note,omitempty"`
}

// Note is a word from a job to people.
type Note struct {
	Level   string `json:"level"` // "info", "warn"
	Message string `json:"message"`
}
