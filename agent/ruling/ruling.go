// Package ruling has the custody rules of the configuration judge its vaults and keys, and
// records what they say.
package ruling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek"
)

// Config of a judge: exactly what it uses.
type Config struct {
	Settings func() *config.Config // as they are now; never changed
	Keys     *keyring.Keyring
	// Record has an event in the audit log.
	Record func(ctx context.Context, e audit.Event) error
	Clock  func() time.Time
}

// Judge knows what the rules say. It is safe for concurrent use.
type Judge struct {
	cfg Config
}

// New returns a judge.
func New(cfg Config) *Judge { return &Judge{cfg} }

// rules are the custody rules of the configuration.
func (j *Judge) rules() custody.Rules {
	c := j.cfg.Settings().Custody
	r := custody.Rules{Sizes: c.Sizes,
		CustomerManaged: custody.Effect(c.Rules.CustomerManaged), Hardware: custody.Effect(c.Rules.Hardware),
		PurgeProtection: custody.Effect(c.Rules.PurgeProtection), Escrow: custody.Effect(c.Rules.Escrow)}
	if b := c.Rules.MinimumBits; b != nil {
		r.MinimumBits = custody.MinimumBits{Bits: b.Bits, Effect: custody.Effect(b.Effect)}
	}
	if m := c.Rules.MaximumAge; m != nil {
		r.MaximumAge = custody.MaximumAge{Age: time.Duration(m.Days) * 24 * time.Hour, Effect: custody.Effect(m.Effect)}
	}
	return r
}

// subject is what the rules judge: a vault and the keys of these names, as their
// providers describe them.
func (j *Judge) subject(ctx context.Context, vault string, mode catalog.Mode, names ...string) custody.Subject {
	s := custody.Subject{Vault: vault, Mode: mode.String(), Keys: j.keys(ctx, names...)}
	s.Wrappers = len(s.Keys)
	s.Escrow = slices.ContainsFunc(s.Keys, func(f custody.KeyFacts) bool { return f.Ref.Provider == kek.Escrow })
	return s
}

// keys are the keys of these names that answer: that others do not is not the rules'
// affair.
func (j *Judge) keys(ctx context.Context, names ...string) []custody.KeyFacts {
	var out []custody.KeyFacts
	for _, name := range names {
		if e, err := j.cfg.Keys.Entry(ctx, name); err == nil && e.InUse != nil {
			out = append(out, facts(ctx, e.InUse))
		}
	}
	return out
}

// facts asks a key's provider what it says of it.
func facts(ctx context.Context, k kek.Wrapper) custody.KeyFacts {
	f := custody.KeyFacts{Ref: k.Ref()}
	if i, ok := k.(kek.Inspector); ok {
		f.Facts, f.Err = i.Inspect(ctx)
	}
	return f
}

// Vault has the rules look at a vault before it is made, raised or rotated. What
// they deny is the error, and what they only note is returned; both are in the
// audit log.
func (j *Judge) Vault(ctx context.Context, vault string, mode catalog.Mode) ([]string, error) {
	return j.judge(ctx, vault, j.subject(ctx, vault, mode, j.cfg.Settings().Vaults[vault].Keys...), allFindings)
}

// heed says which findings of a judgement count.
type heed int

const (
	allFindings heed = iota
	denials          // the rest is said by a later judgement
)

