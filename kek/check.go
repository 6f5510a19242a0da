package kek

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Answer is yes, no, or that the provider does not say.
type Answer uint8

// The answers.
const (
	Unsaid Answer = iota
	No
	Yes
)

func (a Answer) String() string {
	switch a {
	case No:
		return "no"
	case Yes:
		return "yes"
	}
	return "not said"
}

// AnswerOf returns Yes or No.
func AnswerOf(yes bool) Answer {
	if yes {
		return Yes
	}
	return No
}

// Facts are what a provider says of one version of a key, besides the key itself.
// The zero value says nothing.
type Facts struct {
	Hardware        Answer // the private half is in hardware and cannot leave it
	Enabled         Answer
	MayUnwrap       Answer // by the key's own operations
	SoftDelete      Answer // a deleted key can be recovered
	PurgeProtection Answer // and nobody can prevent that
	Created         time.Time
	Updated         time.Time // of its attributes
	NotBefore       time.Time
	Expires         time.Time
}

// Inspector is a key whose provider knows facts of it.
type Inspector interface {
	// Inspect asks the provider. Its errors are those of Unwrap.
	Inspect(ctx context.Context) (Facts, error)
}

// Stage is one stage of the check of a key, and they are taken in this order.
type Stage string

// The stages.
const (
	StageIdentity    Stage = "identity"    // the provider is reached and knows who asks
	StagePermissions Stage = "permissions" // who asks may read the key and unwrap with it
	StageProtection  Stage = "protection"  // the key cannot be lost by one mistake, nor copied
	StageKey         Stage = "key"         // it is RSA, large enough, enabled, inside its dates
	StageSelfTest    Stage = "self-test"   // it opens what it wraps
)

// Verdict is how a stage ended.
type Verdict string

// The verdicts. Skipped: an earlier stage failed, so this one means nothing.
const (
	Passed  Verdict = "passed"
	Warned  Verdict = "warned"
	Failed  Verdict = "failed"
	Skipped Verdict = "skipped"
)

// Step is what one stage found. It has no secret.
type Step struct {
	Stage   Stage
	Verdict Verdict
	Says    string // what was found, without a full stop
	Next    string // what to do, and where; "" if it passed
	Missing bool   // it failed, as there is no such key (ErrMissing)
}

// Stages returns all stages in order.
func Stages() []Stage {
	return []Stage{StageIdentity, StagePermissions, StageProtection, StageKey, StageSelfTest}
}

// Fill returns steps with the stages that it lacks, as skipped.
func Fill(steps []Step) []Step {
	out := make([]Step, 0, len(Stages()))
	for _, stage := range Stages() {
		found := false
		for _, s := range steps {
			if s.Stage == stage {
				out, found = append(out, s), true
			}
		}
		if !found {
			out = append(out, Step{Stage: stage, Verdict: Skipped, Says: "not tried: an earlier step failed"})
		}
	}
	return out
}

// Fail returns a failed step that says err. The words of the contract's errors are
// left out where they begin it: what follows them says it better.
func Fail(stage Stage, err error, next string) Step {
	says := err.Error()
	for _, sentinel := range []error{ErrUnreachable, ErrDenied, ErrMissing, ErrUnsuitable, ErrWrongKey} {
		if rest, ok := strings.CutPrefix(says, sentinel.Error()+": "); ok {
			says = rest
			break
		}
	}
	return Step{Stage: stage, Verdict: Failed, Says: says, Next: next, Missing: errors.Is(err, ErrMissing)}
}
