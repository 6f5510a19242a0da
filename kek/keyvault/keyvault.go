// Package keyvault uses KEKs in Azure Key Vault and Managed HSM.
//
//	https://corp.vault.azure.net/keys/backup                                   follows new versions
//	https://corp.vault.azure.net/keys/backup/78deebed173b48e48f55abf87ed4cf71  stays with this one
//	https://corp.managedhsm.azure.net/keys/backup
//
// Wrapping never calls out: it uses the public key that was read when the key was
// opened. So what the service would refuse to wrap with, a disabled key or one
// outside its dates, is refused here. Unwrapping is one call, always with the exact
// version, and works with an expired version too: old backups restore.
//
// Invariants:
//   - An answer counts only if it names the vault, the key and the version that were
//     asked for. The public key of a version never changes.
//   - Denied, missing and unreachable are told apart by the service's own answer. A
//     network, a proxy or a host name that fails says nothing about the key.
//   - No token, secret or assertion is in an error or a log: what the service and
//     the token endpoint send back is quoted by its codes, and its prose only where
//     it came from the vault.
//
// A Pool is what keys share: tokens per credential, connections, the limit on calls
// per vault, and what is known of each version.
package keyvault

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/kek"
)

// Config says which key, and how to get to it.
type Config struct {
	Name       string // the key's name in the config
	URI        string
	Credential Credential
	// Log gets what an operator must know of keys. Nil: nothing is logged.
	Log *slog.Logger
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Wait waits until so much time has passed or ctx is done, whose error it then
	// returns. Nil: a timer.
	Wait func(ctx context.Context, d time.Duration) error
	// Transport carries every request, and Credential.CA and Proxy mean nothing then.
	// Nil: its own. The first Config with a Credential decides for its Pool.
	Transport http.RoundTripper
	// Pool is what the key shares with others. Nil: nothing.
	Pool *Pool
}

// Pool is what keys share. It is safe for concurrent use.
type Pool struct {
	mu         sync.Mutex
	identities map[identityKey]*identity
	vaults     map[vaultKey]*vault
	sites      map[string]*site
}

// NewPool returns an empty pool.
func NewPool() *Pool {
	return &Pool{
		identities: make(map[identityKey]*identity),
		vaults:     make(map[vaultKey]*vault),
		sites:      make(map[string]*site),
	}
}

// Close lets go of idle connections and forgets every token. Keys of the pool go on
// working, and ask anew.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range p.identities {
		id.forgetAll()
		id.closeIdle()
	}
	return nil
}

type identityKey struct {
	credential Credential
	authority  string
}

type vaultKey struct {
	identityKey
	host string
}

// site is a vault whoever asks it: its limits count for all together, and a version
// has one public key.
type site struct {
	limiter *limiter

	mu    sync.Mutex
	known map[string]kek.Fingerprint // by name/version, lower case
}

// pin returns an error if that version was seen with another public key.
func (s *site) pin(a address, f kek.Fingerprint) error {
	id := a.name + "/" + a.version
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, ok := s.known[id]; ok && before != f {
		return fmt.Errorf("%w: %s has the public key %v now and had %v: a version never changes: find out who answers for %s before you trust it",
			kek.ErrUnsuitable, a.versioned(), f, before, a.host)
	}
	s.known[id] = f
	return nil
}

// connect checks cfg and returns the vault and the key that it names.
func (cfg Config) connect() (*vault, address, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wait == nil {
		cfg.Wait = wait
	}
	if err := cfg.Credential.check(); err != nil {
		return nil, address{}, fmt.Errorf("%w: credential of key %s: %w", kek.ErrUnsuitable, cfg.Name, err)
	}
	a, err := parseURI(cfg.URI, cfg.Credential.Authority)
	if err != nil {
		return nil, address{}, fmt.Errorf("%w: %w", kek.ErrUnsuitable, err)
	}
	own := cfg.Pool == nil
	if own {
		cfg.Pool = NewPool()
	}
	v, err := cfg.Pool.vault(cfg, a)
	if err != nil {
		return nil, address{}, fmt.Errorf("%w: credential of key %s: %w", kek.ErrUnsuitable, cfg.Name, err)
	}
	if own {
		v.own = cfg.Pool
	}
	return v, a, nil
}

func (p *Pool) vault(cfg Config, a address) (*vault, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ik := identityKey{cfg.Credential, a.authority}
	vk := vaultKey{ik, a.host}
	if v := p.vaults[vk]; v != nil {
		return v, nil
	}
	id := p.identities[ik]
	if id == nil {
		var err error
		if id, err = newIdentity(cfg, a.authority); err != nil {
			return nil, err
		}
		p.identities[ik] = id
	}
	s := p.sites[a.host]
	if s == nil {
		s = &site{limiter: newLimiter(cfg.Now, a.hsm), known: make(map[string]kek.Fingerprint)}
		p.sites[a.host] = s
	}
	v, err := newVault(cfg, a, id, s)
	if err != nil {
		return nil, err
	}
	p.vaults[vk] = v
	return v, nil
}

// wait is the Wait of a Config that has none.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
