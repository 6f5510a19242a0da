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

func (l *leaving) add(name catalog.PointName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names == nil {
		l.names = make(map[catalog.PointName]struct{})
	}
	l.names[name] = struct{}{}
}

func (l *leaving) remove(name catalog.PointName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.names, name)
}

func (l *leaving) has(name catalog.PointName) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.names[name]
	return ok
}

func (l *leaving) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = nil
}

// Removing has a prune be the only one of the item that this agent runs. The function that
// it returns ends it.
func (it *Item) Removing(ctx context.Context) (end func(), err error) {
	if err := it.pruning.Enter(ctx); err != nil {
		return nil, err
	}
	return func() {
		it.leaving.clear()
		it.pruning.Leave()
	}, nil
}

// Leave says that a prune is about to remove a point.
func (it *Item) Leave(name catalog.PointName) { it.leaving.add(name) }

// Stay takes Leave back.
func (it *Item) Stay(name catalog.PointName) { it.leaving.remove(name) }

// Leaves tells whether a prune is about to remove a point, or has just done it.
func (it *Item) Leaves(name catalog.PointName) bool { return it.leaving.has(name) }
