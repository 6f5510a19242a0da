// Package custody decides, from what key providers answer, the state of a vault's
// keys, and whether a key satisfies the rules. It is pure: time and answers are
// given to it, and it asks nobody.
//
// Three things are never confused. A key that opens its canary is there. A key that
// is out of reach may be fine, so cached secrets go on for a grace time and the
// vault heals by itself whenever the key is back. A key that is denied or gone was
// taken away by somebody: within minutes the vault is closed, and after a longer
// while an operator must confirm that it may be opened again.
//
// Invariants, of every Health and every order of events:
//   - accessible only while every key opened its canary at the last look.
//   - inaccessible at most Settings.Limit after a denial, unless a key opens.
//   - requires_revalidation ends by Revalidate alone.
//   - cached secrets are used in accessible and degraded only.
package custody

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cofferbackup/coffer/kek"
)

// State is the state of a vault's keys. The texts are those of control.KeyState.
type State string

// The states.
const (
	Unknown              State = "unknown"               // no key was asked yet
	Accessible           State = "accessible"            // every key opens
	Degraded             State = "degraded"              // a key opens or cached secrets go on, and something is wrong
	Inaccessible         State = "inaccessible"          // no key opens, and cached secrets are gone
	RequiresRevalidation State = "requires_revalidation" // keys are back after too long; an operator must confirm
)

// Settings are the times after which states change. Zero means the default.
type Settings struct {
	Limit time.Duration // from the beginning of a denial to inaccessible; default 10 minutes
	Heal  time.Duration // from its beginning, until when a vault heals by itself; default 30 minutes
	Grace time.Duration // from the last good answer, how long cached secrets outlive keys out of reach; default 12 hours
}

func (s Settings) orDefault() Settings {
	for _, f := range []struct {
		value *time.Duration
		std   time.Duration
	}{{&s.Limit, 10 * time.Minute}, {&s.Heal, 30 * time.Minute}, {&s.Grace, 12 * time.Hour}} {
		if *f.value <= 0 {
			*f.value = f.std
		}
	}
	return s
}

// leap is the longest time that may pass between two calls without a doubt. A clock
// that was set, and a machine that slept, take longer steps.
func (s Settings) leap() time.Duration { return s.Heal + s.Limit }

// Answer is what a key provider answered.
type Answer uint8

// The answers. NoAnswer is the one of a question that was withdrawn: it says
// nothing about the key.
const (
	NoAnswer Answer = iota
	Opens
	Unreachable
	Denied
	Missing
)

func (a Answer) String() string {
	switch a {
	case Opens:
		return "opens"
	case Unreachable:
		return "unreachable"
	case Denied:
		return "denied"
	case Missing:
		return "missing"
	}
	return "no answer"
}

// MarshalText is the inverse of UnmarshalText.
func (a Answer) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText takes what String returns.
func (a *Answer) UnmarshalText(text []byte) error {
	for _, known := range []Answer{NoAnswer, Opens, Unreachable, Denied, Missing} {
		if string(text) == known.String() {
			*a = known
			return nil
		}
	}
	return fmt.Errorf("%q is not an answer of a key", text)
}

// takenAway tells whether somebody took the key away.
func (a Answer) takenAway() bool { return a == Denied || a == Missing }

// AnswerOf tells what an error of a key means.
//
//   - ErrDenied is Denied, and so is ErrUnsuitable: the key is there, and its owner
//     no longer lets it open anything.
//   - ErrMissing is Missing, and so are ErrWrongKey and ErrNoKey: another key answers
//     in the place of the one that the canary was made for, or none.
//   - An error that wraps several of these is the gravest: what was taken away does
//     not come back by itself.
//   - context.Canceled alone is NoAnswer.
//   - Anything else is Unreachable: nobody said no, and a fault of this program must
//     not close a vault.
func AnswerOf(err error) Answer {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return Opens
	case is(kek.ErrDenied, kek.ErrUnsuitable):
		return Denied
	case is(kek.ErrMissing, kek.ErrWrongKey, kek.ErrNoKey):
		return Missing
	case is(context.Canceled) && !is(kek.ErrUnreachable):
		return NoAnswer
	}
	return Unreachable
}

// Probe is the last answer of one version of a key to the question whether it opens
// its canary.
type Probe struct {
	Key   string        // its name in the config
	Ref   kek.Ref       // as far as it is known
	Err   error         // nil: it opened the canary
	Asked time.Time     // when; zero: just now
	Every time.Duration // how often it is asked; zero: 5 minutes
}

func (p Probe) every() time.Duration {
	if p.Every <= 0 {
		return 5 * time.Minute
	}
	return p.Every
}

// stale is the age at which an answer says nothing of the key any more.
func (p Probe) stale() time.Duration { return 3 * p.every() }

// Kind is what a notice is about.
type Kind string

// The kinds of notices.
const (
	Change Kind = "change" // of the state, or of its reason while the state stays
	Alarm  Kind = "alarm"  // a key was taken away, or still is
)

// Notice is something that an operator should hear of. It has no secret.
type Notice struct {
	Kind Kind
	From State
	To   State  // as From in an alarm, and when only the reason is another
	Says string // without a full stop
	Next string // what to do, and where
}

// ErrNotBack: a key that must open before a vault is used again does not.
var ErrNotBack = errors.New("not every key in use opens")
