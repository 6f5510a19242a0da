package control

import "time"

// Version is which program answers.
type Version struct {
	Version  string `json:"version"`          // "0.1.0", "(devel)"
	Go       string `json:"go"`               // "go1.26.8"
	Platform string `json:"platform"`         // "linux/amd64"
	PKCS11   bool   `json:"pkcs11"`           // built with HSM support
	FIPS     bool   `json:"fips,omitempty"`   // runs in Go's FIPS 140-3 mode
	Config   string `json:"config,omitempty"` // path of the configuration file
}

// Status is everything at a glance.
type Status struct {
	Version  Version   `json:"version"`
	Host     string    `json:"host"`
	Started  time.Time `json:"started"`
	Vaults   []Vault   `json:"vaults"`
	Items    []Item    `json:"items"`
	Jobs     []Job     `json:"jobs"`     // queued and running
	Problems []Problem `json:"problems"` // empty: all well
}

// Problem is something that needs a person.
type Problem struct {
	Subject string `json:"subject"`        // "vault site", "item etc"
	Kind    string `json:"kind,omitempty"` // what of the subject is wrong, in a word, if there is one: "overdue"
	Message string `json:"message"`        // what, and why
	Next    string `json:"next,omitempty"` // what to do about it
}

// ConfigCheck is a configuration file to check.
type ConfigCheck struct {
	Name string `json:"name"` // for messages
	Text string `json:"text"`
}

// ConfigReport says what is wrong with a configuration: nothing, if empty.
type ConfigReport struct {
	Problems []ConfigProblem `json:"problems"`
	Vaults   int             `json:"vaults"`
	Items    int             `json:"items"`
	Policies int             `json:"policies,omitempty"`
	// Notes say what of a configuration that was taken over may surprise: items that
	// nothing backs up any more, points that may go.
	Notes []string `json:"notes,omitempty"`
}

// ConfigProblem is one fault and where it is.
type ConfigProblem struct {
	Line    int    `json:"line"`   // from 1; 0 if it is nowhere in particular
	Column  int    `json:"column"` // from 1
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	Next    string `json:"next,omitempty"`
}

// KeyState is the state of a vault's keys.
type KeyState string

// The states. A vault that is not made yet has none.
const (
	StateAbsent       KeyState = "absent"                // the vault is not made yet
	StateUnknown      KeyState = "unknown"               // not checked yet
	StateAccessible   KeyState = "accessible"            // all works
	StateDegraded     KeyState = "degraded"              // works, but not all keys answer
	StateInaccessible KeyState = "inaccessible"          // no key opens it
	StateRevalidation KeyState = "requires_revalidation" // an operator must confirm
)

// Vault is one vault.
type Vault struct {
	Name    string    `json:"name"`
	ID      string    `json:"id,omitempty"`   // "" if it is not made yet
	Store   string    `json:"store"`          // URL without secrets
	Mode    string    `json:"mode,omitempty"` // ModeSoftware, ModeCustomerManaged
	Keys    []Key     `json:"keys"`
	State   KeyState  `json:"state"`
	Since   time.Time `json:"since,omitzero"`   // State is so since then
	Checked time.Time `json:"checked,omitzero"` // when State was last seen to be so
	Created time.Time `json:"created,omitzero"`
	Error   *Error    `json:"error,omitempty"` // why State is what it is
	// Owed are the names of the keys that some secrets lack a wrapping of and should
	// have one: they could not be reached when the secret was made.
	Owed     []string   `json:"owed,omitempty"`
	Coverage []Coverage `json:"coverage,omitempty"` // of each key version; none while it is not known
	Warnings []Problem  `json:"warnings,omitempty"` // what custody rules say of it
}

// VaultCreate asks for a vault.
type VaultCreate struct {
	Name string `json:"name"`
}

// VaultCreated is a new vault and what its owner must keep.
type VaultCreated struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	Store         string `json:"store"`
	RecoverySheet string `json:"recovery_sheet"` // text to print and put away; holds no secret
	// Warnings are what its owner should mend: "no escrow key and no second key".
	Warnings []string `json:"warnings,omitempty"`
}

