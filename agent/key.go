package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/kek"
)

// Keys implements control.Keys.
func (a *Agent) Keys(ctx context.Context) ([]control.Key, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	var out []control.Key
	for _, name := range slices.Sorted(maps.Keys(a.settings().Keys)) {
		keys, err := a.describeKey(ctx, glancing, name)
		if err != nil {
			return nil, err
		}
		a.addFacts(glancing, name, keys)
		out = append(out, keys...)
	}
	return out, nil
}

// describeKey describes all versions of a key, the one in use first, or why there are
// none to see.
func (a *Agent) describeKey(ctx, glancing context.Context, name string) ([]control.Key, error) {
	var vaults []string
	wraps := false
	for _, vault := range slices.Sorted(maps.Keys(a.settings().Vaults)) {
		cfg := a.settings().Vaults[vault]
		if slices.Contains(cfg.Keys, name) || slices.Contains(cfg.RestoreKeys, name) {
			vaults = append(vaults, vault)
		}
		wraps = wraps || slices.Contains(cfg.Keys, name)
	}
	restoreOnly := len(vaults) > 0 && !wraps
	e, err := a.keys.Entry(glancing, name)
	if err == nil {
		err = a.watch.Answer(name)
	}
	err = overdue(ctx, glancing, err, kek.ErrUnreachable)
	if e == nil {
		cfg := a.settings().Keys[name]
		return []control.Key{{Name: name, URI: cmp.Or(cfg.URI, cfg.Public), Vaults: vaults, RestoreOnly: restoreOnly, Error: control.AsError(a.keyFault(name, err))}}, ctx.Err()
	}
	var out []control.Key
	for _, ref := range e.Refs() {
		k := describe(ref)
		k.InUse = e.InUse != nil && ref.Fingerprint == e.InUse.Ref().Fingerprint
		k.Vaults, k.RestoreOnly = vaults, restoreOnly
		if public := a.settings().Keys[name].Public; public != "" {
			k.URI = public // where its file is
		}
		if err != nil && (k.InUse || e.InUse == nil) {
			k.Error = control.AsError(a.keyFault(name, err))
		} else if e.InUse == nil && e.Stale != nil {
			k.Error = control.AsError(a.keyFault(name, e.Stale))
		}
		if k.InUse {
			out = slices.Insert(out, 0, k)
		} else {
			out = append(out, k)
		}
	}
	return out, nil
}

// keyFault is what an operator is told of an error of a key of the config.
func (a *Agent) keyFault(name string, err error) error {
	told := fault.Names{Key: name}.Of(err)
	wire := control.AsError(told)
	if name == "" || !errors.Is(err, kek.ErrMissing) || !a.mayBeMade(name) {
		return told
	}
	e := *wire
	e.Next = "put the key back where its uri in the config says, or correct that; or, " + fault.MakeNext(name)
	return fault.New(e, err)
}

// mayBeMade tells whether a new key may be what is missing: no vault that is made has it
// among its keys, and it is none of which there is only the public half here.
func (a *Agent) mayBeMade(key string) bool {
	cfg := a.settings()
	for name, v := range cfg.Vaults {
		if slices.Contains(v.Keys, key) || slices.Contains(v.RestoreKeys, key) {
			if _, err := a.vaults.Pinned(name); err == nil {
				return false
			}
		}
	}
	return cfg.Keys[key].Public == ""
}

// describeLink describes a key that is linked and not in the config. It is known by
// its URI, as it was linked.
func (a *Agent) describeLink(ctx context.Context, uri string) control.Key {
	k := control.Key{Name: "linked", URI: uri, RestoreOnly: true}
	e, err := a.keys.Entry(ctx, a.keys.Link(a.settings().Linked(uri)))
	if err != nil {
		k.Error = control.AsError(fault.Of(err))
		return k
	}
	if refs := e.Refs(); len(refs) > 0 {
		k = describe(refs[0])
		k.Name, k.URI, k.RestoreOnly = "linked", uri, true
	}
	return k
}

// addFacts adds what the provider says of the versions of a key. That it says
// nothing is no fault.
func (a *Agent) addFacts(ctx context.Context, name string, keys []control.Key) {
	e, err := a.keys.Entry(ctx, name)
	if err != nil {
		return
	}
	say := func(answer kek.Answer) string {
		if answer == kek.Unsaid {
			return ""
		}
		return answer.String()
	}
	for _, k := range e.Versions {
		i := slices.IndexFunc(keys, func(c control.Key) bool { return c.Fingerprint == k.Ref().Fingerprint.String() })
		inspector, ok := k.(kek.Inspector)
		if i < 0 || !ok {
			continue
		}
		if f, err := inspector.Inspect(ctx); err == nil {
			keys[i].Facts = control.KeyFacts{Hardware: say(f.Hardware), Enabled: say(f.Enabled), MayUnwrap: say(f.MayUnwrap), SoftDelete: say(f.SoftDelete),
				PurgeProtection: say(f.PurgeProtection), Created: f.Created, Updated: f.Updated, NotBefore: f.NotBefore, Expires: f.Expires}
		}
	}
}

func describe(ref kek.Ref) control.Key {
	return control.Key{Name: ref.Name, URI: ref.URI, Provider: string(ref.Provider), Version: ref.Version, Bits: ref.Bits,
		Algorithm: ref.Algorithm.String(), Fingerprint: ref.Fingerprint.String()}
}

