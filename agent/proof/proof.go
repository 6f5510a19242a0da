// Package proof keeps what is known of whether points can be restored: when it was
// last looked at, in three depths, and what was found.
//
//	structure   all that points refer to is there
//	data        every pack was read, opened and compared, each within so many days
//	restore     a point was restored into a scratch folder and compared
//
// Choose says which packs a run reads, Restore makes the proof of the third kind, and a
// Book remembers.
//
// Invariants:
//   - A proof is never younger than what it proves: what was passed over is not counted.
//   - What lies in a scratch folder goes, whatever happens: at the end of the run, or
//     when the agent starts again.
package proof

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/durable"
)

// Depth is how deep a proof goes.
type Depth string

// The depths.
const (
	Structure Depth = "structure"
	Data      Depth = "data"
	Restored  Depth = "restore"
)

// Entry is what is known of one item.
type Entry struct {
	Structure time.Time `json:"structure,omitzero"` // when the last check without faults ended
	Data      time.Time `json:"data,omitzero"`      // the oldest reading of any pack
	Restore   time.Time `json:"restore,omitzero"`   // the last restore without faults
	// Faults that were found and not mended: those of the last check of each kind.
	StructureFaults int64 `json:"structure_faults,omitempty"`
	DataFaults      int64 `json:"data_faults,omitempty"`
	RestoreFaults   int64 `json:"restore_faults,omitempty"`
}

// Proof is the entry as callers see it. A fault that both a check of structure and one
// of data find is one fault.
func (e Entry) Proof() control.Proof {
	return control.Proof{Structure: e.Structure, Data: e.Data, Restore: e.Restore,
		Faults: max(e.StructureFaults, e.DataFaults) + e.RestoreFaults}
}

// Book remembers the entries of all items in one file. It is safe for concurrent use.
type Book struct {
	path string

	mu      sync.Mutex
	entries map[string]Entry
}

// Open reads the book at path; one that is not there is empty. One that cannot be read
// is an error, and the book that is returned is empty and usable; a damaged one is set
// aside. Losing it loses no proof that cannot be made again.
func Open(path string) (*Book, error) {
	b := &Book{path: path, entries: make(map[string]Entry)}
	raw, err := durable.ReadSealed(path)
	if err == nil {
		err = json.Unmarshal(raw, &b.entries)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.entries = make(map[string]Entry)
		return b, fmt.Errorf("read proofs: %w", err)
	}
	if b.entries == nil { // the file says null
		b.entries = make(map[string]Entry)
	}
	return b, nil
}

func key(vault, item string) string { return vault + "/" + item }

// Entry returns what is known of an item of a vault: nothing, of one that was never
// looked at.
func (b *Book) Entry(vault, item string) Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.entries[key(vault, item)]
}

// Change changes what is known of an item. It is on disk when it returns; after an
// error it is known all the same until the process ends.
func (b *Book) Change(vault, item string, change func(*Entry)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[key(vault, item)]
	change(&e)
	b.entries[key(vault, item)] = e
	raw, err := json.MarshalIndent(b.entries, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(b.path), 0o700)
	}
	if err == nil {
		err = durable.WriteSealed(b.path, raw)
	}
	if err != nil {
		return fmt.Errorf("write proofs: %w", err)
	}
	return nil
}
