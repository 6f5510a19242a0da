package sqlite

import (
	"context"
	"slices"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/store/pack"
)

// Places returns every place where the chunk is: one in each pack that has it, in the
// order in which the packs were added. Where Lookup answers with one of them, this is
// for those who cannot use that one.
func (x *Index) Places(ctx context.Context, id chunk.ID) ([]pack.Location, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	parts, err := x.candidates(prefixOf(id))
	if err != nil {
		return nil, x.failed("look up chunk in", err)
	}
	var places []pack.Location
	for _, n := range parts {
		p, err := x.part(n)
		if err != nil {
			return nil, x.failed("look up chunk in", err)
		}
		if p == nil {
			continue // forgotten since
		}
		loc, ok, err := p.find(id)
		if err != nil {
			return nil, x.failed("look up chunk in", err)
		}
		if ok && !slices.ContainsFunc(places, func(have pack.Location) bool { return have.Pack == loc.Pack }) {
			places = append(places, loc)
		}
	}
	return places, nil
}
