package vault

import (
	"container/list"
	"sync"

	"github.com/cofferbackup/coffer/catalog"
)

// pointCache keeps the points that were used last.
type pointCache struct {
	mu    sync.Mutex
	order list.List // of *cachedPoint, the one used last first
	byID  map[string]*list.Element
}

type cachedPoint struct {
	id    string
	point *catalog.Point
}

// cachedPoints is how many are kept: a point names users, packs and skipped entries,
// and may have a few hundred KiB.
const cachedPoints = 16

// get returns a point, or nil.
func (c *pointCache) get(id string) *catalog.Point {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byID[id]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cachedPoint).point
}

func (c *pointCache) put(id string, p *catalog.Point) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID == nil {
		c.byID = make(map[string]*list.Element)
	}
	if _, ok := c.byID[id]; ok {
		return
	}
	c.byID[id] = c.order.PushFront(&cachedPoint{id, p})
	if c.order.Len() > cachedPoints {
		delete(c.byID, c.order.Remove(c.order.Back()).(*cachedPoint).id)
	}
}
