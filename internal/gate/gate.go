// Package gate is a mutex for what is held while a store or a key is asked, which
// may take long: who waits for it waits no longer than its context lasts.
package gate

import "context"

// Gate is open until somebody enters. Make one with New.
type Gate chan struct{}

// New returns an open gate.
func New() Gate { return make(Gate, 1) }

// Enter takes the gate. After an error it is not taken.
func (g Gate) Enter(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Leave gives it back.
func (g Gate) Leave() { <-g }
