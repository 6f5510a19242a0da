package keyvault

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/cofferbackup/coffer/kek"
)

// key is one version of a key in a vault.
type key struct {
	vault *vault
	at    address
	ref   kek.Ref
	cost  cost
	// canary is a random secret that was wrapped when the key was opened. That it
	// still opens tells a key that works from one that is there.
	canary  []byte
	wrapped []byte

	mu     sync.Mutex
	is     version // as last seen
	closed bool
}

func newKey(v *vault, name string, is version) (*key, error) {
	fingerprint, err := kek.FingerprintOf(is.pub)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", kek.ErrUnsuitable, is.at.versioned(), err)
	}
	k := &key{vault: v, at: is.at, is: is, canary: make([]byte, 32)}
	k.ref = kek.Ref{
		Name: name, Provider: kek.KeyVault, URI: is.at.String(), Version: is.at.version,
		Bits: is.pub.N.BitLen(), Algorithm: kek.OAEPSHA256, Fingerprint: fingerprint,
	}
	k.cost = cost{bits: k.ref.Bits, hardware: is.kty == ktyRSAHSM}
	if _, err := rand.Read(k.canary); err != nil {
		return nil, fmt.Errorf("%w: make a canary: %w", kek.ErrUnreachable, err)
	}
	if k.wrapped, err = kek.WrapRSA(is.pub, k.ref.Algorithm, k.canary); err != nil {
		return nil, fmt.Errorf("%s: %w", is.at.versioned(), err)
	}
	return k, nil
}

func (k *key) Ref() kek.Ref { return k.ref }

// Wrap encrypts secret here. A version that its owner has disabled, or that is
// outside its dates, or that may not wrap by its operations, is kek.ErrUnsuitable:
// the service is not asked and would refuse. What is known of that is as old as
// Open or the last Inspect.
func (k *key) Wrap(secret []byte) (kek.Wrapped, error) {
	is := k.known()
	if err := k.mayWrap(is); err != nil {
		return kek.Wrapped{}, err
	}
	return kek.WrapFor(k.ref, kek.Hybrid{RSA: is.pub}, secret)
}

func (k *key) mayWrap(is version) error {
	if is.facts.Enabled == kek.No {
		return fmt.Errorf("%w: wrap with %s: it is disabled: enable it, or make a new version of the key", kek.ErrUnsuitable, k.at.versioned())
	}
	if why := outside(is.facts, k.vault.now()); why != "" {
		next := "make a new version of the key, or move its dates (" + k.at.azVersion("set-attributes") + ")"
		if off := k.vault.id.clockOff(); off != "" {
			next = off + ": set it (NTP); or " + next
		}
		return fmt.Errorf("%w: wrap with %s: it %s, and it is %s now: %s", kek.ErrUnsuitable, k.at.versioned(), why, k.vault.now().UTC().Format(time.RFC3339), next)
	}
	if !is.mayWrap() {
		return fmt.Errorf("%w: wrap with %s: its operations leave out wrapKey: add it (%s --ops wrapKey unwrapKey)", kek.ErrUnsuitable, k.at.versioned(), k.at.azVersion("set-attributes"))
	}
	return nil
}

func (k *key) Unwrap(ctx context.Context, w kek.Wrapped) ([]byte, error) {
	if err := kek.CheckWrapped(k.ref, w); err != nil {
		return nil, err
	}
	alg, err := algorithm(w.Algorithm)
	if err != nil {
		return nil, err
	}
	secret, err := k.decrypt(ctx, alg, w.Ciphertext)
	if f := (*fault)(nil); err == nil || !errors.As(err, &f) || f.class != kek.ErrUnsuitable || f.status == 0 {
		return secret, err
	}
	// The service answers a damaged ciphertext as it answers a bad request. If the
	// canary opens, it was the ciphertext.
	if err := k.Check(ctx); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s opens its own and not this: it is damaged", kek.ErrWrongKey, k.at.versioned())
}

