package control

import (
	"context"
	"time"
)

// Custody is what is done to the keys of a vault once there is something under
// them.
type Custody interface {
	// LinkKey has a vault opened with one more key, until it is unlinked.
	LinkKey(ctx context.Context, req KeyLink) (Vault, error)
	// RotateKeys starts the job that wraps the secrets of a vault with the keys, and
	// the versions of them, that the configuration has now.
	RotateKeys(ctx context.Context, req KeyRotate) (Job, error)
	// Revalidate confirms that a vault whose keys were away too long may be used
	// again. CodeKeysInaccessible if they still are.
	Revalidate(ctx context.Context, req KeyRevalidate) (Vault, error)
	// DrillKeys starts the job that does without a vault's primary key for a while
	// and shows that backup and restore go on.
	DrillKeys(ctx context.Context, req KeyDrill) (Job, error)
	// RaiseMode starts the job that makes a vault customer-managed, for ever.
	// CodeConflict if it is already.
	RaiseMode(ctx context.Context, req VaultMode) (Job, error)
}

// KeyCheckRequest names a key of the configuration.
type KeyCheckRequest struct {
	Key string `json:"key"`
}

// KeyReport is what a check found.
type KeyReport struct {
	Key    string     `json:"key"`
	URI    string     `json:"uri"`
	Passed bool       `json:"passed"` // nothing failed; warnings are allowed
	Steps  []KeyStep  `json:"steps"`
	Rules  []RuleView `json:"rules,omitempty"` // what the custody rules of the configuration say of it
}

// The verdicts of a step. Skipped: an earlier one failed, so this one means nothing.
const (
	VerdictPassed  = "passed"
	VerdictWarned  = "warned"
	VerdictFailed  = "failed"
	VerdictSkipped = "skipped"
)

// KeyStep is one step of a check.
type KeyStep struct {
	Stage   string `json:"stage"`   // identity, permissions, protection, key, self-test
	Verdict string `json:"verdict"` // one of the above
	Says    string `json:"says"`
	Next    string `json:"next,omitempty"`
}

// The effects of a custody rule that says something.
const (
	EffectAudit = "audit" // it is said
	EffectDeny  = "deny"  // and what breaks it is refused
)

// RuleView is what one custody rule says.
type RuleView struct {
	Rule    string `json:"rule"`
	Effect  string `json:"effect"`  // EffectAudit or EffectDeny
	Subject string `json:"subject"` // "key main", "vault site"
	Says    string `json:"says"`    // how it is broken
	Next    string `json:"next,omitempty"`
}

// KeyUsageRequest names a key, and perhaps one version of it.
type KeyUsageRequest struct {
	Key     string `json:"key"`
	Version string `json:"version,omitempty"` // or the first letters of its fingerprint; "": all
}

// KeyUsage says what hangs on a key.
type KeyUsage struct {
	Key      string         `json:"key"`
	URI      string         `json:"uri"`
	Versions []VersionUsage `json:"versions"` // the one in use first
}

// VersionUsage says what hangs on one version of a key.
type VersionUsage struct {
	Version     string     `json:"version,omitempty"`
	Fingerprint string     `json:"fingerprint"`
	InUse       bool       `json:"in_use"`  // new secrets are wrapped with it
	Secrets     int        `json:"secrets"` // that it opens
	Total       int        `json:"total"`   // secrets of all vaults that use the key
	Lost        []LostItem `json:"lost"`    // what nothing else opens
	Retirable   bool       `json:"retirable"`
	Because     string     `json:"because,omitempty"` // why it is not retirable
	Since       time.Time  `json:"since,omitzero"`    // it came into use
}

// LostItem is what would be lost without a key.
type LostItem struct {
	Vault  string    `json:"vault"`
	Item   string    `json:"item"` // "" for the vault key itself: then all is lost
	Points int       `json:"points"`
	First  time.Time `json:"first,omitzero"` // of the points
	Last   time.Time `json:"last,omitzero"`
}

