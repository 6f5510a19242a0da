package keyvault

import (
	"sync"
	"time"
)

// The service's own limits on operations with RSA keys, per vault and ten seconds
// (learn.microsoft.com, Key Vault service limits). A Managed HSM has none, but its
// throughput is known, here also per ten seconds. No more than a share of either is
// used: the rest is for everyone else who uses the vault.
const (
	limitWindow = 10 * time.Second
	limitShare  = 5 // one fifth
)

// cost is what a call counts as. The zero cost is free.
type cost struct {
	bits     int
	hardware bool
}

// limiter keeps the calls to one vault under its limits.
type limiter struct {
	now     func() time.Time
	managed bool

	mu      sync.Mutex
	next    map[cost]time.Time // when the next call is due, if all are evenly spread
	blocked time.Time          // the vault asked for silence until then
}

func newLimiter(now func() time.Time, managed bool) *limiter {
	return &limiter{now: now, managed: managed, next: make(map[cost]time.Time)}
}

// perWindow returns how many calls the service bears.
func (l *limiter) perWindow(c cost) int {
	size := 0
	switch {
	case c.bits > 3072:
		size = 2
	case c.bits > 2048:
		size = 1
	}
	switch {
	case l.managed:
		return [3]int{11000, 3600, 1600}[size]
	case c.hardware:
		return [3]int{2000, 500, 250}[size]
	}
	return [3]int{4000, 1000, 500}[size]
}

// delay returns how long a call of that cost has to wait, which then counts. It is
// the generic cell rate algorithm with a burst of one second.
func (l *limiter) delay(c cost) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	due := now
	if c != (cost{}) {
		apart := limitWindow * limitShare / time.Duration(l.perWindow(c))
		if due = l.next[c]; due.Before(now.Add(-time.Second)) {
			due = now.Add(-time.Second)
		}
		l.next[c] = due.Add(apart)
	}
	if due.Before(l.blocked) {
		due = l.blocked
	}
	return due.Sub(now)
}

// pause holds back every call to the vault for d.
func (l *limiter) pause(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := l.now().Add(d); until.After(l.blocked) {
		l.blocked = until
	}
}
