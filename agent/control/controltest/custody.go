package controltest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cofferbackup/coffer/agent/control"
)

// CheckKey implements control.Keys.
func (b *Backend) CheckKey(_ context.Context, req control.KeyCheckRequest) (control.KeyReport, error) {
	if r, ok := b.Reports[req.Key]; ok {
		return r, nil
	}
	for _, k := range b.KeyList {
		if k.Name == req.Key {
			r := control.KeyReport{Key: k.Name, URI: k.URI, Passed: true}
			for _, stage := range []string{"identity", "permissions", "protection", "key", "self-test"} {
				r.Steps = append(r.Steps, control.KeyStep{Stage: stage, Verdict: control.VerdictPassed, Says: "as it should be"})
			}
			return r, nil
		}
	}
	return control.KeyReport{}, notFound("key", req.Key, "key list")
}

// KeyUsage implements control.Keys.
func (b *Backend) KeyUsage(_ context.Context, req control.KeyUsageRequest) (control.KeyUsage, error) {
	u, ok := b.Usages[req.Key]
	if !ok {
		return control.KeyUsage{}, notFound("key", req.Key, "key list")
	}
	if req.Version == "" {
		return u, nil
	}
	var found []control.VersionUsage
	for _, v := range u.Versions {
		if v.Version == req.Version || strings.HasPrefix(v.Fingerprint, req.Version) {
			found = append(found, v)
		}
	}
	if found == nil {
		return control.KeyUsage{}, notFound("version", req.Version, "key usage "+req.Key)
	}
	u.Versions = found
	return u, nil
}

// LinkKey implements control.Custody. It returns the vault as it would be, and
// leaves VaultList as it is.
func (b *Backend) LinkKey(ctx context.Context, req control.KeyLink) (control.Vault, error) {
	v, err := b.Vault(ctx, req.Vault)
	if err != nil {
		return control.Vault{}, err
	}
	linked := func(k control.Key) bool { return k.URI == req.URI }
	switch there := slices.ContainsFunc(v.Keys, linked); {
	case req.Unlink && !there:
		return control.Vault{}, notFound("key", req.URI, "vault show "+req.Vault)
	case req.Unlink:
		v.Keys = slices.DeleteFunc(slices.Clone(v.Keys), linked)
	case there:
		return control.Vault{}, &control.Error{
			Code: control.CodeConflict, Message: fmt.Sprintf("%s opens vault %s already", req.URI, req.Vault),
			Next: "see its keys: coffer vault show " + req.Vault,
		}
	default:
		v.Keys = append(slices.Clone(v.Keys), control.Key{Name: "linked-1", URI: req.URI, RestoreOnly: true})
	}
	b.note(req)
	return v, nil
}

// RotateKeys implements control.Custody.
func (b *Backend) RotateKeys(ctx context.Context, req control.KeyRotate) (control.Job, error) {
	return b.begin(ctx, req, control.Job{Kind: control.KindRekey, Vault: req.Vault})
}

// Revalidate implements control.Custody: a vault that requires it is accessible
// afterwards, in the answer alone.
func (b *Backend) Revalidate(ctx context.Context, req control.KeyRevalidate) (control.Vault, error) {
	v, err := b.Vault(ctx, req.Vault)
	if err != nil {
		return control.Vault{}, err
	}
	if v.State == control.StateInaccessible {
		return control.Vault{}, &control.Error{
			Code: control.CodeKeysInaccessible, Message: fmt.Sprintf("no key opens vault %s: %s", v.Name, v.Error.Message), Next: v.Error.Next,
		}
	}
	if v.State == control.StateRevalidation {
		v.State, v.Since, v.Checked, v.Error = control.StateAccessible, b.Now, b.Now, nil
	}
	b.note(req)
	return v, nil
}

// DrillKeys implements control.Custody.
func (b *Backend) DrillKeys(ctx context.Context, req control.KeyDrill) (control.Job, error) {
	if req.Item != "" {
		if _, err := b.Item(ctx, req.Item); err != nil {
			return control.Job{}, err
		}
	}
	return b.begin(ctx, req, control.Job{Kind: control.KindDrill, Vault: req.Vault})
}

// RaiseMode implements control.Custody.
func (b *Backend) RaiseMode(ctx context.Context, req control.VaultMode) (control.Job, error) {
	v, err := b.Vault(ctx, req.Vault)
	if err != nil {
		return control.Job{}, err
	}
	if v.Mode == req.Mode {
		return control.Job{}, &control.Error{
			Code: control.CodeConflict, Message: fmt.Sprintf("vault %s is %s already", v.Name, v.Mode), Next: "see it: coffer vault mode " + v.Name,
		}
	}
	return b.begin(ctx, req, control.Job{Kind: control.KindRekey, Vault: req.Vault})
}

// EraseItem implements control.Items.
func (b *Backend) EraseItem(ctx context.Context, req control.ItemErase) (control.ItemErased, error) {
	if _, err := b.Item(ctx, req.Item); err != nil {
		return control.ItemErased{}, err
	}
	erased, ok := b.Erasures[req.Item]
	if !ok {
		return control.ItemErased{}, &control.Error{
			Code: control.CodeConflict, Message: fmt.Sprintf("item %s is held", req.Item), Next: "release its points first",
		}
	}
	b.note(req)
	return erased, nil
}

// VerifyAudit implements control.System.
func (b *Backend) VerifyAudit(_ context.Context, req control.AuditVerify) (control.AuditReport, error) {
	r := b.Audit
	if req.Head != "" && req.Head != r.Head {
		r.Faults = append(slices.Clone(r.Faults), fmt.Sprintf("head %s is not in the chain: lines were removed", req.Head))
	}
	return r, nil
}
