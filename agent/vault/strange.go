package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
)

// strange is the last look at what backups and prunes have left for each other.
type strange struct {
	at    time.Time
	found []control.Problem
}

// fewAgain is how long a look at the records of few items counts; of many it would be a
// listing for each of them all the time.
const fewAgain = time.Minute

// Strange says which holds, marks and other records of an item do not open.
func (it *Item) Strange(ctx context.Context) ([]control.Problem, error) {
	again := fewAgain
	if len(it.Vault.set.cfg.Settings().Items) > FewItems {
		again = OthersOnce
	}
	it.Vault.mu.Lock()
	last, ok := it.Vault.strange[it.Name()]
	it.Vault.mu.Unlock()
	if ok && it.Vault.set.cfg.Clock().Sub(last.at).Abs() < again {
		return last.found, nil
	}
	kinds := []struct {
		under           store.Key
		kind, one, next string
		count           int
		first           error
	}{
		{under: it.HoldKey(""), kind: "holds", one: "a hold does not open, so that no point may go", next: holdNext},
		{under: it.MarkKey(""), kind: "marks", one: "a mark of a prune does not open, so that backups lean on little that is there", next: "the next prune removes it: coffer prune %s; which one it is: coffer verify %s"},
		{under: it.RepackKey(""), kind: "repacks", one: "a record of packs that were rewritten does not open, so that points may lack them", next: "see what is affected: coffer verify %s"},
	}
	for key, err := range it.CheckRecords(ctx) {
		switch {
		case err == nil:
		case catalog.Unreadable(err):
			for i := range kinds {
				if k := &kinds[i]; strings.HasPrefix(string(key), string(k.under)) {
					k.count++
					k.first = cmp.Or(k.first, fmt.Errorf("%s: %w", key, err))
				}
			}
		case key == "":
			return nil, fault.Of(err)
		}
	}
	var found []control.Problem
	for _, k := range kinds {
		if k.count > 0 {
			says := fmt.Sprintf("%s: %v", k.one, k.first)
			if k.count > 1 {
				says += fmt.Sprintf(" (and %d more)", k.count-1)
			}
			found = append(found, control.Problem{Subject: "item " + it.Name(), Kind: k.kind, Message: says, Next: strings.ReplaceAll(k.next, "%s", it.Name())})
		}
	}
	it.Vault.mu.Lock()
	defer it.Vault.mu.Unlock()
	it.Vault.strange[it.Name()] = strange{it.Vault.set.cfg.Clock(), found}
	return found, nil
}

// holdNext is what to do about a hold that does not open; %s is the item.
const holdNext = "find out who changed it; coffer verify %s names each one, and if nobody can put it back, delete that object from the store by hand"

// DamagedHold returns err with what to do about it, if a hold that does not open is why
// nothing may go.
func (it *Item) DamagedHold(ctx context.Context, err error) error {
	if !errors.Is(err, crypt.ErrDamaged) {
		return err
	}
	for key, cause := range it.CheckRecords(ctx) {
		if cause != nil && strings.HasPrefix(string(key), string(it.HoldKey(""))) {
			says := fmt.Sprintf("a hold of %s does not open, so nothing may go: %s: %v", it.Name(), key, cause)
			return fault.New(control.Error{Code: control.CodeDamaged, Message: says, Next: strings.ReplaceAll(holdNext, "%s", it.Name())}, err)
		}
	}
	return err
}
