package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// every is how often a Daily reads the whole log.
const every = 24 * time.Hour

// Daily looks after a log: it reads all of it once a day, and knows what is wrong with it.
// It is safe for concurrent use.
type Daily struct {
	log   *Log
	clock func() time.Time

	mu    sync.Mutex
	read  time.Time // when all of it was; zero: not yet
	fault error     // as it was then
}

// NewDaily looks after a log that it has not read yet.
func NewDaily(log *Log, clock func() time.Time) *Daily { return &Daily{log: log, clock: clock} }

// Look reads the log if a day has passed since the last time, or the clock went back.
func (d *Daily) Look(ctx context.Context) {
	now := d.clock()
	d.mu.Lock()
	since, never := now.Sub(d.read), d.read.IsZero()
	d.mu.Unlock()
	if !never && since >= 0 && since < every {
		return
	}
	report, err := Verify(ctx, d.log.dir, Options{})
	if ctx.Err() != nil {
		return
	}
	switch n := len(report.Faults) + report.More; {
	case err != nil || n == 0:
	case n == 1:
		err = errors.New(report.Faults[0].String())
	default:
		err = fmt.Errorf("%d faults, the first: %s", n, report.Faults[0])
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.read, d.fault = now, err
}

// Fault returns why the log does not take events, or else what was wrong with it when it
// was last read; nil if it is well. It does not wait for a disk.
func (d *Daily) Fault() error {
	if err := d.log.Fault(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault
}
