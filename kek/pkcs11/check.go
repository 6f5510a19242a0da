//go:build cgo && linux

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/kek"
)

// Check goes through everything that the key of uri needs, and says what is wrong
// and what to do. It returns every stage, in the order of kek.Stages. A PIN that the
// token has refused is not tried again by it either.
func (p *Pool) Check(ctx context.Context, uri string) []kek.Step {
	u, err := ParseURI(uri)
	if err != nil {
		return kek.Fill([]kek.Step{kek.Fail(kek.StageIdentity, err, "correct the key's uri in the configuration")})
	}
	t, err := p.hold(ctx, u)
	if err != nil {
		return kek.Fill([]kek.Step{kek.Fail(kek.StageIdentity, err, next(kek.StageIdentity, err))})
	}
	var r report
	_, err = t.use(ctx, "check "+u.String(), func(c *conn) ([]byte, error) {
		return nil, t.examine(c, u, &r)
	})
	steps := r.taken()
	if c, _ := t.state(); c == nil {
		steps = nil // it was lost, and does not come back
	}
	if err != nil && len(steps) < len(kek.Stages()) {
		stage := kek.Stages()[len(steps)]
		steps = append(steps, kek.Fail(stage, err, next(stage, err)))
	}
	if err := t.release(p.patience(ctx)); err != nil {
		p.cfg.Log.WarnContext(ctx, "token does not let go", "token", t.name(), "error", err)
	}
	return kek.Fill(steps)
}

// report is the steps that were taken without a failure. A call that is left behind
// may still add to it.
type report struct {
	mu    sync.Mutex
	steps []kek.Step
}

func (r *report) taken() []kek.Step {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]kek.Step(nil), r.steps...)
}

// add adds a step, which is a warning if there is something to do.
func (r *report) add(stage kek.Stage, says, next string) {
	step := kek.Step{Stage: stage, Verdict: kek.Passed, Says: says, Next: next}
	if next != "" {
		step.Verdict = kek.Warned
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, step)
}

// restart forgets what was found on a connection that is gone.
func (r *report) restart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = nil
}

// examine takes the stages on connection c, up to the first that fails.
func (t *token) examine(c *conn, u URI, r *report) error {
	r.restart()
	r.add(kek.StageIdentity, t.introduce(), "")
	found, err := t.candidates(c, u)
	if err != nil {
		return err
	}
	one := found[0]
	if err := t.mayDecrypt(c, one); err != nil {
		return err
	}
	says := fmt.Sprintf("key %q, version %s, is there and may decrypt", one.label, version(one.id))
	if n := len(found) - 1; n > 0 {
		says += fmt.Sprintf("; older versions: %d", n)
	}
	r.add(kek.StagePermissions, says, "")
	cautions, err := t.staysInside(c, one)
	if err != nil {
		return err
	}
	facts, err := t.facts(c, one)
	if err != nil {
		return err
	}
	r.protection(cautions, facts)
	k, err := t.describe(one)
	if err != nil {
		return err
	}
	r.key(k, facts, t.cfg.Now())
	if err := k.prepare(c, one); err != nil {
		return err
	}
	r.selfTest(k.ref.Algorithm)
	return nil
}

// introduce says which token answers, and how it was entered.
func (t *token) introduce() string {
	t.mu.Lock()
	info, pin := t.info, t.pin
	t.mu.Unlock()
	says := fmt.Sprintf("token %q (%s, serial %s) in slot %d answers", info.label, info.model, info.serial, info.slot)
	if pin.IsZero() {
		return says + " and asks for no PIN"
	}
	return fmt.Sprintf("%s and accepts the PIN from %s", says, pin)
}

func (r *report) protection(cautions []string, facts kek.Facts) {
	if facts.Hardware == kek.No {
		cautions = append([]string{"this token is software: whoever can copy its files and knows the PIN has the key"}, cautions...)
	}
	if len(cautions) > 0 {
		r.add(kek.StageProtection, strings.Join(cautions, "; "),
			"for a key that nobody can copy, make one inside an HSM and rotate to it: coffer key rotate")
		return
	}
	says := "the key was made in the token, is sensitive and private, and could never leave it"
	if facts.Hardware == kek.Yes {
		says += "; the token says that it is hardware"
	}
	r.add(kek.StageProtection, says, "")
}

func (r *report) key(k *key, facts kek.Facts, now time.Time) {
	says := fmt.Sprintf("RSA, %d bits, exponent %d", k.ref.Bits, k.pub.E)
	switch day := time.DateOnly; {
	case !facts.Expires.IsZero() && !now.Before(facts.Expires):
		r.add(kek.StageKey, fmt.Sprintf("%s; its last day was %s", says, facts.Expires.AddDate(0, 0, -1).Format(day)), "make a new version and rotate to it; this one still opens what it wrapped")
	case now.Before(facts.NotBefore):
		r.add(kek.StageKey, fmt.Sprintf("%s; its first day is %s", says, facts.NotBefore.Format(day)), "wait for that day, or look at the clock of this host")
	default:
		r.add(kek.StageKey, says, "")
	}
}

func (r *report) selfTest(alg kek.Algorithm) {
	says := fmt.Sprintf("it opened what it wrapped, with %v", alg)
	if alg == kek.OAEPSHA1 {
		r.add(kek.StageSelfTest, says+": the token does OAEP with SHA-1 only", "OAEP does not suffer from what is broken in SHA-1; where FIPS 140 is enforced, take a token or firmware that does SHA-256")
		return
	}
	r.add(kek.StageSelfTest, says, "")
}

// next says what to do about an error at a stage.
func next(stage kek.Stage, err error) string {
	switch {
	case errors.Is(err, kek.ErrUnreachable) && stage == kek.StageIdentity:
		return "see that the token's library is installed and the token is plugged in, or its server answers; then check again"
	case errors.Is(err, kek.ErrUnreachable):
		return "see that the token, or its server, still answers; then check again"
	case errors.Is(err, kek.ErrDenied) && stage == kek.StageIdentity:
		return "put the right PIN where pin-source says: each new one there is tried once; if the token is locked, unlock it first"
	case errors.Is(err, kek.ErrDenied):
		return "let this user of the token use the key, with the token's own tool"
	case errors.Is(err, kek.ErrMissing):
		return "correct object= or id= in the key's uri, or put back the token that has the key"
	case stage == kek.StageIdentity:
		return "correct the key's uri in the configuration"
	case stage == kek.StageSelfTest:
		return "look into the token's own log; if nothing mends it, restore the key from the token's backup"
	}
	return "make another key in the token, of 3072 bits, with an id, that may decrypt and cannot leave it"
}
