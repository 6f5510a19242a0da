package control

import "time"

// KeepsEverything is what a policy without a retention says of it.
const KeepsEverything = "everything"

// Policy is what runs when and what is kept, and how it stands.
type Policy struct {
	Name      string       `json:"name"`
	Items     []PolicyItem `json:"items"`
	Schedule  string       `json:"schedule,omitempty"` // "": only when asked
	Timezone  string       `json:"timezone,omitempty"`
	Next      []time.Time  `json:"next,omitempty"` // the next runs
	Retention string       `json:"retention"`      // for people: "last 3, daily 7"; KeepsEverything
}

// PolicyItem is an item of a policy.
type PolicyItem struct {
	Item string    `json:"item"`
	Last time.Time `json:"last,omitzero"` // when its last run began
	Next time.Time `json:"next,omitzero"` // when its next run is due, retries included
	// Failures since the last run that was well, and the error of the newest.
	Failures int    `json:"failures,omitempty"`
	Error    *Error `json:"error,omitempty"`
	Job      int64  `json:"job,omitempty"` // the last one
	// Paused says why nothing runs: "window until 18:00", "vault site is inaccessible".
	Paused string `json:"paused,omitempty"`
}

// PolicyRun asks for a run of a policy now.
type PolicyRun struct {
	Name string `json:"name"`
	Item string `json:"item,omitempty"` // "": all of its items
}

// Explanation is what a policy does and why.
type Explanation struct {
	Policy Policy      `json:"policy"`
	Points []PointFate `json:"points"` // of all its items, oldest first
}

// PointFate is what becomes of a point.
type PointFate struct {
	Item    string    `json:"item"`
	Point   string    `json:"point"`
	Time    time.Time `json:"time"`
	Keep    bool      `json:"keep"`
	Reasons []string  `json:"reasons"`
	// Expires is, of one that is kept, before when no rule lets it go; zero if the next
	// backup may be enough, or if it is pinned.
	Expires time.Time `json:"expires,omitzero"`
	Pinned  bool      `json:"pinned,omitempty"`
	// Goes is when a point that is marked to go is removed.
	Goes time.Time `json:"goes,omitzero"`
}

// PointHold puts a hold on a point: nothing lets it go until it is released.
type PointHold struct {
	Item   string `json:"item"`
	Point  string `json:"point"` // a selector
	Owner  string `json:"owner"` // who answers for it: a person, a department
	Reason string `json:"reason"`
}

// Hold is one hold on a point.
type Hold struct {
	ID     string    `json:"id"`
	Point  string    `json:"point,omitempty"` // its id, where the hold is not beneath its point
	Owner  string    `json:"owner"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// PointRelease takes holds away.
type PointRelease struct {
	Item  string `json:"item"`
	Point string `json:"point"`
	Hold  string `json:"hold,omitempty"` // its id; "": all of the point
}

// PointForget asks for points to go: they are marked, and removed by a prune after
// the vault's grace time.
type PointForget struct {
	Item   string   `json:"item"`
	Points []string `json:"points"` // whole ids, as listed: nothing is guessed
	// AllowEmpty allows that the item has no point left.
	AllowEmpty bool `json:"allow_empty,omitempty"`
}

// PruneRequest asks for a prune.
type PruneRequest struct {
	Item   string `json:"item,omitempty"` // "": all items
	DryRun bool   `json:"dry_run,omitempty"`
	// AllowEmpty allows a retention that keeps nothing.
	AllowEmpty bool `json:"allow_empty,omitempty"`
}

// PruneResult says what a prune did, or would do on a dry run.
type PruneResult struct {
	DryRun bool `json:"dry_run,omitempty"`
	// Marked are points and packs that are to go, and when the first of them may.
	MarkedPoints int64     `json:"marked_points"`
	MarkedPacks  int64     `json:"marked_packs"`
	MarkedBytes  int64     `json:"marked_bytes"`
	Goes         time.Time `json:"goes,omitzero"`
	// Removed are those that went.
	RemovedPoints int64 `json:"removed_points"`
	RemovedPacks  int64 `json:"removed_packs"`
	FreedBytes    int64 `json:"freed_bytes"`
	// Rescued are packs that were marked and that a newer point needs.
	RescuedPacks int64 `json:"rescued_packs"`
	// Repacked are packs that were rewritten because little of them is needed.
	RepackedPacks int64 `json:"repacked_packs"`
	RepackedBytes int64 `json:"repacked_bytes"` // written
	// Locked are objects that the store does not let go yet.
	Locked      int64     `json:"locked"`
	LockedUntil time.Time `json:"locked_until,omitzero"`
	// Waiting are backups that have not ended and hold back what was marked before.
	Waiting   int64   `json:"waiting"`
	ReadBytes int64   `json:"read_bytes"`
	Seconds   float64 `json:"seconds"`
	// Items says it of each item.
	Items []ItemPrune `json:"items,omitempty"`
}

// ItemPrune is the part of one item, in words for people.
type ItemPrune struct {
	Item  string `json:"item"`
	Says  string `json:"says"`
	Error *Error `json:"error,omitempty"`
}

// Diagnosis is what a doctor found, in order.
type Diagnosis struct {
	Checks []Check `json:"checks"`
}

// The outcomes of a check.
const (
	CheckGood    = "good"
	CheckWarning = "warning"
	CheckBad     = "bad"
	CheckSkipped = "skipped" // something before it failed
)

// Check is one thing that was tried.
type Check struct {
	Subject string `json:"subject"` // "state folder", "store of site", "key main", "item etc"
	What    string `json:"what"`    // "read and write", "object lock"
	Outcome string `json:"outcome"`
	Says    string `json:"says,omitempty"` // what was found
	Next    string `json:"next,omitempty"` // what to do about it
}

// Proof is the newest that is known of what can be restored of an item.
type Proof struct {
	Structure time.Time `json:"structure,omitzero"` // when the last check without faults ended
	Data      time.Time `json:"data,omitzero"`      // the oldest reading of any pack that is needed
	Restore   time.Time `json:"restore,omitzero"`   // the last restore that was compared
	Faults    int64     `json:"faults"`             // found and not mended
}
