package doctor

import (
	"context"
	"errors"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/store"
)

// Bounds of a look at a store.
const (
	listMost = 1000
	maxKnown = 1 << 20          // bytes of the object that is put again
	ahead    = 10 * time.Minute // clocks differ by less
)

// StoreAsk says what to look for in a store.
type StoreAsk struct {
	// Known is an object of the vault that never changes. It is put again, as it is, to
	// see whether the store refuses that.
	Known store.Key
	// Under is where objects lie that a lock is on; "" if none is asked for.
	Under store.Key
	Now   time.Time
	// Lock: the configuration asks for a lock.
	Lock bool
}

// Store looks at a store: whether it answers and lists, whether it refuses to replace,
// what its clock says, and whether it keeps what it is to keep.
func Store(ctx context.Context, st store.Store, ask StoreAsk) []control.Check {
	var out []control.Check
	begun := time.Now()
	newest, locked, n, err := listSome(ctx, st, ask.Under)
	if err != nil {
		return append(out, Bad("reach and list", storeNext(err), "%v", err))
	}
	out = append(out, Good("reach and list", "it answers: %d objects seen in %s", n, time.Since(begun).Round(time.Millisecond)))
	out = append(out, writeOnce(ctx, st, ask.Known))
	if by := newest.Sub(ask.Now); by > ahead {
		out = append(out, Warning("clock", "set the clock of this machine or of the store right: object lock and prune go by both",
			"an object was written %s in the future of this machine's clock", by.Round(time.Second)))
	} else {
		out = append(out, Good("clock", "no object is from the future"))
	}
	if ask.Lock {
		out = append(out, lock(ctx, st, locked, ask.Now))
	}
	return out
}

// listSome lists the beginning of a store and, if a lock is asked for, of what it is on.
func listSome(ctx context.Context, st store.Store, under store.Key) (newest time.Time, locked store.Info, n int, err error) {
	for _, prefix := range []store.Key{"", under} {
		seen := 0
		for info, err := range st.List(ctx, prefix) {
			if err != nil {
				return newest, locked, n, err
			}
			if info.Modified.After(newest) {
				newest = info.Modified
			}
			if prefix != "" && info.Modified.After(locked.Modified) {
				locked = info
			}
			if seen++; seen >= listMost {
				break
			}
		}
		n = max(n, seen)
		if under == "" {
			break
		}
	}
	return newest, locked, n, nil
}

// writeOnce puts an object again that is there, with the same bytes: a store that is
// worth its name refuses. One that does not has changed nothing.
func writeOnce(ctx context.Context, st store.Store, known store.Key) control.Check {
	const what = "written once"
	raw, err := store.ReadAll(ctx, st, known, maxKnown)
	if errors.Is(err, store.ErrNotExist) {
		return Skipped(what, "there is no vault in it yet")
	}
	if err != nil {
		return Bad("read", storeNext(err), "%v", err)
	}
	switch err := st.Put(ctx, known, store.Body{raw}, store.PutOptions{}); {
	case errors.Is(err, store.ErrExist):
		return Good(what, "it refuses to replace an object")
	case err == nil:
		return Bad(what, "use a store that honours If-None-Match: backups at the same time could undo each other here", "it replaced an object that was there")
	case errors.Is(err, store.ErrDenied):
		return Warning(what, "give the agent's credentials s3:PutObject: without it there are no backups, only restores", "it does not let this host write: %v", err)
	default:
		return Bad(what, storeNext(err), "%v", err)
	}
}

// lock looks at whether a new object is under retention, where the configuration asks
// for it.
func lock(ctx context.Context, st store.Store, newest store.Info, now time.Time) control.Check {
	const what = "object lock"
	if newest.Key == "" {
		return Skipped(what, "nothing is there yet that a lock could be on")
	}
	r, ok := st.(store.Retainer)
	if !ok {
		return Bad(what, "leave vaults.NAME.lock out, or use a bucket with object lock", "this kind of store has none, and the config asks for it")
	}
	until, err := r.RetainedUntil(ctx, newest.Key)
	switch next := "make the bucket with object lock, and let the credentials s3:GetObjectRetention and s3:PutObjectRetention"; {
	case err != nil:
		return Bad(what, next, "%v", err)
	case until.IsZero():
		return Bad(what, next, "%s is under no retention, and the config asks for it", newest.Key)
	case until.Before(now):
		return Warning(what, "make a backup: it extends what it leans on", "the retention of %s ended %s", newest.Key, until.UTC().Format(time.DateOnly))
	}
	return Good(what, "what is put is kept until %s", until.UTC().Format(time.DateOnly))
}

// storeNext says what to do about an error of a store.
func storeNext(err error) string {
	for _, known := range []struct {
		is   error
		next string
	}{
		{store.ErrMissing, "make the bucket or folder, or correct vaults.NAME.store in the config"},
		{store.ErrDenied, "check the store's credentials and permissions"},
		{store.ErrFull, "make room in the store"},
		{store.ErrUnavailable, "see that the store is up and can be reached from here: name, port, proxy, certificate"},
		{context.DeadlineExceeded, "see that the store is up and can be reached from here: name, port, proxy, certificate"},
	} {
		if errors.Is(err, known.is) {
			return known.next
		}
	}
	return "see the log of the store: this is not an answer that it should give"
}
