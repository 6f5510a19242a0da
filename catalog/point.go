package catalog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// PointName is a point's name in its item: the time of the backup and a random
// id. Names sort by time.
type PointName string

// nameTime has milliseconds, so that points of one second keep their order.
const nameTime = "20060102t150405.000z"

func newPointName(t time.Time) (PointName, [16]byte) {
	var id [16]byte
	rand.Read(id[:])
	return PointNameOf(t, id), id
}

// PointNameOf returns the name of a backup that began at a time, with that id.
func PointNameOf(t time.Time, id [16]byte) PointName {
	return PointName(t.UTC().Format(nameTime) + "-" + crypt.Encoding.EncodeToString(id[:]))
}

// ParsePointName checks a name and returns its parts.
func ParsePointName(s string) (PointName, time.Time, [16]byte, error) {
	var id [16]byte
	stamp, random, ok := strings.Cut(s, "-")
	t, err := time.Parse(nameTime, stamp)
	b, err2 := crypt.Encoding.DecodeString(random)
	if !ok || err != nil || err2 != nil || len(b) != len(id) ||
		t.Format(nameTime) != stamp || crypt.Encoding.EncodeToString(b) != random { // one text for one name
		return "", time.Time{}, id, fmt.Errorf("%q is not the name of a point", s)
	}
	copy(id[:], b)
	return PointName(s), t, id, nil
}

// ID returns the random part of the name: what the seal of the point binds.
func (n PointName) ID() string {
	_, id, _ := strings.Cut(string(n), "-")
	return id
}

// Time returns when the backup began, to the millisecond.
func (n PointName) Time() time.Time {
	_, t, _, _ := ParsePointName(string(n))
	return t
}

// String is the name for people: "2026-11-22T09:00:03Z-k3f9".
func (n PointName) String() string {
	_, t, id, err := ParsePointName(string(n))
	if err != nil {
		return string(n)
	}
	return t.Format("2006-01-02T15:04:05Z") + "-" + crypt.Encoding.EncodeToString(id[:])[:4]
}

// Point is one backup of an item: everything there is to know about it, except
// what its packs hold.
type Point struct {
	Name    PointName         `cbor:"-"`
	Item    string            `cbor:"1,keyasint"`
	Kind    string            `cbor:"2,keyasint"` // of the source
	Host    string            `cbor:"3,keyasint"`
	Agent   string            `cbor:"4,keyasint"` // version that wrote it
	Started int64             `cbor:"5,keyasint"` // unix nanoseconds
	Ended   int64             `cbor:"6,keyasint"`
	Parent  string            `cbor:"7,keyasint,omitempty"`  // the point it was compared with
	Root    []chunk.ID        `cbor:"8,keyasint"`            // tree chunks of the top directory
	Packs   []pack.ID         `cbor:"9,keyasint"`            // every pack it needs, sorted; perhaps some more
	Loose   uint64            `cbor:"10,keyasint,omitempty"` // entries dropped since Packs was last exact
	Stats   Stats             `cbor:"11,keyasint"`
	Users   map[uint32]string `cbor:"12,keyasint,omitempty"`
	Groups  map[uint32]string `cbor:"13,keyasint,omitempty"`
	Skipped []Skip            `cbor:"14,keyasint,omitempty"` // at most MaxSkipped
	Tags    []string          `cbor:"15,keyasint,omitempty"`
}

// MaxSkipped is how many skipped entries a point lists; Stats counts all.
const MaxSkipped = 1000

// Skip is an entry that the point does not have, and why.
type Skip struct {
	_      struct{} `cbor:",toarray"`
	Path   []byte
	Reason string
	Fault  bool
}

// Stats counts what a backup did. Bytes are plaintext unless said otherwise.
type Stats struct {
	Files   uint64 `cbor:"1,keyasint"`
	Dirs    uint64 `cbor:"2,keyasint"`
	Others  uint64 `cbor:"3,keyasint"`            // symlinks, devices, FIFOs
	Bytes   uint64 `cbor:"4,keyasint"`            // of all files, holes included
	Read    uint64 `cbor:"5,keyasint"`            // read from the source
	Changed uint64 `cbor:"6,keyasint"`            // files that were new or changed, and so read
	New     uint64 `cbor:"7,keyasint"`            // bytes the vault did not have
	Stored  uint64 `cbor:"8,keyasint"`            // bytes put into the store for them
	Skipped uint64 `cbor:"9,keyasint,omitempty"`  // entries passed over with a fault
	Unquiet uint64 `cbor:"10,keyasint,omitempty"` // files that would not hold still
}

