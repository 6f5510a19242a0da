package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek"
)

// rules are the custody rules of the configuration.
func (a *Agent) rules() custody.Rules {
	c := a.settings().Custody
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
func (a *Agent) subject(ctx context.Context, vault string, mode catalog.Mode, names ...string) custody.Subject {
	s := custody.Subject{Vault: vault, Mode: mode.String()}
	for _, name := range names {
		e, err := a.keys.Entry(ctx, name)
		if err != nil || e.InUse == nil {
			continue // that it does not answer is not the rules' affair
		}
		s.Wrappers++
		f := facts(ctx, e.InUse)
		s.Escrow = s.Escrow || f.Ref.Provider == kek.Escrow
		s.Keys = append(s.Keys, f)
	}
	return s
}

// facts asks a key's provider what it says of it.
func facts(ctx context.Context, k kek.Wrapper) custody.KeyFacts {
	f := custody.KeyFacts{Ref: k.Ref()}
	if i, ok := k.(kek.Inspector); ok {
		f.Facts, f.Err = i.Inspect(ctx)
	}
	return f
}

// judge has the rules look at a vault before it is made, raised or rotated. What
// they deny is the error, and what they only note is returned; both are in the
// audit log.
func (a *Agent) judge(ctx context.Context, vault string, mode catalog.Mode) ([]string, error) {
	return a.judgeSubject(ctx, vault, a.subject(ctx, vault, mode, a.settings().Vaults[vault].Keys...), allFindings)
}

// heed says which findings of a judgement count.
type heed int

const (
	allFindings heed = iota
	denials          // the rest is said by a later judgement
)

func (a *Agent) judgeSubject(ctx context.Context, vault string, s custody.Subject, which heed) ([]string, error) {
	var noted []string
	var denied []error
	for _, k := range s.Keys {
		if err := a.usable(k); err != nil {
			denied = append(denied, fault.Of(fmt.Errorf("key %s: %w", k.Ref.Name, err)), a.recordUnusable(ctx, vault, k, err))
		}
	}
	for _, f := range a.rules().Judge(a.Clock(), s) {
		e := audit.Event{Kind: audit.RuleAudited, Vault: vault, By: by(ctx), Says: f.Says, Fields: map[string]string{"rule": f.Rule, "subject": f.Subject}}
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
		if err := a.record(ctx, e); err != nil {
			return nil, err
		}
	}
	return noted, errors.Join(denied...)
}

// recordUnusable records that nothing new may be wrapped with a key.
func (a *Agent) recordUnusable(ctx context.Context, vault string, k custody.KeyFacts, why error) error {
	return a.record(ctx, audit.Event{Kind: audit.RuleDenied, Vault: vault, Key: k.Ref.Name, Fingerprint: k.Ref.Fingerprint.String(), By: by(ctx),
		Outcome: "refused", Says: why.Error(), Fields: map[string]string{"rule": "usable", "subject": "key " + k.Ref.Name}})
}

// usable tells whether something new may be wrapped with a key.
func (a *Agent) usable(k custody.KeyFacts) error {
	if k.Err != nil {
		if errors.Is(k.Err, kek.ErrUnreachable) {
			return nil // what was known when it was opened holds
		}
		return k.Err
	}
	if k.Ref.Provider == kek.Escrow {
		return nil
	}
	return custody.Usable(a.Clock(), a.rules(), k.Ref, k.Facts)
}

// mayWrap refuses a backup under a vault whose primary key may not be used any
// more: it has expired, say. What it says of the other keys it returns.
func (a *Agent) mayWrap(ctx context.Context, v *vault.Vault) ([]string, error) {
	var notes []string
	primary := true
	for _, k := range a.subject(ctx, v.Name, v.Catalog.Mode(), a.settings().Vaults[v.Name].Keys...).Keys {
		if err := a.usable(k); err != nil {
			if primary {
				return notes, errors.Join(fault.Of(fmt.Errorf("key %s: %w", k.Ref.Name, err)), a.recordUnusable(ctx, v.Name, k, err))
			}
			notes = append(notes, fmt.Sprintf("key %s: %v", k.Ref.Name, err))
		}
		primary = false
	}
	return notes, nil
}

// findings is what the rules say of one key, in every vault that uses it.
func (a *Agent) findings(ctx context.Context, key string) []custody.Finding {
	var out []custody.Finding
	for name, cfg := range a.settings().Vaults {
		if !slices.Contains(cfg.Keys, key) {
			continue
		}
		for _, f := range a.rules().Judge(a.Clock(), a.subject(ctx, name, a.wantedMode(cfg), key)) {
			if f.Subject == "key "+key && !slices.ContainsFunc(out, func(o custody.Finding) bool { return o.Rule == f.Rule }) {
				out = append(out, f)
			}
		}
	}
	return out
}

func ruleView(f custody.Finding) control.RuleView {
	return control.RuleView{Rule: f.Rule, Effect: string(f.Effect), Subject: f.Subject, Says: f.Says, Next: f.Next}
}
