package kvtest

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// saved is what State writes: everything but the log, the faults and the changes
// that do not show yet.
type saved struct {
	Tenant      string             `json:"tenant"`
	TokenKey    []byte             `json:"token_key"`
	Certificate certificate        `json:"certificate"`
	Clients     map[string]*client `json:"clients"`
	Denied      []savedGrant       `json:"denied,omitempty"`
	Vaults      []savedVault       `json:"vaults"`
}

type savedGrant struct {
	Scope Scope `json:"scope"`
	Op    Op    `json:"op,omitempty"`
}

type savedVault struct {
	Name     string     `json:"name"`
	Recovery Recovery   `json:"recovery"`
	Days     int        `json:"days"`
	Firewall bool       `json:"firewall,omitempty"`
	ReadOnly bool       `json:"read_only,omitempty"`
	Gone     bool       `json:"gone,omitempty"`
	Keys     []savedKey `json:"keys"`
	Deleted  []savedKey `json:"deleted"`
}

type savedKey struct {
	Name     string            `json:"name"`
	Tags     map[string]string `json:"tags,omitempty"`
	Policy   json.RawMessage   `json:"policy,omitempty"`
	Deleted  time.Time         `json:"deleted,omitzero"`
	Purge    time.Time         `json:"purge,omitzero"`
	Versions []savedVersion    `json:"versions"`
}

type savedVersion struct {
	ID        string    `json:"id"`
	Material  []byte    `json:"material"` // PKCS #8
	Hardware  bool      `json:"hardware,omitempty"`
	Ops       []string  `json:"ops"`
	Enabled   bool      `json:"enabled"`
	NotBefore time.Time `json:"not_before,omitzero"`
	Expires   time.Time `json:"expires,omitzero"`
	Created   time.Time `json:"created"`
	Updated   time.Time `json:"updated"`
}

// State returns what Options.State takes: tenant, certificate, clients and all keys
// with their private halves.
func (s *Server) State() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	out := saved{Tenant: s.tenant, TokenKey: s.tokenKey, Certificate: s.cert, Clients: s.clients}
	for g := range s.denied {
		out.Denied = append(out.Denied, savedGrant{g.Scope, g.op})
	}
	for _, name := range slices.Sorted(maps.Keys(s.vaults)) {
		v := s.vaults[name]
		to := savedVault{Name: name, Recovery: v.recovery, Days: v.days, Firewall: v.firewall, ReadOnly: v.readOnly, Gone: v.gone}
		var err error
		if to.Keys, err = saveKeys(v.keys); err != nil {
			return nil, err
		}
		if to.Deleted, err = saveKeys(v.deleted); err != nil {
			return nil, err
		}
		out.Vaults = append(out.Vaults, to)
	}
	return json.MarshalIndent(out, "", " ")
}

func saveKeys(keys map[string]*key) ([]savedKey, error) {
	out := make([]savedKey, 0, len(keys))
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		k, err := keys[name].save()
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

func (k *key) save() (savedKey, error) {
	out := savedKey{Name: k.name, Tags: k.tags, Policy: k.policy, Deleted: k.deleted, Purge: k.purge}
	for _, v := range k.versions {
		var der []byte
		var err error
		fips140.WithoutEnforcement(func() { der, err = x509.MarshalPKCS8PrivateKey(v.material) })
		if err != nil {
			return out, fmt.Errorf("encode key %s: %w", k.name, err)
		}
		out.Versions = append(out.Versions, savedVersion{
			ID: v.id, Material: der, Hardware: v.hardware, Ops: v.ops, Enabled: v.enabled,
			NotBefore: v.notBefore, Expires: v.expires, Created: v.created, Updated: v.updated,
		})
	}
	return out, nil
}

func (k savedKey) load() (*key, error) {
	out := &key{name: k.Name, tags: k.Tags, policy: k.Policy, deleted: k.Deleted, purge: k.Purge}
	if CheckName(k.Name) != nil || len(k.Versions) == 0 {
		return nil, fmt.Errorf("key %q is not whole", k.Name)
	}
	for _, v := range k.Versions {
		var parsed any
		var err error
		fips140.WithoutEnforcement(func() { parsed, err = x509.ParsePKCS8PrivateKey(v.Material) })
		if err != nil {
			return nil, fmt.Errorf("read key %s: %w", k.Name, err)
		}
		material, ok := parsed.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("read key %s: it is %T", k.Name, parsed)
		}
		out.versions = append(out.versions, &version{
			id: v.ID, material: material, hardware: v.Hardware, ops: v.Ops, enabled: v.Enabled,
			notBefore: v.NotBefore, expires: v.Expires, created: v.Created, updated: v.Updated,
		})
	}
	return out, nil
}

// restore begins with a saved state, or with a new one if there is none. Vaults that
// the options name and the state lacks are made.
func (s *Server) restore(state []byte) error {
	in := saved{Tenant: s.opts.Tenant}
	if state != nil {
		if err := json.Unmarshal(state, &in); err != nil {
			return err
		}
	}
	if in.Tenant == "" {
		in.Tenant = newUUID()
	}
	if len(in.TokenKey) == 0 {
		in.TokenKey = make([]byte, 32)
		_, _ = rand.Read(in.TokenKey) // never fails
	}
	s.tenant, s.tokenKey, s.cert = in.Tenant, in.TokenKey, in.Certificate
	maps.Copy(s.clients, in.Clients)
	for _, g := range in.Denied {
		s.denied[grant{g.Scope, g.Op}] = true
	}
	for _, name := range s.opts.Vaults {
		s.vaults[name] = &vault{
			name: name, hsm: s.opts.ManagedHSM, recovery: s.opts.Recovery, days: s.opts.Recovery.days(s.opts.RecoverableDays),
			keys: make(map[string]*key), deleted: make(map[string]*key),
		}
	}
	for _, from := range in.Vaults {
		v := &vault{
			name: from.Name, hsm: s.opts.ManagedHSM, recovery: from.Recovery, days: from.Days,
			firewall: from.Firewall, readOnly: from.ReadOnly, gone: from.Gone,
		}
		var err error
		if v.keys, err = loadKeys(from.Keys); err != nil {
			return err
		}
		if v.deleted, err = loadKeys(from.Deleted); err != nil {
			return err
		}
		s.vaults[from.Name] = v
	}
	return nil
}

func loadKeys(keys []savedKey) (map[string]*key, error) {
	out := make(map[string]*key, len(keys))
	for _, from := range keys {
		k, err := from.load()
		if err != nil {
			return nil, err
		}
		out[strings.ToLower(k.name)] = k
	}
	return out, nil
}

// seal encrypts a backup of a key for this server alone. s.mu is held.
func (s *Server) seal(text []byte) ([]byte, error) {
	aead, err := s.backupCipher()
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, text, nil), nil
}

func (s *Server) unseal(sealed []byte) ([]byte, error) {
	aead, err := s.backupCipher()
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, sealed, nil)
}

func (s *Server) backupCipher() (cipher.AEAD, error) {
	block, err := aes.NewCipher(s.mac("backup"))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