// KeyLink links a key to a vault, or unlinks it.
type KeyLink struct {
	Vault string `json:"vault"`
	URI   string `json:"uri"` // as in the configuration
	// RestoreOnly must be set: a key that also wraps belongs into the configuration.
	RestoreOnly bool `json:"restore_only"`
	Unlink      bool `json:"unlink,omitempty"`
}

// KeyRotate asks for a rotation.
type KeyRotate struct {
	Vault string `json:"vault"`
	// NewVersion first has the provider make a new version of the primary key.
	NewVersion bool `json:"new_version,omitempty"`
	// NewGeneration also gives every item a new secret, for what is backed up from
	// now on: for when an old key is compromised.
	NewGeneration bool `json:"new_generation,omitempty"`
}

// KeyRevalidate names a vault.
type KeyRevalidate struct {
	Vault string `json:"vault"`
}

// KeyDrill asks for a drill.
type KeyDrill struct {
	Vault string `json:"vault"`
	Item  string `json:"item,omitempty"` // to back up and restore; "": the vault's first
}

// The modes of a vault.
const (
	ModeSoftware        = "software"         // its keys may be files
	ModeCustomerManaged = "customer-managed" // they may not; there is no way back
)

// VaultMode asks for a mode.
type VaultMode struct {
	Vault string `json:"vault"`
	Mode  string `json:"mode"` // ModeCustomerManaged
}

// RekeyResult says what a rotation did.
type RekeyResult struct {
	Vault     string     `json:"vault"`
	Mode      string     `json:"mode"`
	Secrets   int        `json:"secrets"`   // that the vault has
	Rewrapped int        `json:"rewrapped"` // of them now
	Unwraps   int        `json:"unwraps"`   // calls to providers
	Bytes     int64      `json:"bytes"`     // written
	Made      int        `json:"made"`      // new generations
	Coverage  []Coverage `json:"coverage"`
	Opens     []string   `json:"opens,omitempty"` // what an old key still opens, for people
	Seconds   float64    `json:"seconds"`
}

// Coverage says how many of a vault's secrets a key version opens.
type Coverage struct {
	Key         string  `json:"key"`
	Version     string  `json:"version,omitempty"`
	Fingerprint string  `json:"fingerprint"`
	Percent     float64 `json:"percent"`
	InUse       bool    `json:"in_use"`
	Owed        int     `json:"owed,omitempty"` // secrets that lack a wrapping of it and should have one
}

// DrillResult says what a drill showed.
type DrillResult struct {
	Vault   string   `json:"vault"`
	Without string   `json:"without"` // the key that was taken away
	With    []string `json:"with"`    // the keys that opened everything
	Secrets int      `json:"secrets"` // opened
	Point   string   `json:"point"`   // made and read back
	Bytes   int64    `json:"bytes"`   // read back
	Seconds float64  `json:"seconds"`
}

// ItemErase asks to destroy an item.
type ItemErase struct {
	Item    string `json:"item"`
	Confirm string `json:"confirm"` // the item's name again
}

// ItemErased says what an erasure did, and what it could not do.
type ItemErased struct {
	Item        string    `json:"item"`
	Secrets     int       `json:"secrets"`     // generations whose every wrapping is destroyed
	Deleted     int       `json:"deleted"`     // objects removed
	Locked      int       `json:"locked"`      // objects that stay: noise without a secret, unless a key record is among them
	LockedKeys  int       `json:"locked_keys"` // key records among them: until they go, a key still opens the item
	LockedUntil time.Time `json:"locked_until,omitzero"`
}

// AuditVerify asks for a check of the audit log.
type AuditVerify struct {
	Head string `json:"head,omitempty"` // a hash noted earlier, which must still be in the chain
}

// AuditReport is the state of the audit log.
type AuditReport struct {
	Path   string    `json:"path"`
	Files  int       `json:"files"`
	Lines  int64     `json:"lines"`
	First  time.Time `json:"first,omitzero"`
	Last   time.Time `json:"last,omitzero"`
	Head   string    `json:"head"`   // hash of the last line: note it down elsewhere
	Faults []string  `json:"faults"` // none: the chain is whole
}
