package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/cofferbackup/coffer/agent"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/escrow"
	"github.com/cofferbackup/coffer/kek/keyvault"
	"github.com/cofferbackup/coffer/kek/software"
)

// The schemes of key URIs.
const (
	inFile     = "file"
	inToken    = "pkcs11"
	inKeyVault = "https"
)

func scheme(uri string) string {
	s, _, _ := strings.Cut(uri, ":")
	return s
}

func (w *wiring) openKey(ctx context.Context, name string, key config.Key) ([]kek.Key, error) {
	switch scheme(key.URI) {
	case inFile:
		k, err := software.Open(ctx, name, key.URI)
		if err != nil {
			return nil, err
		}
		return []kek.Key{k}, nil
	case inToken:
		return w.tokens.Versions(ctx, name, key.URI)
	case inKeyVault:
		return keyvault.Open(ctx, w.keyVault(name, key))
	}
	return nil, errKeyURI(key.URI)
}

func (w *wiring) openEscrow(ctx context.Context, name string, key config.Key) (kek.Wrapper, error) {
	return escrow.Open(ctx, name, key.Public)
}

func (w *wiring) makeKey(ctx context.Context, name string, key config.Key, opts agent.MakeKeyOptions) (kek.Ref, error) {
	if opts.Hybrid && scheme(key.URI) != inFile {
		return kek.Ref{}, fmt.Errorf("%w: only a key in a file can have a post-quantum half: HSMs and Key Vault have none yet", kek.ErrUnsuitable)
	}
	switch scheme(key.URI) {
	case inFile:
		if err := software.Create(ctx, key.URI, software.CreateOptions{Bits: opts.Bits, Hybrid: opts.Hybrid}); err != nil {
			return kek.Ref{}, err
		}
		k, err := software.Open(ctx, name, key.URI)
		if err != nil {
			return kek.Ref{}, err
		}
		defer k.Close()
		return k.Ref(), nil
	case inToken:
		ref, err := w.tokens.Create(ctx, key.URI, opts.Bits)
		ref.Name = name
		return ref, err
	case inKeyVault:
		return keyvault.Create(ctx, w.keyVault(name, key), opts.Bits)
	}
	return kek.Ref{}, errKeyURI(key.URI)
}

func (w *wiring) checkKey(ctx context.Context, name string, key config.Key) []kek.Step {
	if key.Public != "" {
		return escrow.Check(ctx, key.Public)
	}
	switch scheme(key.URI) {
	case inFile:
		return software.Check(ctx, key.URI)
	case inToken:
		return w.tokens.Check(ctx, key.URI)
	case inKeyVault:
		return keyvault.Check(ctx, w.keyVault(name, key))
	}
	return kek.Fill([]kek.Step{{Stage: kek.StageIdentity, Verdict: kek.Failed, Says: errKeyURI(key.URI).Error(), Next: "correct the key's uri in the config"}})
}

func (w *wiring) keyVault(name string, key config.Key) keyvault.Config {
	cfg := keyvault.Config{Name: name, URI: key.URI, Log: w.log, Now: w.clock, Pool: w.clouds}
	if c := key.Credential; c != nil {
		cfg.Credential = keyvault.Credential{Kind: keyvault.Kind(c.Kind), Tenant: c.Tenant, Client: c.Client, Certificate: c.Certificate,
			SecretSource: c.SecretSource, TokenFile: c.TokenFile, Authority: c.Authority, CA: c.CA, Proxy: c.Proxy}
	}
	return cfg
}

func errKeyURI(uri string) error {
	return fmt.Errorf("%w: key uri of scheme %q is not known: use a file:, pkcs11: or https: key", kek.ErrUnsuitable, scheme(uri))
}