func (j *Judge) judge(ctx context.Context, vault string, s custody.Subject, which heed) ([]string, error) {
	var noted []string
	var denied []error
	for _, k := range s.Keys {
		if err := j.usable(k); err != nil {
			denied = append(denied, fault.Of(fmt.Errorf("key %s: %w", k.Ref.Name, err)), j.recordUnusable(ctx, vault, k, err))
		}
	}
	for _, f := range j.rules().Judge(j.cfg.Clock(), s) {
		e := audit.Event{Kind: audit.RuleAudited, Vault: vault, By: keyring.AskedBy(ctx), Says: f.Says, Fields: map[string]string{"rule": f.Rule, "subject": f.Subject}}
		switch {
		case f.Effect == custody.Deny:
			e.Kind, e.Outcome = audit.RuleDenied, "refused"
			denied = append(denied, &control.Error{Code: control.CodeForbidden,
				Message: fmt.Sprintf("rule %s forbids it for %s: %s", f.Rule, f.Subject, f.Says), Next: f.Next})
		case which == denials:
			continue
		default:
			noted = append(noted, fmt.Sprintf("%s: %s: %s", f.Subject, f.Says, f.Next))
		}
		if err := j.cfg.Record(ctx, e); err != nil {
			return nil, err
		}
	}
	return noted, errors.Join(denied...)
}

// recordUnusable records that nothing new may be wrapped with a key.
func (j *Judge) recordUnusable(ctx context.Context, vault string, k custody.KeyFacts, why error) error {
	return j.cfg.Record(ctx, audit.Event{Kind: audit.RuleDenied, Vault: vault, Key: k.Ref.Name, Fingerprint: k.Ref.Fingerprint.String(), By: keyring.AskedBy(ctx),
		Outcome: "refused", Says: why.Error(), Fields: map[string]string{"rule": "usable", "subject": "key " + k.Ref.Name}})
}

// usable tells whether something new may be wrapped with a key.
func (j *Judge) usable(k custody.KeyFacts) error {
	if k.Err != nil {
		if errors.Is(k.Err, kek.ErrUnreachable) {
			return nil // what was known when it was opened holds
		}
		return k.Err
	}
	if k.Ref.Provider == kek.Escrow {
		return nil
	}
	return custody.Usable(j.cfg.Clock(), j.rules(), k.Ref, k.Facts)
}

// MayWrap refuses a backup under a vault whose primary key may not be used any
// more: it has expired, say. What it says of the other keys it returns.
func (j *Judge) MayWrap(ctx context.Context, v *vault.Vault) ([]string, error) {
	var notes []string
	primary := true
	for _, k := range j.subject(ctx, v.Name, v.Catalog.Mode(), j.cfg.Settings().Vaults[v.Name].Keys...).Keys {
		if err := j.usable(k); err != nil {
			if primary {
				return notes, errors.Join(fault.Of(fmt.Errorf("key %s: %w", k.Ref.Name, err)), j.recordUnusable(ctx, v.Name, k, err))
			}
			notes = append(notes, fmt.Sprintf("key %s: %v", k.Ref.Name, err))
		}
		primary = false
	}
	return notes, nil
}

// Key is what the rules say of one key, if a vault uses it: the same in each that does.
func (j *Judge) Key(ctx context.Context, key string) []custody.Finding {
	for _, v := range j.cfg.Settings().Vaults {
		if slices.Contains(v.Keys, key) {
			return j.rules().Judge(j.cfg.Clock(), custody.Subject{Keys: j.keys(ctx, key)})
		}
	}
	return nil
}

// Of is what the rules say of a vault as it is now. It records nothing.
func (j *Judge) Of(ctx context.Context, v *vault.Vault) []custody.Finding {
	return j.rules().Judge(j.cfg.Clock(), j.subject(ctx, v.Name, v.Catalog.Mode(), j.cfg.Settings().Vaults[v.Name].Keys...))
}

// Version refuses a new version of a key that the rules, or its own dates, forbid.
func (j *Judge) Version(ctx context.Context, vault string, next kek.Wrapper) error {
	_, err := j.judge(ctx, vault, custody.Subject{Keys: []custody.KeyFacts{facts(ctx, next)}}, denials)
	return err
}

// Mode is the mode that a new vault gets.
func Mode(settings *config.Config, v config.Vault) catalog.Mode {
	if v.Mode == catalog.SoftwareKeys.String() {
		return catalog.SoftwareKeys
	}
	if _, ok := settings.FileKey(v); ok {
		return catalog.SoftwareKeys
	}
	return catalog.CustomerManaged
}
