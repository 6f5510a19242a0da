package state_test

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/internal/durable"
)

func open(t *testing.T, dir string) *state.Folder {
	t.Helper()
	s, err := state.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRemembered: what one start keeps the next one knows, and only one agent at a time
// has the folder.
func TestRemembered(t *testing.T) {
	dir, id := t.TempDir(), crypt.VaultID{1, 2, 3}
	s := open(t, dir)
	if _, err := state.Open(dir, slog.New(slog.DiscardHandler)); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("a second agent got %v", err)
	}
	used := keyring.Version{Fingerprint: "f1", Since: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)}
	for _, err := range []error{
		s.Pin("site", id), s.Use("main", used),
		s.SetLinks("site", []string{"file:///mnt/kek.pem"}), s.SetOpeners("site", []string{"f1", "f2"}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s = open(t, dir)
	defer s.Close()
	if got, ok := s.ID("site"); !ok || got != id {
		t.Errorf("the vault's id is %s, %t", got, ok)
	}
	if _, ok := s.ID("other"); ok {
		t.Error("a vault that nobody made has an id")
	}
	if got := s.Used("main"); len(got) != 1 || got[0] != used {
		t.Errorf("used were %+v", got)
	}
	if got := s.Links("site"); !slices.Equal(got, []string{"file:///mnt/kek.pem"}) {
		t.Errorf("linked are %q", got)
	}
	if got := s.Openers("site"); !slices.Equal(got, []string{"f1", "f2"}) {
		t.Errorf("what opens it is %q", got)
	}
}

// TestFloors: the newest epochs are kept from one start to the next, also those that were
// seen before the vault had a place for them. A damaged file is set aside, and that is
// told; one that cannot be read is an error.
func TestFloors(t *testing.T) {
	dir, id, log := t.TempDir(), crypt.VaultID{7}, slog.New(slog.DiscardHandler)
	s := open(t, dir)
	made := state.NewFloors(log)
	made.Raise("vault", 1, 3)
	if err := s.KeepFloors(id, made); err != nil {
		t.Fatal(err)
	}
	made.Flush()
	s.Close()
	s = open(t, dir)
	defer s.Close()
	f, err := s.Floors(id, log)
	if err != nil {
		t.Fatal(err)
	}
	f.Raise("vault", 1, 2) // an older one lowers nothing
	if got := f.Floor("vault", 1); got != 3 {
		t.Errorf("the floor is %d, want 3", got)
	}
	if got := f.Floor("vault", 2); got != 0 {
		t.Errorf("the floor of a generation that was never seen is %d", got)
	}
	path := s.Path("floors", id.String()+".json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.Aside(); len(got) > 0 {
		t.Errorf("before it was read: %+v", got)
	}
	if f, err = s.Floors(id, log); err != nil || f.Floor("vault", 1) != 0 {
		t.Errorf("of a damaged file: %v", err)
	}
	if got := s.Aside(); len(got) != 1 || got[0].Subject != state.Subject || !strings.Contains(got[0].Message, path+" was damaged") || !strings.Contains(got[0].Next, "recovery sheet") {
		t.Errorf("of a damaged file is told: %+v", got)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Floors(id, log); !errors.Is(err, durable.ErrState) {
		t.Errorf("a file that cannot be read is taken for an empty one, so that nothing put back would be noticed: %v", err)
	}
}
