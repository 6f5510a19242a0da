package vault

import (
	"context"
	"sync"

	"github.com/cofferbackup/coffer/catalog"
)

// leaving is the points that a prune of this agent is about to remove. A prune says
// here which one before it looks for holds, and a hold is put before this is looked at:
// one of the two finds the other.
type leaving struct {
	mu    sync.Mutex
	names map[catalog.PointName]struct{}
}

// Removing has a prune be the only one of the item that this agent runs. The function that
// it returns ends it.
func (it *Item) Removing(ctx context.Context) (end func(), err error) {
	if err := it.pruning.Enter(ctx); err != nil {
		return nil, err
	}
	return func() {
		it.leaving.mu.Lock()
		clear(it.leaving.names)
		it.leaving.mu.Unlock()
		it.pruning.Leave()
	}, nil
}

// Leave says that a prune is about to remove a point.
func (it *Item) Leave(name catalog.PointName) {
	it.leaving.mu.Lock()
	defer it.leaving.mu.Unlock()
	if it.leaving.names == nil {
		it.leaving.names = make(map[catalog.PointName]struct{})
	}
	it.leaving.names[name] = struct{}{}
}

// Stay takes Leave back.
func (it *Item) Stay(name catalog.PointName) {
	it.leaving.mu.Lock()
	defer it.leaving.mu.Unlock()
	delete(it.leaving.names, name)
}

// Leaves tells whether a prune is about to remove a point, or has just done it.
func (it *Item) Leaves(name catalog.PointName) bool {
	it.leaving.mu.Lock()
	defer it.leaving.mu.Unlock()
	_, ok := it.leaving.names[name]
	return ok
}
