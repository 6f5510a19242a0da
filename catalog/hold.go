package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// ErrNoHold: the item has no such hold, or it was released.
var ErrNoHold = errors.New("no such hold")

// Hold keeps a point until it is released.
type Hold struct {
	ID     string // set by PutHold
	Point  PointName
	Owner  string // who answers for it
	Reason string
	Since  time.Time
}

// holdBody is what a hold object holds: a hold, or the release of one. Neither is ever
// changed; a hold counts as long as nothing releases it.
type holdBody struct {
	Point   string  `cbor:"1,keyasint,omitempty"`
	Owner   string  `cbor:"2,keyasint"` // of a release: who released it
	Reason  string  `cbor:"3,keyasint,omitempty"`
	Since   int64   `cbor:"4,keyasint"` // unix nanoseconds
	Release []byte  `cbor:"5,keyasint,omitempty"`
	id      pack.ID // its own
}

// PutHold writes a hold and gives it its id. It does not look whether the point is
// there.
func (it *Item) PutHold(ctx context.Context, h *Hold) error {
	if _, _, _, err := ParsePointName(string(h.Point)); err != nil {
		return fmt.Errorf("hold a point of %s: %w", it.name, err)
	}
	h.Owner, h.Reason = validText(h.Owner), validText(h.Reason)
	id, err := it.putHold(ctx, holdBody{Point: string(h.Point), Owner: h.Owner, Reason: h.Reason, Since: h.Since.UnixNano()})
	if err != nil {
		return fmt.Errorf("hold point %s of %s: %w", h.Point, it.name, err)
	}
	h.ID = id.String()
	return nil
}

// Release ends a hold. ErrNoHold if there is none, or no more.
func (it *Item) Release(ctx context.Context, hold, by string, now time.Time) error {
	holds, err := it.Holds(ctx)
	if err != nil {
		return err
	}
	id, err := pack.ParseID(hold)
	if err != nil || !slices.ContainsFunc(holds, func(h Hold) bool { return h.ID == hold }) {
		return fmt.Errorf("release hold %s of %s: %w", hold, it.name, ErrNoHold)
	}
	if _, err := it.putHold(ctx, holdBody{Owner: validText(by), Since: now.UnixNano(), Release: id[:]}); err != nil {
		return fmt.Errorf("release hold %s of %s: %w", hold, it.name, err)
	}
	return nil
}

func (it *Item) putHold(ctx context.Context, body holdBody) (pack.ID, error) {
	id := newID()
	return id, it.putSealed(ctx, it.HoldKey(id.String()), crypt.Hold, id, body)
}

// Holds returns the holds that nobody has released, oldest first. A hold that does not
// open is an error: what it keeps is not known.
func (it *Item) Holds(ctx context.Context) ([]Hold, error) {
	bodies, err := readRecords(ctx, it, "holds", it.readHold)
	if err != nil {
		return nil, fmt.Errorf("read holds of %s: %w", it.name, err)
	}
	released := make(map[pack.ID]bool)
	for _, b := range bodies {
		if b.Release != nil {
			released[pack.ID(b.Release)] = true
		}
	}
	var holds []Hold
	for _, b := range bodies {
		if b.Release == nil && !released[b.id] {
			holds = append(holds, Hold{ID: b.id.String(), Point: PointName(b.Point), Owner: b.Owner, Reason: b.Reason, Since: time.Unix(0, b.Since).UTC()})
		}
	}
	slices.SortFunc(holds, func(a, b Hold) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return holds, nil
}

func (it *Item) readHold(ctx context.Context, info store.Info, id pack.ID) (holdBody, error) {
	var body holdBody
	if err := it.readSealed(ctx, info.Key, crypt.Hold, id, &body); err != nil {
		return body, err
	}
	body.id = id
	_, _, _, err := ParsePointName(body.Point)
	if body.Release != nil && (len(body.Release) != len(id) || body.Point != "") || body.Release == nil && err != nil {
		return body, fmt.Errorf("read %s: it is neither a hold nor the release of one: %w", info.Key, crypt.ErrDamaged)
	}
	return body, nil
}

// HoldKey returns the object key of a hold or of its release.
func (it *Item) HoldKey(id string) store.Key { return HoldsOf(it.id) + store.Key(id) }

// HoldsOf returns what the holds of an item, and their releases, are under.
func HoldsOf(id crypt.ItemID) store.Key { return prefixOf(id, "holds") }
