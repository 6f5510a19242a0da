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
	ID      string    `json:"id,omitempty"` // "" if it is not made yet
	Store   string    `json:"store"`        // URL without secrets
	Mode    string    `json:"mode,omitempty"`
	Keys    []Key     `json:"keys"`
	State   KeyState  `json:"state"`
	Checked time.Time `json:"checked,omitzero"` // of State
	Created time.Time `json:"created,omitzero"`
	Error   *Error    `json:"error,omitempty"` // why State is what it is
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
}

// Key is one version of a customer's key.
type Key struct {
	Name        string `json:"name"`
	URI         string `json:"uri"` // without secrets
	Provider    string `json:"provider"`
	Version     string `json:"version,omitempty"`
	Bits        int    `json:"bits,omitempty"`
	Algorithm   string `json:"algorithm,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"` // SHA-256 of the SubjectPublicKeyInfo, hex
	Error       *Error `json:"error,omitempty"`       // why it cannot be used now
}

// KeyCreate asks for a key.
type KeyCreate struct {
	Name string `json:"name"`
	Bits int    `json:"bits,omitempty"` // 0: the agent's choice
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
	Error       *Error    `json:"error,omitempty"`
}

// Point is one recovery point.
type Point struct {
	ID    string     `json:"id"`
	Item  string     `json:"item"`
	Vault string     `json:"vault"`
	Time  time.Time  `json:"time"` // when the backup began
	Host  string     `json:"host"`
	Kind  string     `json:"kind"`
	Tags  []string   `json:"tags,omitempty"`
	Roots []string   `json:"roots,omitempty"`
	Stats PointStats `json:"stats"`
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
