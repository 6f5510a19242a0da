package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/store"
)

// Bounds of a look at a store.
const (
	listMost = 1000
	maxKnown = 1 << 20 // bytes of the object that is put again
)

// StoreAsk says what to look for in a store.
type StoreAsk struct {
	// Known is an object of the vault that never changes. It is put again, as it is, to
	// see whether the store refuses that.
	Known store.Key
	// Folder is where the store is on this machine; "" if it is none.
	Folder string
	// Backups: the configuration has items that are backed up into it.
	Backups bool
	Now     time.Time
	Lock    LockAsk
}

// LockAsk says what lock to look for. The zero value is none.
type LockAsk struct {
	// Newest is the newest point that there is, which has the lock if anything has; "" if
	// nobody knows. Then Under is looked through for objects that backups put with it.
	Newest store.Key
	Under  store.Key
	// Next is what to do about a store that does not keep what it should.
	Next string
}

func (a LockAsk) wanted() bool { return a.Under != "" }

// Store looks at a store: whether it answers and lists, whether it refuses to replace,
// what its clock says, and whether it keeps what it is to keep.
func Store(ctx context.Context, st store.Store, ask StoreAsk) []control.Check {
	var out []control.Check
	begun := time.Now()
	newest, locked, n, err := listSome(ctx, st, ask.Lock.Under)
	if err != nil {
		return append(out, Bad("reach and list", storeNext(err), "%v", err))
	}
	out = append(out, Good("reach and list", "it answers: %d objects seen in %s", n, time.Since(begun).Round(time.Millisecond)))
	out = append(out, writeOnce(ctx, st, ask))
	if by := newest.Sub(ask.Now); by > policy.ClockSkew {
		out = append(out, Warning("clock", "set the clock of this machine or of the store right: object lock and prune go by both",
			"an object was written %s in the future of this machine's clock", by.Round(time.Second)))
	} else {
		out = append(out, Good("clock", "no object is from the future"))
	}
	if ask.Lock.wanted() {
		out = append(out, lock(ctx, st, cmp.Or(ask.Lock.Newest, locked.Key), ask))
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
			if prefix != "" && backupPuts(info.Key) && info.Modified.After(locked.Modified) {
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

// backupPuts tells whether an object is of a kind that backups put under retention:
// items/<item>/<kind>/... (docs/format.md). Sessions, marks and holds are not.
func backupPuts(key store.Key) bool {
	parts := strings.SplitN(string(key), "/", 4)
	return len(parts) == 4 && slices.Contains([]string{"points", "index", "packs"}, parts[2])
}

// writeOnce puts an object again that is there, with the same bytes: a store that is
// worth its name refuses. One that does not has changed nothing. A folder refuses before
// it writes anything, so a file is written there besides.
func writeOnce(ctx context.Context, st store.Store, ask StoreAsk) control.Check {
	const what = "written once"
	raw, err := store.ReadAll(ctx, st, ask.Known, maxKnown)
	if errors.Is(err, store.ErrNotExist) {
		return Skipped(what, "there is no vault in it yet")
	}
	if err != nil {
		return Bad("read", storeNext(err), "%v", err)
	}
	err = st.Put(ctx, ask.Known, store.Body{raw}, store.PutOptions{})
	if ask.Folder != "" && errors.Is(err, store.ErrExist) {
		if unwritten := tryFolder(ask.Folder); unwritten != nil {
			return denied(what, "mount it for writing, and let the agent's user write there: chown -R, chmod u+w "+ask.Folder, unwritten, ask)
		}
	}
	switch {
	case errors.Is(err, store.ErrExist):
		return Good(what, "it refuses to replace an object")
	case err == nil:
		return Bad(what, "use a store that honours If-None-Match: backups at the same time could undo each other here", "it replaced an object that was there")
	case errors.Is(err, store.ErrDenied):
		return denied(what, "give the agent's credentials s3:PutObject", err, ask)
	default:
		return Bad(what, storeNext(err), "%v", err)
	}
}

// denied is a store that this host may not write to: a fault if backups go there, and
// good enough to restore from.
func denied(what, next string, err error, ask StoreAsk) control.Check {
	if ask.Backups {
		return Bad(what, next+": until then there are no backups, only restores", "it does not let this host write: %v", err)
	}
	return Warning(what, next+": without it there are no backups, only restores", "it does not let this host write: %v", err)
}

// tryFolder writes a file as a backup does, and removes it; and asks for the folder that
// backups write into.
func tryFolder(root string) error {
	place := filepath.Join(root, ".tmp") // where the store has what it has not yet put
	if _, err := os.Stat(place); err != nil {
		place = root
	}
	if err := tryFile(place); err != nil {
		return err
	}
	items := filepath.Join(root, "items")
	if _, err := os.Stat(items); err != nil {
		return nil // the first backup makes it
	}
	if err := writable(items); err != nil {
		return fmt.Errorf("write to %s: %w", items, err)
	}
	return nil
}

// lock looks at whether an object that backups put is under retention, where the
// configuration asks for it.
func lock(ctx context.Context, st store.Store, newest store.Key, ask StoreAsk) control.Check {
	const what = "object lock"
	if newest == "" {
		return Skipped(what, "nothing is there yet that a lock could be on")
	}
	r, ok := st.(store.Retainer)
	if !ok {
		return Bad(what, ask.Lock.Next, "this kind of store has none, and the config asks for it")
	}
	until, err := r.RetainedUntil(ctx, newest)
	switch {
	case err != nil:
		return Bad(what, ask.Lock.Next, "%v", err)
	case until.IsZero():
		return Bad(what, "if the lock is new in the config, make a backup; else "+ask.Lock.Next, "%s is under no retention, and the config asks for it", newest)
	case until.Before(ask.Now):
		return Warning(what, "make a backup: it extends what it leans on", "the retention of %s ended %s", newest, until.UTC().Format(time.DateOnly))
	}
	return Good(what, "what is put is kept until %s", until.UTC().Format(time.DateOnly))
}

// LockNext says what to do about a vault whose store, at a URL, cannot keep what its lock
// asks for.
func LockNext(vault, url string) string {
	leave := fmt.Sprintf("; or leave vaults.%s.lock out of the config", vault)
	if strings.HasPrefix(url, "file:") {
		return fmt.Sprintf("have vaults.%s.store on ext4, xfs or btrfs of this machine, and run the agent as root or with CAP_LINUX_IMMUTABLE; or use a bucket with object lock", vault) + leave
	}
	return fmt.Sprintf("turn on object lock for the bucket of vaults.%s.store, which many servers can only when it is made (mc mb --with-lock), "+
		"and let the credentials s3:GetObjectRetention and s3:PutObjectRetention", vault) + leave
}

// StoreNext is what to do about a store that is not there.
const StoreNext = "mount it, or correct the vault's store in the config; only a new vault needs a new folder or bucket"

// storeNext says what to do about an error of a store.
func storeNext(err error) string {
	for _, known := range []struct {
		is   error
		next string
	}{
		{store.ErrMissing, StoreNext},
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
