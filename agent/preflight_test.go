//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/kek"
)

// TestOneGenerationMissing has an item whose first generation hangs on one key, and
// its second, which shares no chunk with it, on another. Without either key the
// points of the other generation restore, and those of its own name it.
func TestOneGenerationMissing(t *testing.T) {
	for missing, keeps := range map[string]int{"main": 1, "spare": 0} {
		t.Run("without "+missing, func(t *testing.T) {
			b := furnished(t)
			b.stop()
			b.configure(strings.Replace(twoKeys, "items:", `custody: {rules: {minimum_bits: {bits: 4096, effect: deny}}} # no rotation mends it
items:
  late: {vault: both, files: {paths: [$DIR/late]}}`, 1))
			must(t, os.Mkdir(b.path("late"), 0o700))
			letter := b.path("late", "letter.txt")
			must(t, os.WriteFile(letter, []byte("of the first generation"), 0o600))
			it, err := opened(t, b, "both", "main", "main").CreateItem(t.Context(), "late", b.clock.Now())
			must(t, err)
			it.Close()
			b.start()
			b.done(b.Backup(t.Context(), control.BackupRequest{Item: "late"}))
			b.stop()
			b.clock.advance(time.Second)
			must(t, opened(t, b, "both", "main", "spare").NewGeneration(t.Context(), "late", b.clock.Now()))
			must(t, os.WriteFile(letter, []byte("and of the second one"), 0o600))
			must(t, os.Chmod(b.path("late"), 0o750))
			b.start()
			b.done(b.Backup(t.Context(), control.BackupRequest{Item: "late", FullRead: true}))
			points, err := b.listed("late")
			must(t, err)
			b.stop()
			must(t, os.RemoveAll(b.path("state", "index"))) // it is made anew from what opens
			b.keys.breaks(missing, fmt.Errorf("%w: destroyed", kek.ErrMissing))
			b.start()
			b.idle()
			for i, p := range points {
				target := b.path(fmt.Sprint("back", i))
				j, err := b.Restore(t.Context(), control.RestoreRequest{Item: "late", Point: p.ID, Target: target})
				if i == keeps {
					b.done(j, err)
					if _, err := os.Stat(filepath.Join(target, letter)); err != nil {
						t.Error(err)
					}
					continue
				}
				b.refused(err, control.CodeKeysInaccessible)
				if needs := control.AsError(err).Needs; len(needs) != 1 || !strings.Contains(needs[0], missing+".pem") {
					t.Errorf("it needs %q", needs)
				}
				if _, err := os.Stat(target); err == nil {
					t.Error("a refused restore touched its target")
				}
			}
		})
	}
}
