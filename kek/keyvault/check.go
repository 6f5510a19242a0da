package keyvault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/kek"
)

// renewSoon is how long before its end a certificate, or a version, is warned of.
const renewSoon = 30 * 24 * time.Hour

// Check goes through everything that a key needs, in the order of kek.Stages, and
// says what to mend and where. It unwraps once and changes nothing.
func Check(ctx context.Context, cfg Config) []kek.Step {
	v, a, err := cfg.connect()
	if err != nil {
		return kek.Fill([]kek.Step{failed(kek.StageIdentity, err, "correct the key in the config")})
	}
	if v.own != nil {
		defer v.own.Close() // which only drops connections
	}
	c := &checkup{vault: v, of: a, name: cfg.Name}
	c.run(ctx)
	return kek.Fill(c.steps)
}

// checkup is a Check under way.
type checkup struct {
	vault *vault
	of    address
	name  string
	steps []kek.Step
}

func (c *checkup) run(ctx context.Context) {
	newest, err := c.newest(ctx)
	if !c.identity(err) || !c.readable(err) {
		return
	}
	// Whether it may unwrap shows only by doing it. What may be done here is done
	// first: a key that fails by itself says nothing about permissions.
	unfit := newest.suitable()
	if unfit == nil {
		unfit = c.vault.enabled(newest.at, newest.facts)
	}
	var test error
	if unfit == nil {
		test = c.selfTest(ctx, newest)
	}
	if !c.permissions(newest, unfit, test) {
		return
	}
	c.protection(newest)
	if c.key(newest, unfit) {
		c.opened(newest, test)
	}
}

// newest reads the version that would be used.
func (c *checkup) newest(ctx context.Context) (version, error) {
	at := c.of
	if at.version == "" {
		all, err := c.vault.list(ctx, c.of)
		if err != nil {
			return version{}, err
		}
		at = all[0].at
	}
	return c.vault.get(ctx, at)
}

func (c *checkup) selfTest(ctx context.Context, newest version) error {
	k, err := newKey(c.vault, c.name, newest)
	if err != nil {
		return err
	}
	return k.Check(ctx)
}

func (c *checkup) identity(err error) bool {
	id := c.vault.id
	var f *fault
	if errors.As(err, &f) && f.status != 0 && f.class != kek.ErrUnreachable && f.status != 401 {
		err = nil // it knows who asks, and says something else
	}
	if err != nil && !errors.Is(err, kek.ErrUnsuitable) {
		c.steps = append(c.steps, failed(kek.StageIdentity, err, "put the connection right"))
		return false
	}
	step := kek.Step{Stage: kek.StageIdentity, Verdict: kek.Passed, Says: fmt.Sprintf("%s answers and knows %s", c.vault.host, id.credential)}
	switch expires := id.expiry(); {
	case id.clockOff() != "":
		step.Verdict, step.Says, step.Next = kek.Warned, step.Says+"; "+id.clockOff(), "set this machine's clock (NTP)"
	case !expires.IsZero() && expires.Sub(id.now()) < renewSoon:
		step.Verdict = kek.Warned
		step.Says += "; its certificate ends on " + expires.UTC().Format(time.DateOnly)
		step.Next = "make a new one and put it into " + id.credential.Certificate
	}
	c.steps = append(c.steps, step)
	return true
}

// readable ends the check if the key could not be read.
func (c *checkup) readable(err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, kek.ErrMissing):
		c.steps = append(c.steps, failed(kek.StagePermissions, err, ""))
	default:
		c.steps = append(c.steps, failed(kek.StagePermissions, err, "let it get and list the key"))
	}
	return false
}

func (c *checkup) permissions(newest version, unfit, test error) bool {
	step := kek.Step{Stage: kek.StagePermissions, Verdict: kek.Passed, Says: "it may read the key and unwrap with it"}
	switch {
	case unfit != nil:
		step.Says = "it may read the key; whether it may unwrap shows when the key is put right"
	case errors.Is(test, kek.ErrDenied):
		c.steps = append(c.steps, failed(kek.StagePermissions, test, c.vault.permit(newest.at, "")))
		return false
	case test != nil:
		step.Says = "it may read the key; whether it may unwrap could not be seen"
	}
	c.steps = append(c.steps, step)
	return true
}

