package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cofferbackup/coffer/internal/durable"
)

// kept is the file.
type kept struct {
	Version int               `json:"version"`
	Faults  map[string]*fault `json:"faults"`
}

const (
	keptVersion = 1
	maxKept     = 32 << 20
)

// load reads what was told before.
func (n *Notifier) load() map[string]*fault {
	faults, err := readKept(n.cfg.Path)
	if err != nil {
		n.cfg.Log.Warn("what was told before is not known: some of it is told again", "file", n.cfg.Path, "err", err)
	}
	return faults
}

// readKept reads the file. After an error there are no faults.
func readKept(path string) (map[string]*fault, error) {
	none := make(map[string]*fault)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	if info.Size() > maxKept {
		return none, fmt.Errorf("read %s: %d bytes are too many", path, info.Size())
	}
	raw, err := durable.ReadSealed(path)
	if err != nil {
		return none, err
	}
	var k kept
	if err := json.Unmarshal(raw, &k); err != nil {
		return none, fmt.Errorf("read %s: %w", path, err)
	}
	if k.Version != keptVersion || len(k.Faults) > maxFaults {
		return none, fmt.Errorf("read %s: version %d with %d faults is not known", path, k.Version, len(k.Faults))
	}
	for about, f := range k.Faults {
		if f == nil {
			return none, fmt.Errorf("read %s: fault %q is empty", path, about)
		}
		if f.Told == nil {
			f.Told = make(map[string]told)
		}
	}
	if k.Faults == nil {
		return none, nil
	}
	return k.Faults, nil
}

// save writes the file if something has changed. If that fails it is tried at the next
// change: what is lost then is told twice.
func (n *Notifier) save() {
	n.mu.Lock()
	if !n.changed {
		n.mu.Unlock()
		return
	}
	n.changed = false
	raw, err := json.Marshal(kept{keptVersion, n.faults})
	n.mu.Unlock()
	if err == nil {
		err = durable.WriteSealed(n.cfg.Path, raw)
	}
	if err != nil {
		n.cfg.Log.Warn("what was told is not written down", "err", err)
		n.mu.Lock()
		n.changed = true
		n.mu.Unlock()
	}
}
