package keyvault

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/cofferbackup/coffer/kek"
)

// version is what the service says of one version of a key.
type version struct {
	at         address
	kty        string
	pub        *rsa.PublicKey // nil if it is not RSA
	ops        []string
	exportable bool
	facts      kek.Facts
}

// Types of keys.
const (
	ktyRSA    = "RSA"
	ktyRSAHSM = "RSA-HSM"
)

func (v version) mayWrap() bool { return slices.Contains(v.ops, "wrapKey") }

// get reads a version, the newest if a has none.
func (v *vault) get(ctx context.Context, a address) (version, error) {
	var got version
	_, err := v.call(ctx, request{verb: "get", of: a, do: func(ctx context.Context) ([]byte, error) {
		answer, err := v.keys.GetKey(ctx, a.name, a.version, nil)
		if err != nil {
			return nil, err
		}
		found, err := parseBundle(a, answer.KeyBundle)
		if err == nil {
			got = found
		}
		return nil, err
	}})
	if err != nil {
		return version{}, err // got may still be written to
	}
	return got, v.pin(got)
}

// pin holds the version to the public key that it had before.
func (v *vault) pin(got version) error {
	if got.pub == nil {
		return nil
	}
	fingerprint, err := kek.FingerprintOf(got.pub)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", kek.ErrUnsuitable, got.at.versioned(), err)
	}
	return v.site.pin(got.at, fingerprint)
}

// parseBundle reads the answer to a question about a.
func parseBundle(a address, b azkeys.KeyBundle) (version, error) {
	if b.Key == nil || b.Key.KID == nil || b.Key.Kty == nil || b.Attributes == nil {
		return version{}, errors.New("the answer lacks the key")
	}
	at, err := a.parseKID(string(*b.Key.KID))
	if err != nil {
		return version{}, &oddError{says: err.Error(), next: "find out who answers in its place"}
	}
	if a.version != "" && at.version != a.version {
		return version{}, &oddError{says: "it answers for version " + at.version, next: "find out who answers in its place"}
	}
	v := version{at: at, kty: string(*b.Key.Kty), exportable: value(b.Attributes.Exportable)}
	for _, op := range b.Key.KeyOps {
		v.ops = append(v.ops, string(value(op)))
	}
	if v.kty == ktyRSA || v.kty == ktyRSAHSM {
		if v.pub, err = parsePublic(b.Key.N, b.Key.E); err != nil {
			return version{}, &oddError{says: err.Error(), next: "find out who answers in its place"}
		}
	}
	v.facts = factsOf(b.Attributes)
	v.facts.MayUnwrap = kek.AnswerOf(slices.Contains(v.ops, "unwrapKey"))
	v.facts.Hardware = hardware(v, value(b.Attributes.HSMPlatform))
	return v, nil
}

func parsePublic(n, e []byte) (*rsa.PublicKey, error) {
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	if modulus.Sign() == 0 || !exponent.IsInt64() || exponent.Int64() > 1<<31-1 {
		return nil, errors.New("the public key makes no sense")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

// factsOf reads the attributes of a version, which lists have too. The recovery
// level says what may become of a deleted key (DeletionRecoveryLevel): Purgeable
// alone is gone at once, and with Purgeable in it somebody may make it so.
func factsOf(a *azkeys.KeyAttributes) kek.Facts {
	f := kek.Facts{
		Created: value(a.Created), Updated: value(a.Updated), NotBefore: value(a.NotBefore), Expires: value(a.Expires),
	}
	if a.Enabled != nil {
		f.Enabled = kek.AnswerOf(*a.Enabled)
	}
	if level := value(a.RecoveryLevel); level != "" {
		f.SoftDelete = kek.AnswerOf(level != "Purgeable")
		f.PurgeProtection = kek.AnswerOf(!strings.Contains(level, "Purgeable"))
	}
	return f
}

// hardware: platform 0 is software, 1 and 2 are HSMs (FIPS 140-2 level 2, 140-3
// level 3).
func hardware(v version, platform string) kek.Answer {
	switch {
	case v.exportable:
		return kek.No
	case v.kty == ktyRSAHSM, platform == "1", platform == "2":
		return kek.Yes
	case v.kty == ktyRSA, platform == "0":
		return kek.No
	}
	return kek.Unsaid
}

// suitable returns a fault, with what to do, unless the version may open what it
// wrapped: RSA, of an allowed size, and for unwrapping.
func (v version) suitable() error {
	f := &fault{class: kek.ErrUnsuitable, doing: "open " + v.at.versioned()}
	anew := fmt.Sprintf("make a new version: %s --kty RSA --size %d --ops wrapKey unwrapKey", v.at.az("create"), kek.DefaultBits)
	if v.pub == nil {
		f.says, f.next = fmt.Sprintf("it is of type %q and not RSA", clean(v.kty)), anew
		return f
	}
	if err := kek.CheckRSA(v.pub); err != nil {
		f.says, f.next = strings.TrimPrefix(err.Error(), kek.ErrUnsuitable.Error()+": "), anew
		return f
	}
	if v.facts.MayUnwrap != kek.Yes {
		f.says, f.next = "its operations leave out unwrapKey", "add it: "+v.at.azVersion("set-attributes")+" --ops wrapKey unwrapKey"
		return f
	}
	return nil
}

// enabled returns a fault, with what to do, if the version is disabled.
func (v *vault) enabled(a address, f kek.Facts) error {
	if f.Enabled != kek.No {
		return nil
	}
	return &fault{class: kek.ErrDenied, code: codeDisabled, doing: "open " + a.versioned(), says: "this version is disabled",
		next: v.permit(a, codeDisabled) + ", or make a new version of the key"}
}

// outside says how now is outside the dates of a version, or "".
func outside(f kek.Facts, now time.Time) string {
	switch {
	case !f.NotBefore.IsZero() && now.Before(f.NotBefore):
		return "is not valid before " + f.NotBefore.UTC().Format(time.RFC3339)
	case !f.Expires.IsZero() && !now.Before(f.Expires):
		return "expired on " + f.Expires.UTC().Format(time.RFC3339)
	}
	return ""
}

// value returns what p points to, or the zero value.
func value[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}
