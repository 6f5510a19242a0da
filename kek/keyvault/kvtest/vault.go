package kvtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Recovery is what may become of a deleted key (DeletionRecoveryLevel).
type Recovery string

// The recovery levels. Purge protection is on where the word Purgeable is missing.
const (
	Purgeable               Recovery = "Purgeable" // no soft delete: deleted is gone
	RecoverablePurgeable    Recovery = "Recoverable+Purgeable"
	Recoverable             Recovery = "Recoverable"
	RecoverableSubscription Recovery = "Recoverable+ProtectedSubscription"
	CustomizedPurgeable     Recovery = "CustomizedRecoverable+Purgeable" // kept for 7 to 89 days
	CustomizedRecoverable   Recovery = "CustomizedRecoverable"
	CustomizedSubscription  Recovery = "CustomizedRecoverable+ProtectedSubscription"
	defaultRecoverableDays           = 90
	shortestRecoverableDays          = 7
)

func (r Recovery) softDelete() bool { return r != Purgeable }

func (r Recovery) purgeProtection() bool { return !strings.Contains(string(r), "Purgeable") }

// days returns how long a deleted key is kept if the operator asks for so many.
func (r Recovery) days(asked int) int {
	switch {
	case !r.softDelete():
		return 0
	case asked > 0:
		return asked
	case strings.HasPrefix(string(r), "Customized"):
		return shortestRecoverableDays
	}
	return defaultRecoverableDays
}

// vault is one vault or Managed HSM. Server.mu guards it and everything in it but
// the key material, which never changes.
type vault struct {
	name     string
	hsm      bool
	recovery Recovery
	days     int
	keys     map[string]*key // by their names in lower case
	deleted  map[string]*key
	firewall bool // nobody is let in
	readOnly bool // failed over
	gone     bool // deleted
}

// key is all versions of one key.
type key struct {
	name       string // as it was first written
	versions   []*version
	tags       map[string]string // of the newest version
	policy     json.RawMessage   // of rotation
	deleted    time.Time
	purge      time.Time // when the vault forgets it
	recovering bool
}

// version is one version of a key.
type version struct {
	id        string
	material  crypto.Signer // *rsa.PrivateKey or *ecdsa.PrivateKey
	hardware  bool
	ops       []string
	enabled   bool
	notBefore time.Time
	expires   time.Time
	created   time.Time
	updated   time.Time
}

func (k *key) latest() *version { return k.versions[len(k.versions)-1] }

// version finds a version by its id, the newest if that is "".
func (k *key) version(id string) *version {
	if id == "" {
		return k.latest()
	}
	for _, v := range k.versions {
		if v.id == strings.ToLower(id) {
			return v
		}
	}
	return nil
}

// listed returns the versions in the order of a list: one that has nothing to do
// with their age, the newest neither first nor, where there are three, last.
func (k *key) listed() []*version {
	out := slices.Clone(k.versions)
	slices.SortFunc(out, func(a, b *version) int { return strings.Compare(a.id, b.id) })
	n := len(out)
	at := slices.Index(out, k.latest())
	switch {
	case n > 1 && at == 0:
		out[0], out[1] = out[1], out[0]
	case n > 2 && at == n-1:
		out[n-1], out[n-2] = out[n-2], out[n-1]
	}
	return out
}

func (v *version) rsa() *rsa.PrivateKey {
	k, _ := v.material.(*rsa.PrivateKey)
	return k
}

// kty is the key type on the wire.
func (v *version) kty() string {
	kty := "RSA"
	if _, ok := v.material.(*ecdsa.PrivateKey); ok {
		kty = "EC"
	}
	if v.hardware {
		kty += "-HSM"
	}
	return kty
}

// allOps are the operations that a key gets if none are asked for.
func allOps(material crypto.Signer) []string {
	if _, ok := material.(*ecdsa.PrivateKey); ok {
		return []string{"sign", "verify"}
	}
	return []string{"encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"}
}

// newVersionID is 32 hexadecimal digits.
func newVersionID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id)
}

// CheckName refuses a name that the service does not take for a key.
func CheckName(name string) error {
	bad := func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-'
	}
	if name == "" || len(name) > 127 || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("name %q: use 1 to 127 letters, digits and hyphens", name)
	}
	return nil
}

// change is something that shows from a moment on.
type change struct {
	at    time.Time
	apply func()
}

// later makes a change after the time of propagation. s.mu is held.
func (s *Server) later(apply func()) {
	if s.opts.Propagation == 0 {
		apply()
		return
	}
	s.pending = append(s.pending, change{at: s.opts.Clock().Add(s.opts.Propagation), apply: apply})
}

// settle makes the changes whose time has come, in the order in which they were
// asked for, and forgets deleted keys whose time is over. s.mu is held.
func (s *Server) settle() {
	now := s.opts.Clock()
	for len(s.pending) > 0 && !s.pending[0].at.After(now) {
		s.pending[0].apply()
		s.pending = s.pending[1:]
	}
	for _, v := range s.vaults {
		maps.DeleteFunc(v.deleted, func(_ string, k *key) bool { return !k.purge.After(now) })
	}
}

// vault finds a vault. s.mu is held.
func (s *Server) vault(name string) (*vault, error) {
	s.settle()
	if v := s.vaults[strings.ToLower(name)]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("there is no vault %q: there are %q", name, slices.Sorted(maps.Keys(s.vaults)))
}

// key finds a live key and one of its versions. s.mu is held.
func (s *Server) key(vaultName, name, id string) (*vault, *key, *version, error) {
	v, err := s.vault(vaultName)
	if err != nil {
		return nil, nil, nil, err
	}
	k := v.keys[strings.ToLower(name)]
	if k == nil {
		return nil, nil, nil, fmt.Errorf("there is no key %q in vault %s: there are %q", name, v.name, slices.Sorted(maps.Keys(v.keys)))
	}
	found := k.version(id)
	if found == nil {
		return nil, nil, nil, fmt.Errorf("key %s in vault %s has no version %q", k.name, v.name, id)
	}
	return v, k, found, nil
}