// protection: a key without purge protection is failed, as Azure Backup and Azure
// SQL refuse it.
func (c *checkup) protection(newest version) {
	step := kek.Step{Stage: kek.StageProtection, Verdict: kek.Passed}
	where := fmt.Sprintf("portal: the vault, Properties, Purge protection; or az keyvault update --name %s --enable-purge-protection true. It cannot be undone", c.of.label())
	if c.of.hsm {
		where = fmt.Sprintf("az keyvault update-hsm --hsm-name %s --enable-purge-protection true. It cannot be undone", c.of.label())
	}
	home := "the private half is in an HSM"
	if newest.facts.Hardware != kek.Yes {
		home = "the private half is not bound to an HSM"
	}
	switch f := newest.facts; {
	case f.SoftDelete == kek.No:
		step.Verdict, step.Says, step.Next = kek.Failed, "soft delete is off: a key that is deleted is gone, and with it every backup under it", "turn soft delete and purge protection on ("+where+")"
	case f.PurgeProtection == kek.No:
		step.Verdict, step.Says, step.Next = kek.Failed, "purge protection is off: whoever may purge can destroy the key, and with it every backup under it", "turn it on ("+where+")"
	case f.PurgeProtection == kek.Unsaid:
		step.Verdict, step.Says, step.Next = kek.Warned, "the vault does not say whether purge protection is on", "look ("+where+")"
	case newest.exportable:
		step.Verdict, step.Says, step.Next = kek.Warned, "soft delete and purge protection are on; the key is exportable: it can leave the vault", "use a key that is not exportable"
	default:
		step.Says = "soft delete and purge protection are on; " + home
	}
	c.steps = append(c.steps, step)
}

func (c *checkup) key(newest version, unfit error) bool {
	if unfit != nil {
		c.steps = append(c.steps, failed(kek.StageKey, unfit, ""))
		return false
	}
	now := c.vault.now()
	step := kek.Step{Stage: kek.StageKey, Verdict: kek.Passed, Says: fmt.Sprintf("version %s, RSA %d, enabled", newest.at.version, newest.pub.N.BitLen())}
	switch why := outside(newest.facts, now); {
	case why != "":
		step.Verdict, step.Says, step.Next = kek.Failed, "version "+newest.at.version+" "+why+": it opens old backups and makes no new ones", "make a new version of the key ("+c.of.az("rotate")+")"
	case !newest.mayWrap():
		step.Verdict, step.Says, step.Next = kek.Failed, "the operations of version "+newest.at.version+" leave out wrapKey: it opens old backups and makes no new ones",
			"add it ("+newest.at.azVersion("set-attributes")+" --ops wrapKey unwrapKey)"
	case !newest.facts.Expires.IsZero() && newest.facts.Expires.Sub(now) < renewSoon:
		step.Verdict, step.Next = kek.Warned, "make a new version of the key before that ("+c.of.az("rotate")+")"
		step.Says += ", expires on " + newest.facts.Expires.UTC().Format(time.DateOnly)
	}
	c.steps = append(c.steps, step)
	return true
}

func (c *checkup) opened(newest version, test error) {
	if test != nil {
		c.steps = append(c.steps, failed(kek.StageSelfTest, test, "try again"))
		return
	}
	c.steps = append(c.steps, kek.Step{Stage: kek.StageSelfTest, Verdict: kek.Passed, Says: "version " + newest.at.version + " opens what it wraps (" + kek.OAEPSHA256.String() + ")"})
}

// failed makes a step of an error. next is for an error that does not say it.
func failed(stage kek.Stage, err error, next string) kek.Step {
	step := kek.Step{Stage: stage, Verdict: kek.Failed, Says: strings.TrimSuffix(err.Error(), "."), Next: next, Missing: errors.Is(err, kek.ErrMissing)}
	var f *fault
	if errors.As(err, &f) {
		step.Says = f.class.Error() + ": " + f.says
		if f.next != "" {
			step.Next = f.next
		}
	}
	return step
}
