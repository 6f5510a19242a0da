package catalog

import (
	"fmt"
	"slices"

	"github.com/cofferbackup/coffer/kek"
)

// wrappable is a secret: the vault key, or an item's.
type wrappable interface {
	Wrap(wrappers []kek.Wrapper) ([]kek.Wrapped, error)
}

// wrapAll wraps a secret under every wrapper, and checks what came of it: it is about
// to be the only way to the secret.
func wrapAll(wrappers []kek.Wrapper, secret wrappable) ([]kek.Wrapped, error) {
	made, err := secret.Wrap(wrappers)
	if err != nil {
		return nil, err
	}
	for i, w := range wrappers {
		if err := kek.CheckWrapped(w.Ref(), made[i]); err != nil {
			return nil, fmt.Errorf("check what key %s wrapped: %w", w.Ref().Name, err)
		}
	}
	return made, nil
}

// wrapUnder wraps a secret for a new record of a vault of that mode.
func wrapUnder(mode Mode, wrappers []kek.Wrapper, secret wrappable) ([]kek.Wrapped, error) {
	made, err := wrapAll(distinct(wrappers), secret)
	if err != nil {
		return nil, err
	}
	return made, checkWrappings(mode, made)
}

// checkWrappings tells whether a record of a vault of that mode may have these
// wrappings and no others.
func checkWrappings(mode Mode, wrapped []kek.Wrapped) error {
	if mode == CustomerManaged && slices.ContainsFunc(wrapped, isSoftware) {
		return fmt.Errorf("wrap under a software key: %w", ErrMode)
	}
	if !slices.ContainsFunc(wrapped, func(w kek.Wrapped) bool { return w.Provider != kek.Escrow }) {
		return fmt.Errorf("no key wraps it but what is kept offline: %w", kek.ErrNoKey)
	}
	return nil
}

func isSoftware(w kek.Wrapped) bool { return w.Provider == kek.Software }

// keyIdentity is what makes two wrappings of a secret the same for an owner of keys:
// the same key, in the same kind of place, used in the same way.
type keyIdentity struct {
	provider    kek.Provider
	fingerprint kek.Fingerprint
	algorithm   kek.Algorithm
}

func identityOf(w kek.Wrapped) keyIdentity {
	return keyIdentity{w.Provider, w.Fingerprint, w.Algorithm}
}

func identityOfKey(w kek.Wrapper) keyIdentity {
	r := w.Ref()
	return keyIdentity{r.Provider, r.Fingerprint, r.Algorithm}
}

// distinct drops wrappers of a key that is there already, such as its copy in
// another region: one wrapping is for both.
func distinct(wrappers []kek.Wrapper) []kek.Wrapper {
	var out []kek.Wrapper
	seen := make(map[keyIdentity]bool)
	for _, w := range wrappers {
		if id := identityOfKey(w); !seen[id] {
			seen[id] = true
			out = append(out, w)
		}
	}
	return out
}
