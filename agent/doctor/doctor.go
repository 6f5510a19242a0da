// Package doctor tries what an agent depends on, and says what to do about it.
//
// Invariants:
//   - Nothing is changed that anybody has put there: what a look writes, it removes, and
//     in a store it writes nothing that was not there before.
//   - A look ends: whatever does not answer in time has failed.
//   - No secret is in what is said.
package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// Patience is how long one look may take.
const Patience = 30 * time.Second

// atOnce is how many looks go on at the same time.
const atOnce = 8

// Look is one thing to look at.
type Look struct {
	Subject string // "store of site"
	What    string // of it, in case nothing comes back in time
	Try     func(ctx context.Context) []control.Check
}

// Run looks at everything, much of it at once, and returns what was found in the order
// of looks. A look that does not come back is left behind: it may wait for a disk that
// never answers.
func Run(ctx context.Context, looks []Look) []control.Check {
	found := make([][]control.Check, len(looks))
	places := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, l := range looks {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			found[i] = l.run(ctx)
		})
	}
	all.Wait()
	out := []control.Check{}
	for _, checks := range found {
		out = append(out, checks...)
	}
	return out
}

func (l Look) run(ctx context.Context) []control.Check {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	done := make(chan []control.Check, 1)
	go func() { done <- l.Try(ctx) }()
	select {
	case checks := <-done:
		for i := range checks {
			checks[i].Subject = l.Subject
		}
		return checks
	case <-ctx.Done():
	}
	select { // it may just have heard of the end, and know more
	case checks := <-done:
		for i := range checks {
			checks[i].Subject = l.Subject
		}
		return checks
	case <-time.After(time.Second):
		return []control.Check{{Subject: l.Subject, What: l.What, Outcome: control.CheckBad, Says: fmt.Sprintf("no answer within %s", Patience),
			Next: "see whether the disk, network or device behind it answers at all"}}
	}
}

// Good says that something is as it should be.
func Good(what, format string, args ...any) control.Check {
	return control.Check{What: what, Outcome: control.CheckGood, Says: fmt.Sprintf(format, args...)}
}

// Warning says that something is not as it should be, and works.
func Warning(what, next, format string, args ...any) control.Check {
	return control.Check{What: what, Outcome: control.CheckWarning, Says: fmt.Sprintf(format, args...), Next: next}
}

// Bad says that something does not work.
func Bad(what, next, format string, args ...any) control.Check {
	return control.Check{What: what, Outcome: control.CheckBad, Says: fmt.Sprintf(format, args...), Next: next}
}

// Skipped says that something was not tried, and why.
func Skipped(what, format string, args ...any) control.Check {
	return control.Check{What: what, Outcome: control.CheckSkipped, Says: fmt.Sprintf(format, args...)}
}
