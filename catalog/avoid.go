package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// Places is an optional ability of a Lookup: it knows every place of a chunk.
type Places interface {
	// Places returns where the chunk is, one place in each pack that has it.
	Places(ctx context.Context, id chunk.ID) ([]pack.Location, error)
}

// Avoiding is a Lookup that answers with a place in a pack that is to be avoided only
// if there is no other.
type Avoiding struct {
	Index Lookup
	Avoid func(pack.ID) bool
}

// Lookup implements Lookup.
func (a Avoiding) Lookup(ctx context.Context, id chunk.ID) (pack.Location, bool, error) {
	loc, ok, err := a.Index.Lookup(ctx, id)
	if err != nil || !ok || !a.Avoid(loc.Pack) {
		return loc, ok, err
	}
	others, err := elsewhere(ctx, a.Index, id, loc)
	if err != nil {
		return loc, false, err
	}
	if i := slices.IndexFunc(others, func(l pack.Location) bool { return !a.Avoid(l.Pack) }); i >= 0 {
		loc = others[i]
	}
	return loc, true, nil
}

// Places implements Places.
func (a Avoiding) Places(ctx context.Context, id chunk.ID) ([]pack.Location, error) {
	if p, ok := a.Index.(Places); ok {
		return p.Places(ctx, id)
	}
	return nil, nil
}

// elsewhere returns the places of a chunk besides one, of its type.
func elsewhere(ctx context.Context, l Lookup, id chunk.ID, not pack.Location) ([]pack.Location, error) {
	p, ok := l.(Places)
	if !ok {
		return nil, nil
	}
	places, err := p.Places(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("look up chunk %s: %w", id, err)
	}
	return slices.DeleteFunc(places, func(l pack.Location) bool { return l.Pack == not.Pack || l.Type != not.Type }), nil
}

// Elsewhere returns a chunk that could not be had at loc from another pack that has
// it. cause is why it could not be had there, and what is returned if no other gives
// it. The caller must not change the chunk.
func (r *Reader) Elsewhere(ctx context.Context, id chunk.ID, loc pack.Location, cause error) ([]byte, error) {
	others, err := elsewhere(ctx, r.Index, id, loc)
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		raw, err := r.frame(ctx, other)
		if err == nil {
			raw, err = r.Cut(ctx, raw, other, id)
		}
		if err == nil || !Lost(err) {
			return raw, err
		}
	}
	return nil, cause
}

// Unreadable tells whether an error says that something is there and cannot be read as it
// is: its bytes are damaged, cut off, or not what they should be. One of a store, a key or
// the local index that does not answer says nothing of the kind.
func Unreadable(err error) bool {
	for _, known := range []error{crypt.ErrDamaged, tree.ErrFormat, chunk.ErrSize, store.ErrShort} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// Lost tells whether an error says that something is unreadable, or gone.
func Lost(err error) bool { return Unreadable(err) || errors.Is(err, store.ErrNotExist) }
