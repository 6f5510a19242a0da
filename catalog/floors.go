package catalog

import (
	"errors"
	"fmt"
)

// Errors of key records that are not what they should be. A forged record, one that
// the vault key did not authenticate, is crypt.ErrDamaged.
var (
	// ErrRolledBack: somebody put an older state of the store back, or removed what
	// is newer.
	ErrRolledBack = errors.New("key record is older than one seen before")
	// ErrMisplaced: the record belongs to another item, generation, epoch or vault.
	// It is crypt.ErrDamaged too.
	ErrMisplaced = errors.New("key record was moved here from elsewhere")
	// ErrMode: a customer-managed vault takes no software key, and stays what it is.
	ErrMode = errors.New("the vault is customer-managed, for ever")
)

// Floors remembers the newest epoch that was seen of each generation of each secret,
// so that an older record, put back, is noticed. Implementations are safe for
// concurrent use.
//
// Generation 0 stands for the generations themselves: its "epoch" is the newest
// generation that was seen.
type Floors interface {
	// Floor returns the newest epoch seen, or 0. Owner is "vault" or an item id.
	Floor(owner string, generation uint32) (epoch uint32)
	// Raise is told of every record that was verified or written and is newer than
	// the floor. What it forgets makes a rollback harder to notice, and nothing else.
	Raise(owner string, generation, epoch uint32)
}

// noFloors remembers nothing.
type noFloors struct{}

func (noFloors) Floor(string, uint32) uint32  { return 0 }
func (noFloors) Raise(string, uint32, uint32) {}

func rolledBack(owner string, generation, epoch, floor uint32) error {
	return fmt.Errorf("key record of %s, generation %d, has epoch %d, and epoch %d was there before: %w", owner, generation, epoch, floor, ErrRolledBack)
}

// raise remembers a record that was verified or written.
func (v *Vault) raise(owner string, generation, epoch uint32) {
	if epoch > v.floors.Floor(owner, generation) {
		v.floors.Raise(owner, generation, epoch)
	}
	if generation > v.floors.Floor(owner, 0) {
		v.floors.Raise(owner, 0, generation)
	}
}

// floorsOf is what was seen of an owner's records by some time. It is taken before
// the records are listed: what this process itself writes after that is not missed
// in the list.
type floorsOf struct {
	newest uint32
	epochs map[uint32]uint32
}

func (v *Vault) floorsOf(owner string) floorsOf {
	f := floorsOf{newest: v.floors.Floor(owner, 0), epochs: make(map[uint32]uint32)}
	for g := uint32(1); g <= f.newest; g++ {
		f.epochs[g] = v.floors.Floor(owner, g)
	}
	return f
}

// checkGenerations refuses an item some of whose generations, of those after the
// tombstone, are older than they were or gone. The newest that there is may be the
// tombstone; 0: there is none.
func (it *Item) checkGenerations(newest uint32, seen floorsOf) error {
	owner := it.id.String()
	if newest < seen.newest {
		return fmt.Errorf("the newest key record of item %s has generation %d, and generation %d was there before: %w", owner, newest, seen.newest, ErrRolledBack)
	}
	for g := it.tombstone + 1; g <= newest; g++ {
		body, ok := it.records[g]
		switch floor := seen.epochs[g]; {
		case body.Epoch >= floor:
		case !ok:
			return fmt.Errorf("the key record of item %s, generation %d, is gone: %w", owner, g, ErrRolledBack)
		default:
			return rolledBack(owner, g, body.Epoch, floor)
		}
	}
	if it.tombstone > 0 {
		it.vault.raise(owner, it.tombstone, 1)
	}
	for g, body := range it.records {
		it.vault.raise(owner, g, body.Epoch)
	}
	return nil
}
