// Package calls makes calls that cannot be cancelled, into a library or a file
// system that may hang, end for their caller when its context does.
package calls

import (
	"context"
	"fmt"

	"github.com/cofferbackup/coffer/kek"
)

// Places bounds how many calls may be under way. A call that hangs keeps its
// place until it returns, so that no number of hung calls eats the process.
type Places struct {
	places chan struct{}
}

// New returns n places.
func New(n int) *Places { return &Places{places: make(chan struct{}, n)} }

// Do returns what f returns, or kek.Interrupted when ctx is done first; doing says
// what is being done, for that error. What f writes outside its result must not be
// read after an error of ctx. A secret that comes too late is zeroed.
func (p *Places) Do(ctx context.Context, doing string, f func() ([]byte, error)) ([]byte, error) {
	if err := kek.Interrupted(ctx, doing); err != nil {
		return nil, err
	}
	select {
	case p.places <- struct{}{}:
	case <-ctx.Done():
		return nil, kek.Interrupted(ctx, fmt.Sprintf("%s: %d calls before it do not come back", doing, cap(p.places)))
	}
	type result struct {
		secret []byte
		err    error
	}
	done := make(chan result)
	go func() {
		defer func() { <-p.places }()
		secret, err := f()
		select {
		case done <- result{secret, err}:
		case <-ctx.Done():
			clear(secret)
		}
	}()
	select {
	case r := <-done:
		return r.secret, r.err
	case <-ctx.Done():
		return nil, kek.Interrupted(ctx, doing)
	}
}