func algorithm(a kek.Algorithm) (azkeys.EncryptionAlgorithm, error) {
	switch a {
	case kek.OAEPSHA256:
		return azkeys.EncryptionAlgorithmRSAOAEP256, nil
	case kek.OAEPSHA1:
		return azkeys.EncryptionAlgorithmRSAOAEP, nil
	}
	return "", fmt.Errorf("%w: Key Vault cannot open %v", kek.ErrUnsuitable, a)
}

// decrypt asks the service. An error of class kek.ErrUnsuitable with a status is
// its answer that the request is bad.
func (k *key) decrypt(ctx context.Context, alg azkeys.EncryptionAlgorithm, ciphertext []byte) ([]byte, error) {
	if k.isClosed() {
		return nil, fmt.Errorf("%w: key %s is closed", kek.ErrUnreachable, k.ref.Name)
	}
	return k.vault.call(ctx, request{verb: "unwrap with", of: k.at, cost: k.cost, do: func(ctx context.Context) ([]byte, error) {
		answer, err := k.vault.keys.UnwrapKey(ctx, k.at.name, k.at.version, azkeys.KeyOperationParameters{Algorithm: &alg, Value: ciphertext}, nil)
		if err != nil {
			return nil, err
		}
		return k.accept(answer.KeyOperationResult)
	}})
}

// accept returns the secret of an answer that names this version.
func (k *key) accept(answer azkeys.KeyOperationResult) ([]byte, error) {
	if answer.KID == nil {
		return nil, errors.New("the answer names no key")
	}
	at, err := k.at.parseKID(string(*answer.KID))
	if err == nil && at.version != k.at.version {
		err = fmt.Errorf("version %s answers", at.version)
	}
	if err == nil && (len(answer.Result) == 0 || len(answer.Result) > k.ref.Bits/8) {
		err = fmt.Errorf("it opens to %d bytes", len(answer.Result))
	}
	if err != nil {
		clear(answer.Result)
		return nil, &oddError{says: err.Error(), next: "find out who answers in its place"}
	}
	return answer.Result, nil
}

func (k *key) Check(ctx context.Context) error {
	secret, err := k.decrypt(ctx, azkeys.EncryptionAlgorithmRSAOAEP256, k.wrapped)
	if err != nil {
		return err
	}
	defer clear(secret)
	if !bytes.Equal(secret, k.canary) {
		return fmt.Errorf("%w: %s opens what it wrapped to something else", kek.ErrUnsuitable, k.at.versioned())
	}
	return nil
}

// Inspect asks for the version's attributes. A disabled one is not an error.
func (k *key) Inspect(ctx context.Context) (kek.Facts, error) {
	is, err := k.vault.get(ctx, k.at)
	if err != nil {
		return kek.Facts{}, err
	}
	if is.pub == nil || !is.pub.Equal(k.known().pub) {
		return kek.Facts{}, fmt.Errorf("%w: %s has another public key now: find out who answers for %s before you trust it", kek.ErrUnsuitable, k.at.versioned(), k.at.host)
	}
	k.mu.Lock()
	k.is = is
	k.mu.Unlock()
	return is.facts, nil
}

// Cautions says what is to be known of a key that may be used.
func (k *key) Cautions() []string {
	if k.known().exportable {
		return []string{"the private half can leave the vault: the version is exportable (secure key release)"}
	}
	return nil
}

func (k *key) Close() error {
	k.mu.Lock()
	was := k.closed
	k.closed = true
	k.mu.Unlock()
	if was || k.vault.own == nil {
		return nil
	}
	return k.vault.own.Close()
}

func (k *key) isClosed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.closed
}

func (k *key) known() version {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.is
}

// String says which key it is.
func (k *key) String() string { return k.ref.LogValue().String() }

// Format writes String, whatever the verb: what hangs below knows tokens.
func (k *key) Format(s fmt.State, _ rune) { fmt.Fprint(s, k.String()) }

// LogValue is that of Ref.
func (k *key) LogValue() slog.Value { return k.ref.LogValue() }
