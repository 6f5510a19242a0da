//go:build linux

package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/internal/durable"
	"github.com/cofferbackup/coffer/store/pack"
)

// failing is an index whose disk fails after so many lookups.
type failing struct {
	vault.Index
	left *atomic.Int64
}

func (f failing) Lookup(ctx context.Context, id chunk.ID) (pack.Location, bool, error) {
	if f.left.Add(-1) < 0 {
		return pack.Location{}, false, &durable.Fault{Path: "index", Err: fmt.Errorf("look up chunk in index: %w", syscall.EIO)}
	}
	return f.Index.Lookup(ctx, id)
}

// TestIndexFailsUnderRestore: wherever in a restore the local index fails, it is whole, and
// the job says what became of the index. A backup is not made then.
func TestIndexFailsUnderRestore(t *testing.T) {
	b := furnished(t)
	for _, dir := range []string{"one", "one/two", "one/two/three"} { // a chunk each
		must(t, os.Mkdir(b.path("docs", dir), 0o700))
		must(t, os.WriteFile(b.path("docs", dir, "letter.txt"), []byte("Dear "+dir), 0o600))
	}
	b.done(b.Backup(t.Context(), control.BackupRequest{Item: "docs"}))
	b.stop()
	left := new(atomic.Int64)
	b.indexed = func(x vault.Index) vault.Index { return failing{x, left} }
	lookups := 0
	for n := int64(0); ; n++ {
		left.Store(n)
		b.start()
		back := b.path(fmt.Sprint("back", n))
		j := b.done(b.Restore(t.Context(), control.RestoreRequest{Item: "docs", Target: back}))
		for _, name := range []string{"letter0.txt", "letter1.txt", "letter2.txt", "one/letter.txt", "one/two/letter.txt", "one/two/three/letter.txt"} {
			name = b.path("docs", name)
			want, err := os.ReadFile(name)
			must(t, err)
			if got, err := os.ReadFile(filepath.Join(back, name)); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("after %d lookups %s is not what it was: %v", n, name, err)
			}
		}
		if left.Load() >= 0 {
			break // it was done before
		}
		lookups++
		if !warned(b, j.ID, "in memory") {
			t.Errorf("after %d lookups the job does not say that the index failed", n)
		}
		b.stop()
	}
	if lookups < 5 {
		t.Errorf("a restore has %d lookups", lookups)
	}
	left.Store(0)
	must(t, os.WriteFile(b.path("docs", "letter0.txt"), []byte("Dear me"), 0o600))
	b.stop()
	b.start()
	if j := b.wait(b.Backup(t.Context(), control.BackupRequest{Item: "docs"})); j.State != control.JobFailed || j.Error == nil || !strings.Contains(j.Error.Next, "state folder") {
		t.Errorf("a backup that has no index %s: %+v", j.State, j.Error)
	}
}

// warned tells whether a job warned of something.
func warned(b *bench, id int64, of string) bool {
	b.Helper()
	for e, err := range b.Events(context.Background(), id, 0) {
		if err != nil {
			b.Fatal(err)
		}
		if e.Note != nil && e.Note.Level == "warning" && strings.Contains(e.Note.Message, of) {
			return true
		}
	}
	return false
}
