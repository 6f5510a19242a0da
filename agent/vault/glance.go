package vault

import (
	"errors"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/catalog"
)

const (
	// FewItems are looked at whenever somebody asks. Where there are more, each is looked
	// at once in OthersOnce.
	FewItems   = 50
	OthersOnce = time.Hour
)

// Glance is what the last look at the points of an item found.
type Glance struct {
	At   time.Time
	Seen control.Item // only what the look fills in counts
	Old  bool         // a job for many items has ended since
}

// Glance returns what is remembered of an item.
func (v *Vault) Glance(item string) (Glance, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	g, ok := v.glances[item]
	return g, ok
}

// Remember remembers what look fills in of an item, unless it finds a fault, or something
// changes meanwhile.
func (v *Vault) Remember(item string, out *control.Item, look func() error) error {
	begun := v.set.cfg.Clock()
	v.mu.Lock()
	changes := v.changes
	v.mu.Unlock()
	err := look()
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.glances, item)
	if changes == v.changes && (err == nil || errors.Is(err, catalog.ErrNoItem)) {
		v.glances[item] = Glance{At: begun, Seen: *out}
	}
	return err
}

// Changed says that a job may have changed an item, whose glance is forgotten; or, if it
// is "", any of them: what is remembered of them is old.
func (v *Vault) Changed(item string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if item != "" {
		v.forget(item)
		return
	}
	v.changes++
	for name, g := range v.glances {
		g.Old = true
		v.glances[name] = g
	}
}

// forget has an item looked at anew. The caller holds v.mu.
func (v *Vault) forget(item string) {
	v.changes++
	delete(v.glances, item)
}
