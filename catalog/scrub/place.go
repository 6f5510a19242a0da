package scrub

import (
	"strconv"
	"strings"

	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// The kinds of objects that the scrub itself tells apart; the others are named after
// their folders.
const (
	descriptors = "vault"
	keyRecords  = "keys"
	points      = "points"
)

// place is what the name of an object says of it.
type place struct {
	kind string // "" if the format has no such name
	item string // or "vault", for a key record

	seal              crypt.Kind // of a sealed object
	generation, epoch uint32     // of a key record
}

// parse reads a name as docs/format.md gives them (section 1).
func parse(key store.Key) place {
	seg := strings.Split(string(key), "/")
	switch {
	case key == descriptors:
		return place{kind: descriptors}
	case len(seg) == 3 && seg[0] == keyRecords:
		return parseRecord(seg[1], seg[2])
	case len(seg) < 4 || seg[0] != "items":
		return place{}
	}
	if _, err := crypt.ParseItemID(seg[1]); err != nil {
		return place{}
	}
	name := seg[len(seg)-1]
	p := place{kind: seg[2], item: seg[1], seal: sealOf(seg[2])}
	ok := p.seal != 0
	switch p.kind {
	case points, "sessions":
		_, _, _, err := catalog.ParsePointName(name)
		ok = ok && err == nil && len(seg) == 4
	case "packs":
		_, err := pack.ParseID(name)
		ok = ok && err == nil && len(seg) == 5 && seg[3] == name[:2]
	default:
		_, err := pack.ParseID(name)
		ok = ok && err == nil && len(seg) == 4
	}
	if !ok {
		return place{}
	}
	return p
}

// sealOf returns the kind of the sealed objects in a folder of an item, or 0.
func sealOf(folder string) crypt.Kind {
	switch folder {
	case "packs":
		return crypt.Pack
	case "index":
		return crypt.Index
	case points:
		return crypt.Point
	case "sessions":
		return crypt.Session
	case "marks":
		return crypt.Mark
	case "witnesses":
		return crypt.Witness
	case "repacks":
		return crypt.Repack
	case "holds":
		return crypt.Hold
	case "removed":
		return crypt.Removed
	}
	return 0
}

// parseRecord reads the name of a key record: <generation>-<epoch>, eight digits each.
func parseRecord(owner, name string) place {
	if _, err := crypt.ParseItemID(owner); err != nil && owner != descriptors {
		return place{}
	}
	generation, epoch, _ := strings.Cut(name, "-")
	g, err := strconv.ParseUint(generation, 10, 32)
	e, err2 := strconv.ParseUint(epoch, 10, 32)
	if err != nil || err2 != nil || len(generation) != 8 || len(epoch) != 8 || g == 0 || e == 0 {
		return place{}
	}
	return place{kind: keyRecords, item: owner, generation: uint32(g), epoch: uint32(e)}
}
