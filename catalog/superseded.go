package catalog

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cofferbackup/coffer/store"
)

// Superseded is a key record in whose place a later one counts.
type Superseded struct {
	Key   store.Key
	Size  int64
	Since time.Time // when the one that counts was written, by the store's clock
}

// Superseded returns the key records that count no more, because one of a later epoch
// is there of the same secret, which reads and is verified, and
// because nothing can be learned from them any more.
func (v *Vault) Superseded(ctx context.Context) ([]Superseded, error) {
	var records []store.Info
	var names []recordName
	for info, err := range v.objects.List(ctx, "keys/") {
		if err != nil {
			return nil, fmt.Errorf("list key records: %w", err)
		}
		if n, ok := parseRecordName(info.Key); ok {
			records, names = append(records, info), append(names, n)
		}
	}
	var out []Superseded
	for start := 0; start < len(names); {
		end := start + 1
		for end < len(names) && names[end].owner == names[start].owner && names[end].generation == names[start].generation {
			end++
		}
		for i := start; i < end-1; i++ {
			counts, err := v.countsNoMore(ctx, names[i], names[end-1])
			if err != nil {
				return nil, err
			}
			if counts {
				out = append(out, Superseded{records[i].Key, records[i].Size, records[end-1].Modified})
			}
		}
		start = end
	}
	return out, nil
}

// countsNoMore tells whether a record may go. One that alone shows that its secret was
// under a software key must stay until the vault is customer-managed: raising the mode
// makes a new generation of such an item (raise.go).
func (v *Vault) countsNoMore(ctx context.Context, old, last recordName) (bool, error) {
	var bodies [2]keyRecord
	for i, n := range []recordName{old, last} {
		body, err := v.readRecord(ctx, n)
		if err != nil && final(ctx, err) {
			return false, err
		}
		if err != nil {
			return false, nil // verify tells of it
		}
		bodies[i] = body
	}
	return v.Mode() == CustomerManaged || old.owner == vaultOwner ||
		!slices.ContainsFunc(bodies[0].wrapped(), isSoftware) || slices.ContainsFunc(bodies[1].wrapped(), isSoftware), nil
}