// Key is one version of a customer's key.
type Key struct {
	Name        string `json:"name"`
	URI         string `json:"uri"`      // without secrets
	Provider    string `json:"provider"` // software, pkcs11, keyvault, escrow
	Version     string `json:"version,omitempty"`
	Bits        int    `json:"bits,omitempty"`
	Algorithm   string `json:"algorithm,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"` // SHA-256 of the SubjectPublicKeyInfo, hex
	// InUse: new secrets are wrapped with this version.
	InUse bool `json:"in_use,omitempty"`
	// RestoreOnly: it opens what is there, and nothing new is wrapped with it.
	RestoreOnly bool     `json:"restore_only,omitempty"`
	Vaults      []string `json:"vaults,omitempty"` // names of those that it opens
	Facts       KeyFacts `json:"facts,omitzero"`
	Error       *Error   `json:"error,omitempty"` // why it cannot be used now
}

// KeyFacts is what the provider says of a version of a key. An answer is "yes",
// "no", or "" if the provider does not say.
type KeyFacts struct {
	Hardware        string    `json:"hardware,omitempty"` // the private half cannot leave its hardware
	Enabled         string    `json:"enabled,omitempty"`
	MayUnwrap       string    `json:"may_unwrap,omitempty"`
	SoftDelete      string    `json:"soft_delete,omitempty"`      // a deleted key can be recovered
	PurgeProtection string    `json:"purge_protection,omitempty"` // and nobody can prevent that
	Created         time.Time `json:"created,omitzero"`
	Updated         time.Time `json:"updated,omitzero"`
	NotBefore       time.Time `json:"not_before,omitzero"`
	Expires         time.Time `json:"expires,omitzero"`
}

// KeyCreate asks for a key.
type KeyCreate struct {
	Name string `json:"name"`
	Bits int    `json:"bits,omitempty"` // 0: the agent's choice
	// Hybrid gives the key a second, post-quantum half: both are needed to open what
	// is wrapped with it. Software keys alone.
	Hybrid bool `json:"hybrid,omitempty"`
}

// Item is one protected thing.
type Item struct {
	Name        string    `json:"name"`
	Vault       string    `json:"vault"`
	Kind        string    `json:"kind"`   // "files", "stream"
	Source      string    `json:"source"` // for people: "/etc, /home"
	LastPoint   string    `json:"last_point,omitempty"`
	LastGood    time.Time `json:"last_good,omitzero"`
	Next        time.Time `json:"next,omitzero"`
	Points      int       `json:"points"`
	SourceBytes int64     `json:"source_bytes"` // in the last point
	StoredBytes int64     `json:"stored_bytes"` // in the store, all points
	Policy      string    `json:"policy,omitempty"`
	// Overdue: a run was due and no good point came of it.
	Overdue bool   `json:"overdue,omitempty"`
	Proof   Proof  `json:"proof,omitzero"`
	Error   *Error `json:"error,omitempty"`
	// Warnings are what is wrong with what is kept of it, and harms no point yet.
	Warnings []Problem `json:"warnings,omitempty"`
}

// Point is one recovery point.
type Point struct {
	ID    string    `json:"id"`
	Item  string    `json:"item"`
	Vault string    `json:"vault"`
	Time  time.Time `json:"time"` // when the backup began
	Host  string    `json:"host"`
	Kind  string    `json:"kind"`
	Tags  []string  `json:"tags,omitempty"`
	Roots []string  `json:"roots,omitempty"`
	Holds []Hold    `json:"holds,omitempty"`
	// Goes is when it is removed, of a point that is marked to go.
	Goes    time.Time  `json:"goes,omitzero"`
	Damaged bool       `json:"damaged,omitempty"` // a verify found that it does not restore as a whole
	Stats   PointStats `json:"stats"`
}

// PointStats says what a backup did.
type PointStats struct {
	Files       int64   `json:"files"` // everything that is not a directory
	Dirs        int64   `json:"dirs"`
	SourceBytes int64   `json:"source_bytes"` // size of all files
	ReadBytes   int64   `json:"read_bytes"`   // of them read, the rest being unchanged
	NewBytes    int64   `json:"new_bytes"`    // of them not in the vault before
	StoredBytes int64   `json:"stored_bytes"` // written to the store
	Changed     int64   `json:"changed"`      // files new or changed since the point before
	Changing    int64   `json:"changing"`     // files that would not hold still
	Skipped     int64   `json:"skipped"`      // entries that should have been kept and were not
	Seconds     float64 `json:"seconds"`
}
