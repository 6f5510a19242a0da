package agent

import (
	"context"
	"fmt"
	"time"
)

// gate is a mutex for what is held while a store or a key is asked, which may take
// long: who waits for it waits no longer than its context lasts.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

// enter takes the gate. After an error it is not taken.
func (g gate) enter(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g gate) leave() { <-g }

// glance is how long a status waits for stores and keys, all of them together.
// Jobs are far more patient.
const glance = 10 * time.Second

// overdue returns err, or that what was asked is too slow for a glance: silent says
// who. The caller's own end stays what it is.
func overdue(ctx, glancing context.Context, err, silent error) error {
	if err == nil || glancing.Err() == nil || ctx.Err() != nil {
		return err
	}
	return Fault(fmt.Errorf("%w within %s: %v", silent, glance, err))
}
