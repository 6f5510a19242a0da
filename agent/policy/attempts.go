package policy

import (
	"fmt"
	"time"
)

// Attempts says how often a run that fails is tried again, and when. The zero value
// has the defaults.
type Attempts struct {
	// Tries are the most there are, the first included; default 5, and 1 is no retry.
	Tries int
	// First is the wait after the first failure, and each further one is twice as long;
	// default 1 minute.
	First time.Duration
	// Longest is the longest wait, default 1 hour.
	Longest time.Duration
	// Deadline is how long all tries may take together; 0: no limit.
	Deadline time.Duration
}

// Check tells what is wrong with the numbers.
func (a Attempts) Check() error {
	switch {
	case a.Tries < 0:
		return fmt.Errorf("tries is %d; write 1 or more", a.Tries)
	case a.First < 0 || a.Longest < 0 || a.Deadline < 0:
		return fmt.Errorf("a wait or deadline of attempts is less than nothing; write one like 5m")
	case a.Longest > 0 && a.First > a.Longest:
		return fmt.Errorf("the first wait of %s is longer than the longest of %s; make the longest %s or more", Span(a.First), Span(a.Longest), Span(a.First))
	}
	return nil
}

func (a Attempts) orDefault() Attempts {
	if a.Tries <= 0 {
		a.Tries = 5
	}
	if a.First <= 0 {
		a.First = time.Minute
	}
	if a.Longest <= 0 {
		a.Longest = max(time.Hour, a.First)
	}
	return a
}

// Wait returns how long to wait after that many failures in a row; 0 after none.
func (a Attempts) Wait(failures int) time.Duration {
	a = a.orDefault()
	if failures <= 0 {
		return 0
	}
	wait := min(a.First, a.Longest)
	for range failures - 1 {
		if wait > a.Longest/2 {
			return a.Longest
		}
		wait *= 2
	}
	return wait
}

// Next returns when to try again a run that began at began and, at failed, has failed
// for that many times. ok is false if no try is left, or none before the deadline.
func (a Attempts) Next(began, failed time.Time, failures int) (at time.Time, ok bool) {
	a = a.orDefault()
	at = failed.Add(a.Wait(failures))
	if failures >= a.Tries || a.Passed(began, at) {
		return time.Time{}, false
	}
	return at, true
}

// Passed tells whether the deadline of a run is over. Before its beginning, which a
// clock that was put back may show, it is not.
func (a Attempts) Passed(began, now time.Time) bool {
	return a.Deadline > 0 && now.Sub(began) >= a.Deadline
}