// CreateKey implements control.Keys.
func (a *Agent) CreateKey(ctx context.Context, req control.KeyCreate) (control.Key, error) {
	cfg, ok := a.settings().Keys[req.Name]
	if !ok {
		return control.Key{}, fault.NotFound("key", req.Name, "coffer key list")
	}
	if cfg.Public != "" {
		return control.Key{}, &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("key %s is an escrow key: its private half must not be on this machine", req.Name),
			Next: "make it where it will be kept, and copy its public half here: " + cfg.Public}
	}
	e := audit.Event{Kind: audit.KeyCreated, Key: req.Name, By: control.PeerFrom(ctx).String(), Outcome: "begun"}
	if err := a.record(ctx, e); err != nil {
		return control.Key{}, err
	}
	ref, err := a.Parts.MakeKey(ctx, req.Name, cfg, MakeKeyOptions{Bits: req.Bits, Hybrid: req.Hybrid})
	if errors.Is(err, fs.ErrExist) {
		return control.Key{}, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("create key %s: %v", req.Name, err),
			Next: "use the key that is there: coffer key list; or give this one another place in the config"}
	}
	if err != nil {
		return control.Key{}, a.keyFault(req.Name, fmt.Errorf("create key %s: %w", req.Name, err))
	}
	a.Log.Info("key made", "key", ref)
	a.watch.Ask(ctx, []string{req.Name})
	e.Outcome, e.Fingerprint = "made", ref.Fingerprint.String()
	return describe(ref), a.record(ctx, e)
}

// CheckKey implements control.Keys.
func (a *Agent) CheckKey(ctx context.Context, req control.KeyCheckRequest) (control.KeyReport, error) {
	cfg, ok := a.settings().Keys[req.Key]
	if !ok {
		return control.KeyReport{}, fault.NotFound("key", req.Key, "coffer key list")
	}
	out := control.KeyReport{Key: req.Key, URI: cfg.URI, Passed: true}
	if cfg.Public != "" {
		out.URI = cfg.Public
	}
	for _, s := range a.Parts.CheckKey(ctx, req.Key, cfg) {
		if s.Missing && a.mayBeMade(req.Key) {
			s.Next = strings.TrimPrefix(s.Next+"; or, "+fault.MakeNext(req.Key), "; or, ")
		}
		out.Steps = append(out.Steps, control.KeyStep{Stage: string(s.Stage), Verdict: string(s.Verdict), Says: s.Says, Next: s.Next})
		out.Passed = out.Passed && s.Verdict != kek.Failed
	}
	e := audit.Event{Kind: audit.KeyChecked, Key: req.Key, By: control.PeerFrom(ctx).String(), Outcome: "passed"}
	if !out.Passed {
		e.Outcome = "failed"
	}
	if err := a.record(ctx, e); err != nil {
		return control.KeyReport{}, err
	}
	a.watch.Ask(ctx, []string{req.Key}) // what it answers now counts for the vaults
	if out.Passed {
		for _, f := range a.rules.Key(ctx, req.Key) {
			out.Rules = append(out.Rules, control.RuleView{Rule: f.Rule, Effect: string(f.Effect), Subject: f.Subject, Says: f.Says, Next: f.Next})
		}
	}
	return out, ctx.Err()
}

// LinkKey implements control.Custody.
func (a *Agent) LinkKey(ctx context.Context, req control.KeyLink) (control.Vault, error) {
	if _, ok := a.settings().Vaults[req.Vault]; !ok {
		return control.Vault{}, fault.NotFound("vault", req.Vault, "coffer vault list")
	}
	if !req.RestoreOnly && !req.Unlink {
		return control.Vault{}, &control.Error{Code: control.CodeBadRequest, Message: "only a key that opens, and wraps nothing new, can be linked",
			Next: "say --restore-only; or add the key to the config, under keys and vaults." + req.Vault + ".keys"}
	}
	if err := a.link(ctx, req); err != nil {
		return control.Vault{}, err
	}
	a.watch.Ask(ctx, a.vaults.Uses(req.Vault).Open) // what it opens counts for the vault
	return a.Vault(ctx, req.Vault)
}

// link links a key to a vault, or unlinks it.
func (a *Agent) link(ctx context.Context, req control.KeyLink) error {
	if err := a.vaults.Opening(req.Vault).Enter(ctx); err != nil {
		return err
	}
	defer a.vaults.Opening(req.Vault).Leave()
	links := a.state.Links(req.Vault)
	i := slices.Index(links, req.URI)
	kind := audit.KeyLinked
	switch {
	case req.Unlink && i < 0:
		return &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("no key %s is linked to vault %s", req.URI, req.Vault), Next: "see its keys: coffer vault show " + req.Vault}
	case req.Unlink:
		links, kind = slices.Delete(links, i, i+1), audit.KeyUnlinked
	case i >= 0:
		return nil
	default:
		name := a.keys.Link(a.settings().Linked(req.URI))
		if _, err := a.keys.Refresh(ctx, name); err != nil { // one that does not answer is of no use
			return fault.Of(fmt.Errorf("link %s: %w", req.URI, err))
		}
		links = append(links, req.URI)
	}
	by := control.PeerFrom(ctx).String()
	if err := a.record(ctx, audit.Event{Kind: kind, Vault: req.Vault, By: by, Fields: map[string]string{"uri": req.URI}}); err != nil {
		return err
	}
	if err := a.state.SetLinks(req.Vault, links); err != nil {
		return fmt.Errorf("remember the link: %w", err)
	}
	if v := a.vaults.Opened(req.Vault); v != nil {
		a.vaults.Rering(ctx, v)
	}
	return nil
}

// Revalidate implements control.Custody.
func (a *Agent) Revalidate(ctx context.Context, req control.KeyRevalidate) (control.Vault, error) {
	if _, ok := a.settings().Vaults[req.Vault]; !ok {
		return control.Vault{}, fault.NotFound("vault", req.Vault, "coffer vault list")
	}
	if err := a.watch.Revalidate(ctx, req.Vault); err != nil {
		return control.Vault{}, err
	}
	return a.Vault(ctx, req.Vault)
}
