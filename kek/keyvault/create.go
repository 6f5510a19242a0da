package keyvault

import (
	"context"
	"errors"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/cofferbackup/coffer/kek"
)

// Create makes a key of so many bits, or a new version of it if it is there: like
// the newest in kind, and in size if bits is 0. A new key has kek.DefaultBits then,
// and is a software key in a Key Vault; for one in hardware make the first version
// with Azure's own tools. It may wrap and unwrap, and nothing else.
//
// The identity needs the right to create, which an agent should not have: failing
// here says nothing about the key. While a vault has failed over to another region
// it makes no keys. If the answer is lost, the version may have come to be: Create
// is not tried again, and the next Open shows it.
func Create(ctx context.Context, cfg Config, bits int) (kek.Ref, error) {
	v, a, err := cfg.connect()
	if err != nil {
		return kek.Ref{}, err
	}
	if v.own != nil {
		defer v.own.Close() // which only drops connections
	}
	if a.version != "" {
		return kek.Ref{}, fmt.Errorf("%w: a new version gets its name from the vault: leave the version out of the URI", kek.ErrUnsuitable)
	}
	kty := azkeys.KeyTypeRSA
	if a.hsm {
		kty = azkeys.KeyTypeRSAHSM
	}
	before, err := v.get(ctx, a)
	switch {
	case errors.Is(err, kek.ErrMissing) && !is(err, codeDeleted) && !is(err, codeDeleting):
	case err != nil:
		return kek.Ref{}, err
	default:
		if err := before.suitable(); err != nil {
			return kek.Ref{}, fmt.Errorf("make a version like the newest: %w", err)
		}
		kty = azkeys.KeyType(before.kty)
		if bits == 0 {
			bits = before.pub.N.BitLen()
		}
	}
	if bits == 0 {
		bits = kek.DefaultBits
	}
	if err := kek.CheckBits(bits); err != nil {
		return kek.Ref{}, err
	}
	made, err := v.create(ctx, a, kty, bits)
	if err != nil {
		return kek.Ref{}, err
	}
	if made.at.version == before.at.version {
		return kek.Ref{}, fmt.Errorf("%w: create %s: the vault answers with the version that was there", kek.ErrUnsuitable, a)
	}
	k, err := newKey(v, cfg.Name, made)
	if err != nil {
		return kek.Ref{}, err
	}
	return k.Ref(), nil
}

func (v *vault) create(ctx context.Context, a address, kty azkeys.KeyType, bits int) (version, error) {
	size := int32(bits)
	wrap, unwrap := azkeys.KeyOperationWrapKey, azkeys.KeyOperationUnwrapKey
	var made version
	_, err := v.call(ctx, request{verb: "create", of: a, once: true, do: func(ctx context.Context) ([]byte, error) {
		answer, err := v.keys.CreateKey(ctx, a.name, azkeys.CreateKeyParameters{
			Kty: &kty, KeySize: &size, KeyOps: []*azkeys.KeyOperation{&wrap, &unwrap},
		}, nil)
		if err != nil {
			return nil, err
		}
		found, err := parseBundle(a, answer.KeyBundle)
		if err == nil {
			made = found
		}
		return nil, err
	}})
	if err != nil {
		return version{}, v.mayCreate(err, a)
	}
	if err := v.pin(made); err != nil {
		return version{}, err
	}
	return made, made.suitable()
}

// mayCreate says what making a key needs besides, where the vault forbids it.
func (v *vault) mayCreate(err error, a address) error {
	var f *fault
	if !errors.As(err, &f) || !errors.Is(f.class, kek.ErrDenied) || f.status == 0 {
		return err
	}
	f.next = fmt.Sprintf("making keys is better left to their owner: %s --kty RSA --size %d; or give %s the role \"Key Vault Crypto Officer\" for a while. A vault that has failed over to another region makes no keys until it is back",
		a.az("create"), kek.DefaultBits, v.id.credential.assignee())
	return f
}
