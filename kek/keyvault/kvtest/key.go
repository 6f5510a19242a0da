package kvtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// KeyOptions say what a new version of a key is like. The zero value is a software
// RSA key of 2048 bits that may be used for everything.
type KeyOptions struct {
	Bits int // default 2048; the service takes 2048, 3072 and 4096, this server any
	// EC makes a key on P-256 instead.
	EC bool
	// Material is the key itself, *rsa.PrivateKey or *ecdsa.PrivateKey, instead of a
	// new one.
	Material  crypto.Signer
	Hardware  bool // always so in a Managed HSM
	Disabled  bool
	NotBefore time.Time
	Expires   time.Time
	Ops       []string // key_ops; default: all that its type can do
	Tags      map[string]string
}

// Update is a change of one version of a key. A field that is nil stays as it is.
type Update struct {
	Enabled   *bool
	NotBefore *time.Time // zero: none
	Expires   *time.Time // zero: none
	Ops       []string   // nil: as it is
	Tags      map[string]string
}

// must ends the test, or panics where there is none.
func (s *Server) must(err error) {
	if err == nil {
		return
	}
	if s.t == nil {
		panic("kvtest: " + err.Error())
	}
	s.t.Helper()
	s.t.Fatalf("kvtest: %v", err)
}

// changed tells the owner that the state has changed. s.mu is not held.
func (s *Server) changed() {
	if s.opts.Changed != nil {
		s.opts.Changed()
	}
}

// CreateKey makes a key, or a new version of it if it is there, and returns the id
// of the version. It shows at once.
func (s *Server) CreateKey(vault, name string, o KeyOptions) string {
	v, err := s.createKey(vault, name, o)
	s.must(err)
	return v.id
}

func (s *Server) createKey(vaultName, name string, o KeyOptions) (*version, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	material, err := s.material(o)
	if err != nil {
		return nil, err
	}
	defer s.changed()
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.vault(vaultName)
	if err != nil {
		return nil, err
	}
	if gone := v.deleted[strings.ToLower(name)]; gone != nil {
		return nil, v.inTheWay(gone)
	}
	return v.add(name, material, o, s.opts.Clock()), nil
}

