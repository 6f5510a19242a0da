package kek

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Ring is the keys that a vault may be opened with, in the order in which they
// are tried, and those that new secrets are wrapped with.
//
// A Ring is safe for concurrent use. It owns its keys.
type Ring struct {
	keys     []Key
	wrappers []Wrapper
}

// NewRing returns a ring of keys, to be tried in this order. Keys that share a
// name are versions of one key, the one in use first: only that one wraps, all of
// them unwrap.
func NewRing(keys ...Key) *Ring {
	r := &Ring{keys: slices.Clone(keys)}
	seen := make(map[string]bool)
	for _, key := range r.keys {
		if name := key.Ref().Name; !seen[name] {
			seen[name] = true
			r.wrappers = append(r.wrappers, key)
		}
	}
	return r
}

// WrapWith returns a ring of the same keys that wraps with these instead: with the
// public half of an escrow key, say, and not with a key that is there to open what
// is old.
func (r *Ring) WrapWith(wrappers ...Wrapper) *Ring {
	return &Ring{keys: r.keys, wrappers: slices.Clone(wrappers)}
}

// Keys returns every key in order. They stay the ring's.
func (r *Ring) Keys() []Key { return slices.Clone(r.keys) }

// Wrappers returns what a new secret must be wrapped with, the primary first.
func (r *Ring) Wrappers() []Wrapper { return slices.Clone(r.wrappers) }

// Unwrap opens the first of wrappings that opens and says which key did it. Keys
// are chosen by fingerprint and tried in the ring's order; a key that does not
// answer, refuses or does not fit makes way for the next. If none opens, the
// error is an *UnwrapError. The caller owns and zeroes the secret.
func (r *Ring) Unwrap(ctx context.Context, wrappings []Wrapped) ([]byte, Ref, error) {
	var failed UnwrapError
	for _, key := range r.keys {
		ref := key.Ref()
		for _, w := range wrappings {
			if w.Fingerprint != ref.Fingerprint {
				continue
			}
			secret, err := key.Unwrap(ctx, w)
			if err == nil {
				return secret, ref, nil
			}
			if errors.Is(err, context.Canceled) && ctx.Err() != nil {
				return nil, Ref{}, fmt.Errorf("unwrap with %s: %w", ref.Name, err)
			}
			failed.Tried = append(failed.Tried, Attempt{Ref: ref, Err: err})
		}
	}
	for _, w := range wrappings {
		if !slices.ContainsFunc(r.keys, func(k Key) bool { return k.Ref().Fingerprint == w.Fingerprint }) {
			failed.Unknown = append(failed.Unknown, w)
		}
	}
	return nil, Ref{}, &failed
}

// Close closes every key.
func (r *Ring) Close() error {
	var errs []error
	for _, key := range r.keys {
		if err := key.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close key %s: %w", key.Ref().Name, err))
		}
	}
	return errors.Join(errs...)
}

// UnwrapError says why no wrapping of a secret opens. It is every error of Tried,
// or ErrNoKey if no key was there to try.
type UnwrapError struct {
	Tried   []Attempt // in the order of the ring
	Unknown []Wrapped // those that no key of the ring was made for
}

// Attempt is a key that was asked, and its answer.
type Attempt struct {
	Ref Ref
	Err error
}

func (e *UnwrapError) Error() string {
	var parts []string
	for _, a := range e.Tried {
		parts = append(parts, fmt.Sprintf("%s (%s, key %.12s): %v", a.Ref.Name, a.Ref.URI, a.Ref.Fingerprint.String(), a.Err))
	}
	for _, w := range e.Unknown {
		where := w.URI
		if w.Version != "" {
			where += " version " + w.Version
		}
		parts = append(parts, fmt.Sprintf("key %v, last seen as %s: %v; link it to open this", w.Fingerprint, where, ErrNoKey))
	}
	if len(parts) == 0 {
		return ErrNoKey.Error() + ": there are no wrappings"
	}
	return "no key opens it: " + strings.Join(parts, "; ")
}

// Unwrap lets errors.Is and errors.As see every attempt.
func (e *UnwrapError) Unwrap() []error {
	if len(e.Tried) == 0 {
		return []error{ErrNoKey}
	}
	errs := make([]error, len(e.Tried))
	for i, a := range e.Tried {
		errs[i] = a.Err
	}
	return errs
}
