package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// subjectOf is what no other job works on at the same time.
func subjectOf(j control.Job) string {
	if j.Vault != "" && j.Item == "" {
		return "vault " + j.Vault // no item has a space in its name
	}
	return j.Item
}

// lock returns what is held while a job of a subject runs. The caller holds mu.
func (q *jobs) lock(subject string) *sync.Mutex {
	l := q.items[subject]
	if l == nil {
		l = new(sync.Mutex)
		q.items[subject] = l
	}
	return l
}

// hold keeps jobs of these subjects from running until release is called. If there is
// one already, it holds nothing.
func (q *jobs) hold(subjects ...string) (release func(), ok bool) {
	if q.running(func(j control.Job) bool { return slices.Contains(subjects, subjectOf(j)) }) {
		return nil, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	var held []*sync.Mutex
	release = func() {
		for _, l := range held {
			l.Unlock()
		}
	}
	for _, s := range subjects {
		l := q.lock(s)
		if !l.TryLock() {
			release()
			return nil, false
		}
		held = append(held, l)
	}
	return release, true
}

// pause gives the job's slot to others until wait is over: a job that waits for keys
// must not keep those from running whose keys are there. After an error it has none.
func (q *jobs) pause(ctx context.Context, j *job, wait <-chan time.Time) error {
	<-q.slots
	j.slot = false
	select {
	case <-wait:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case q.slots <- struct{}{}:
		j.slot = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// turn waits until the job's item is free and there is a slot.
func (q *jobs) turn(ctx context.Context, item *sync.Mutex) error {
	free := make(chan struct{})
	go func() { // ends when the item is free, which it will be
		item.Lock()
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			item.Unlock()
		}
	}()
	select {
	case <-free:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case q.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		item.Unlock()
		return ctx.Err()
	}
}