// Points returns the names of the item's points, oldest first.
func (it *Item) Points(ctx context.Context) ([]PointName, error) {
	var names []PointName
	for name, err := range it.PointNames(ctx) {
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// PointNames yields what Points returns, without holding it.
func (it *Item) PointNames(ctx context.Context) iter.Seq2[PointName, error] {
	return func(yield func(PointName, error) bool) {
		for entry, err := range it.named(ctx, "points") {
			if err != nil {
				yield("", fmt.Errorf("list points of %s: %w", it.name, err))
				return
			}
			if entry.Size > 0 && !yield(entry.name, nil) { // else it is a void
				return
			}
		}
	}
}

// Point reads a point. ErrNoPoint if it is not there, or a void.
func (it *Item) Point(ctx context.Context, name PointName) (*Point, error) {
	_, stamp, id, err := ParsePointName(string(name))
	if err != nil {
		return nil, err
	}
	payload, err := it.readObject(ctx, it.PointKey(name), crypt.Point, id)
	if Unreadable(err) {
		// Perhaps it is a void, or has become one while it was read.
		committed, cerr := it.Committed(ctx, name)
		switch {
		case cerr != nil:
			err = cerr
		case !committed:
			err = ErrNoPoint
		}
	}
	if errors.Is(err, store.ErrNotExist) {
		err = ErrNoPoint
	}
	if err != nil {
		return nil, fmt.Errorf("read point %s of %s: %w", name, it.name, err)
	}
	p := &Point{Name: name}
	if err := decode(payload, p); err != nil {
		return nil, fmt.Errorf("read point %s of %s: %w: %w", name, it.name, err, crypt.ErrDamaged)
	}
	// The id in the name is bound by the seal, the time is not.
	if p.Item != validText(it.name) || !time.Unix(0, p.Started).Truncate(time.Millisecond).Equal(stamp) {
		return nil, fmt.Errorf("read point %s of %s: it is named after another time or item: %w", name, it.name, crypt.ErrDamaged)
	}
	return p, nil
}

// PutPoint writes p, which is the commit of a backup, under the name of its session,
// p.Name. ErrVoided if that name was given up, and after MaxSession, when that cannot be
// known any more. What is not UTF-8 in the texts of p becomes U+FFFD, as CBOR wants it.
func (it *Item) PutPoint(ctx context.Context, p *Point, opts store.PutOptions) error {
	p.cleanTexts()
	_, stamp, id, err := ParsePointName(string(p.Name))
	if err == nil && !time.Unix(0, p.Started).Truncate(time.Millisecond).Equal(stamp) {
		err = fmt.Errorf("%q is the name of a backup that began at another time", p.Name)
	}
	if took := time.Duration(p.Ended - p.Started); err == nil && took > MaxSession {
		err = fmt.Errorf("by its clock it took %d days: %w", int(took.Hours()/24), ErrVoided)
	}
	if err != nil {
		return fmt.Errorf("write point of %s: %w", it.name, err)
	}
	payload, err := encoding.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode point of %s: %w", it.name, err)
	}
	err = it.putObject(ctx, it.PointKey(p.Name), crypt.Point, id, payload, opts)
	if errors.Is(err, store.ErrExist) {
		if committed, cerr := it.Committed(ctx, p.Name); cerr != nil {
			err = cerr
		} else if !committed {
			err = ErrVoided
		}
	}
	if err != nil {
		return fmt.Errorf("write point of %s: %w", it.name, err)
	}
	return nil
}

// cleanTexts makes every text of p valid UTF-8. Host and user names are bytes to
// the system, and paths may be part of a reason.
func (p *Point) cleanTexts() {
	for _, s := range []*string{&p.Item, &p.Kind, &p.Host, &p.Agent, &p.Parent} {
		*s = validText(*s)
	}
	for _, names := range []map[uint32]string{p.Users, p.Groups} {
		for id, name := range names {
			names[id] = validText(name)
		}
	}
	for i := range p.Skipped {
		p.Skipped[i].Reason = validText(p.Skipped[i].Reason)
	}
	for i := range p.Tags {
		p.Tags[i] = validText(p.Tags[i])
	}
}

func validText(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

// Indexes yields the names of the item's index objects.
func (it *Item) Indexes(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for id, err := range it.ids(ctx, it.prefix("index")) {
			if !yield(id.String(), err) {
				return
			}
		}
	}
}

// Packs yields the names of the item's packs.
func (it *Item) Packs(ctx context.Context) iter.Seq2[pack.ID, error] {
	return it.ids(ctx, pack.Prefix(it.id))
}

// Index reads an index object.
func (it *Item) Index(ctx context.Context, name string) ([]pack.Contents, error) {
	id, err := pack.ParseID(name)
	if err != nil {
		return nil, fmt.Errorf("read index %s of %s: %w", name, it.name, err)
	}
	payload, err := it.readObject(ctx, it.IndexKey(name), crypt.Index, id)
	if err != nil {
		return nil, fmt.Errorf("read index %s of %s: %w", name, it.name, err)
	}
	return pack.DecodeContents(payload)
}

// segmentChunks is how many chunks an index object names, about. It bounds the memory
// for packs that are put and not indexed, and what a crash leaves to be found again by
// listing.
const segmentChunks = 32 << 10

// PutIndex writes what some packs hold, all of which are in the store, and
// returns the name of the object and its size in bytes.
func (it *Item) PutIndex(ctx context.Context, contents []pack.Contents, opts store.PutOptions) (string, int64, error) {
	payload, err := pack.EncodeContents(contents)
	if err != nil {
		return "", 0, fmt.Errorf("encode index of %s: %w", it.name, err)
	}
	var id pack.ID
	rand.Read(id[:])
	if err := it.putObject(ctx, it.prefix("index")+store.Key(id.String()), crypt.Index, id, payload, opts); err != nil {
		return "", 0, fmt.Errorf("write index of %s: %w", it.name, err)
	}
	return id.String(), int64(len(payload)), nil
}

// PointKey returns the object key of a point.
func (it *Item) PointKey(name PointName) store.Key { return it.prefix("points") + store.Key(name) }

// IndexKey returns the object key of an index object.
func (it *Item) IndexKey(name string) store.Key { return it.prefix("index") + store.Key(name) }
