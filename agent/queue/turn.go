package queue

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"
)

// lane is where jobs run, so many at once. Prunes have one of their own, so that they
// never hold up a backup.
type lane struct {
	most, running int
}

// turn is a job's place in the queue. Its fields are guarded by Queue.mu, but for
// granted, which is closed when the job may go on.
type turn struct {
	job      int64
	since    time.Time // when it was queued
	priority int
	subject  string
	lane     *lane
	granted  chan struct{}
	within   bool // it has its subject
	slot     bool // and a slot of its lane
}

// Patience is how long a job of low priority lets others go first. One that has waited
// longer goes before all that have not: a prune that never runs fills the store.
const Patience = 24 * time.Hour

// admit lets those go on whose turn it is. The caller holds mu.
func (q *Queue) admit() {
	now := q.cfg.Clock()
	rank := func(t *turn) int {
		if now.Sub(t.since) > Patience {
			return math.MaxInt
		}
		return t.priority
	}
	slices.SortFunc(q.waiting, func(a, b *turn) int {
		return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(a.job, b.job))
	})
	q.waiting = slices.DeleteFunc(q.waiting, func(t *turn) bool {
		if t.lane.running >= t.lane.most || !t.within && q.busy[t.subject] {
			return false
		}
		q.busy[t.subject], t.within, t.slot = true, true, true
		t.lane.running++
		close(t.granted)
		return true
	})
}

// await waits for a turn. After an error the job has none.
func (q *Queue) await(ctx context.Context, t *turn) error {
	select {
	case <-t.granted:
		if ctx.Err() == nil {
			return nil
		}
	case <-ctx.Done():
	}
	q.leave(t)
	return ctx.Err()
}

// leave gives up what the job has.
func (q *Queue) leave(t *turn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = slices.DeleteFunc(q.waiting, func(w *turn) bool { return w == t })
	if t.slot {
		t.lane.running--
	}
	if t.within {
		delete(q.busy, t.subject)
	}
	t.slot, t.within = false, false
	q.admit()
}

// Pause gives the job's slot to others until wait is over: a job that waits for keys
// must not keep those from running whose keys are there. It keeps its subject.
func (q *Queue) Pause(ctx context.Context, j *Job, wait <-chan time.Time) error {
	t := j.turn
	q.mu.Lock()
	t.lane.running--
	t.slot, t.granted = false, make(chan struct{})
	q.admit()
	q.mu.Unlock()
	select {
	case <-wait:
	case <-ctx.Done():
		return ctx.Err()
	}
	q.mu.Lock()
	q.waiting = append(q.waiting, t)
	granted := t.granted
	q.admit()
	q.mu.Unlock()
	select {
	case <-granted:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
