// Package quota bounds what the callers of a socket hold at once and how often they
// ask, so that none of them can keep the others out.
//
// Invariants:
//   - Each class has connections of its own: strangers never take what members have,
//     and neither of them what the owner has.
//   - Within a class but the owner's, a caller has a share that it cannot exceed.
//   - Memory is bounded by the connections and by maxCallers, whoever calls.
package quota

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Class is how much a caller is trusted.
type Class int

// The classes.
const (
	Stranger Class = iota // may do nothing, and is told so
	Member                // has a role
	Owner                 // root, and the user that the agent runs as
)

// Caller is who asks. It is comparable.
type Caller struct {
	Class Class
	UID   uint32
}

// Limits of a Quota; a field that is zero has its default.
type Limits struct {
	Owner    int // connections of the class; default 256
	Member   int // default 256
	Stranger int // default 32
	// Share is how many connections one member may have, default 64. A stranger may
	// have an eighth of it.
	Share int
	// Rate is requests a second of one caller, default 200, and Burst requests at once,
	// default 400. All strangers together may ask a twentieth of it: each of their
	// requests may be a line in somebody's log.
	Rate  float64
	Burst int
}

// withDefaults fills in what is zero.
func (l Limits) withDefaults() Limits {
	for field, value := range map[*int]int{&l.Owner: 256, &l.Member: 256, &l.Stranger: 32, &l.Share: 64, &l.Burst: 400} {
		if *field == 0 {
			*field = value
		}
	}
	if l.Rate == 0 {
		l.Rate = 200
	}
	return l
}

// maxCallers is how many callers without a connection are remembered.
const maxCallers = 1024

// Quota counts. It is safe for concurrent use.
type Quota struct {
	limits Limits
	clock  func() time.Time

	mu        sync.Mutex
	open      [Owner + 1]int // connections, by class
	callers   map[Caller]*caller
	strangers *rate.Limiter
}

type caller struct {
	open   int
	bucket *rate.Limiter
}

// New returns a Quota. clock must not jump: time.Now has a monotonic part and is one.
func New(limits Limits, clock func() time.Time) *Quota {
	limits = limits.withDefaults()
	return &Quota{limits: limits, clock: clock, callers: make(map[Caller]*caller),
		strangers: rate.NewLimiter(rate.Limit(limits.Rate/20), max(1, limits.Burst/20))}
}

// Enter takes a connection for c, until leave is called, once. ok is false, and leave
// nil, if c or its class has as many as it may.
func (q *Quota) Enter(c Caller) (leave func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	class, share := q.limits.Owner, q.limits.Owner
	switch c.Class {
	case Member:
		class, share = q.limits.Member, q.limits.Share
	case Stranger:
		class, share = q.limits.Stranger, max(1, q.limits.Share/8)
	}
	who := q.caller(c)
	if q.open[c.Class] >= class || who.open >= share {
		return nil, false
	}
	q.open[c.Class]++
	who.open++
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.open[c.Class]--
		who.open--
	}, true
}

// Ask takes one request of c. It returns 0, or after how long c may ask again; that
// costs nothing.
func (q *Quota) Ask(c Caller) (wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now, bucket := q.clock(), q.strangers
	if c.Class != Stranger {
		bucket = q.caller(c).bucket
	}
	if bucket.AllowN(now, 1) {
		return 0
	}
	missing := 1 - bucket.TokensAt(now)
	return max(time.Millisecond, time.Duration(math.Ceil(missing/float64(bucket.Limit())*float64(time.Second))))
}

// caller returns what is known of c. Callers hold the mutex.
func (q *Quota) caller(c Caller) *caller {
	who, ok := q.callers[c]
	if ok {
		return who
	}
	if len(q.callers) >= maxCallers {
		q.sweep()
	}
	who = &caller{bucket: rate.NewLimiter(rate.Limit(q.limits.Rate), q.limits.Burst)}
	q.callers[c] = who
	return who
}

// sweep forgets callers without a connection: first those who have not asked for a
// while, of whom nothing is lost, and if that makes no room, all of them. Callers hold
// the mutex.
func (q *Quota) sweep() {
	now := q.clock()
	for _, least := range []float64{float64(q.limits.Burst), math.Inf(-1)} {
		for c, who := range q.callers {
			if who.open == 0 && who.bucket.TokensAt(now) >= least {
				delete(q.callers, c)
			}
		}
		if len(q.callers) < maxCallers {
			return
		}
	}
}