// material returns the key that o asks for. s.mu is not held: it may take long.
func (s *Server) material(o KeyOptions) (crypto.Signer, error) {
	switch m := o.Material.(type) {
	case nil:
	case *rsa.PrivateKey, *ecdsa.PrivateKey:
		return m, nil
	default:
		return nil, fmt.Errorf("key material is %T: give an *rsa.PrivateKey or *ecdsa.PrivateKey", m)
	}
	if o.EC {
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if o.Bits == 0 {
		o.Bits = 2048
	}
	return s.opts.Keys.RSA(o.Bits)
}

// add makes a new version the newest. Server.mu is held.
func (v *vault) add(name string, material crypto.Signer, o KeyOptions, now time.Time) *version {
	k := v.keys[strings.ToLower(name)]
	if k == nil {
		k = &key{name: name}
		v.keys[strings.ToLower(name)] = k
	}
	ops := o.Ops
	if ops == nil {
		ops = allOps(material)
	}
	added := &version{
		id: newVersionID(), material: material, hardware: o.Hardware || v.hsm, ops: slices.Clone(ops),
		enabled: !o.Disabled, notBefore: o.NotBefore, expires: o.Expires, created: now, updated: now,
	}
	k.versions = append(k.versions, added)
	k.tags = o.Tags
	return added
}

// Rotate makes a new version like the newest one, enabled and without dates, and
// returns its id. It shows at once.
func (s *Server) Rotate(vault, name string) string {
	v, err := s.rotate(vault, name)
	s.must(err)
	return v.id
}

func (s *Server) rotate(vaultName, name string) (*version, error) {
	s.mu.Lock()
	_, k, old, err := s.key(vaultName, name, "")
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	o := KeyOptions{Hardware: old.hardware, Ops: old.ops, Tags: k.tags}
	if private := old.rsa(); private != nil {
		o.Bits = private.N.BitLen()
	} else {
		o.EC = true
	}
	s.mu.Unlock()
	return s.createKey(vaultName, name, o)
}

// Disable disables one version of a key, or all of them if version is "".
func (s *Server) Disable(vault, name, version string) {
	enabled := false
	s.must(s.update(vault, name, version, Update{Enabled: &enabled}))
}

// Enable enables one version of a key, or all of them if version is "".
func (s *Server) Enable(vault, name, version string) {
	enabled := true
	s.must(s.update(vault, name, version, Update{Enabled: &enabled}))
}

// Update changes one version of a key, or all of them if version is "".
func (s *Server) Update(vault, name, version string, u Update) {
	s.must(s.update(vault, name, version, u))
}

func (s *Server) update(vaultName, name, id string, u Update) error {
	defer s.changed()
	s.mu.Lock()
	defer s.mu.Unlock()
	_, k, one, err := s.key(vaultName, name, id)
	if err != nil {
		return err
	}
	chosen := []*version{one}
	if id == "" {
		chosen = slices.Clone(k.versions)
	}
	now := s.opts.Clock()
	s.later(func() {
		for _, v := range chosen {
			v.change(u, now)
		}
		if u.Tags != nil {
			k.tags = u.Tags
		}
	})
	return nil
}

// change makes the change, asked for at now.
func (v *version) change(u Update, now time.Time) {
	if u.Enabled != nil {
		v.enabled = *u.Enabled
	}
	if u.NotBefore != nil {
		v.notBefore = *u.NotBefore
	}
	if u.Expires != nil {
		v.expires = *u.Expires
	}
	if u.Ops != nil {
		v.ops = slices.Clone(u.Ops)
	}
	v.updated = now
}

// Delete deletes a key with all its versions. It can be recovered if its vault has
// soft delete.
func (s *Server) Delete(vault, name string) { s.must(s.delete(vault, name)) }

func (s *Server) delete(vaultName, name string) error {
	defer s.changed()
	s.mu.Lock()
	defer s.mu.Unlock()
	v, k, _, err := s.key(vaultName, name, "")
	if err != nil {
		return err
	}
	s.remove(v, k)
	return nil
}

// remove deletes a key after the time of propagation. s.mu is held.
func (s *Server) remove(v *vault, k *key) {
	now := s.opts.Clock()
	s.later(func() {
		name := strings.ToLower(k.name)
		if v.keys[name] != k {
			return
		}
		delete(v.keys, name)
		if v.recovery.softDelete() {
			k.deleted, k.purge, k.recovering = now, now.AddDate(0, 0, v.days), false
			v.deleted[name] = k
		}
	})
}

// Recover brings a deleted key back.
func (s *Server) Recover(vault, name string) { s.must(s.recover(vault, name)) }

func (s *Server) recover(vaultName, name string) error {
	defer s.changed()
	s.mu.Lock()
	defer s.mu.Unlock()
	v, k, err := s.deletedKey(vaultName, name)
	if err != nil {
		return err
	}
	s.bringBack(v, k)
	return nil
}

// bringBack recovers a key after the time of propagation. s.mu is held.
func (s *Server) bringBack(v *vault, k *key) {
	k.recovering = true
	s.later(func() {
		name := strings.ToLower(k.name)
		if v.deleted[name] == k {
			delete(v.deleted, name)
			v.keys[name] = k
		}
		k.recovering, k.deleted, k.purge = false, time.Time{}, time.Time{}
	})
}

// purge destroys a deleted key at once, if purge protection is off.
func (s *Server) purge(vaultName, name string) error {
	defer s.changed()
	s.mu.Lock()
	defer s.mu.Unlock()
	v, k, err := s.deletedKey(vaultName, name)
	if err != nil {
		return err
	}
	if v.recovery.purgeProtection() {
		return fmt.Errorf("purge key %s: vault %s has purge protection", k.name, v.name)
	}
	delete(v.deleted, strings.ToLower(name))
	return nil
}

// deletedKey finds a deleted key. s.mu is held.
func (s *Server) deletedKey(vaultName, name string) (*vault, *key, error) {
	v, err := s.vault(vaultName)
	if err != nil {
		return nil, nil, err
	}
	k := v.deleted[strings.ToLower(name)]
	if k == nil {
		return nil, nil, fmt.Errorf("there is no deleted key %q in vault %s", name, v.name)
	}
	return v, k, nil
}

// Versions returns the ids of all versions of a key, the oldest first, and nil if
// there is no such key or it is deleted.
func (s *Server) Versions(vault, name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, k, _, err := s.key(vault, name, "")
	if err != nil {
		return nil
	}
	ids := make([]string, 0, len(k.versions))
	for _, v := range k.versions {
		ids = append(ids, v.id)
	}
	return ids
}

// Material returns the key itself: that of a version, the newest if version is "".
func (s *Server) Material(vault, name, version string) crypto.Signer {
	s.mu.Lock()
	_, _, v, err := s.key(vault, name, version)
	s.mu.Unlock()
	s.must(err)
	return v.material
}

// SetRecovery changes the recovery level of a vault at once, also for the keys that
// are in it. days is as in Options.RecoverableDays.
func (s *Server) SetRecovery(vault string, level Recovery, days int) {
	s.mu.Lock()
	v, err := s.vault(vault)
	if err == nil {
		v.recovery, v.days = level, level.days(days)
	}
	s.mu.Unlock()
	s.must(err)
	s.changed()
}

// Command does one of rotate, disable, enable, delete, recover, purge, deny and
// allow to a key. It is the methods of these names for a person at a prompt: what
// is wrong with the request is an error.
func (s *Server) Command(verb, vault, name string) error {
	switch verb {
	case "rotate":
		_, err := s.rotate(vault, name)
		return err
	case "disable", "enable":
		enabled := verb == "enable"
		return s.update(vault, name, "", Update{Enabled: &enabled})
	case "delete":
		return s.delete(vault, name)
	case "recover":
		return s.recover(vault, name)
	case "purge":
		return s.purge(vault, name)
	case "deny", "allow":
		s.mu.Lock()
		_, _, _, live := s.key(vault, name, "")
		_, _, gone := s.deletedKey(vault, name)
		s.mu.Unlock()
		if live != nil && gone != nil {
			return live
		}
		if verb == "deny" {
			s.Deny(Scope{Vault: vault, Key: name})
		} else {
			s.Allow(Scope{Vault: vault, Key: name})
		}
		return nil
	}
	return errors.New("unknown verb " + verb + ": there are rotate, disable, enable, delete, recover, purge, deny and allow")
}
