package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cofferbackup/coffer/internal/durable"
)

// TestFlipped: whatever bit of a sealed file changes, or wherever it ends, it is not taken
// for another: it is set aside, as it is.
func TestFlipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	const object = `{"epochs": {"vault/1": 7, "docs/12": 3}, "name": "x"}`
	must(t, durable.WriteSealed(path, []byte(object+"\n")))
	good, err := os.ReadFile(path)
	must(t, err)
	if got, err := durable.ReadSealed(path); err != nil || string(got) != object {
		t.Fatalf("it is %q, %v", got, err)
	}
	damaged := func(bad []byte) {
		t.Helper()
		must(t, os.WriteFile(path, bad, 0o600))
		got, err := durable.ReadSealed(path)
		if !errors.Is(err, durable.ErrDamaged) || !errors.Is(err, durable.ErrState) {
			t.Fatalf("%q is taken for %q, %v", bad, got, err)
		}
		if aside, err := os.ReadFile(path + durable.AsideSuffix); err != nil || string(aside) != string(bad) {
			t.Fatalf("aside is %q, %v, not %q", aside, err, bad)
		}
		if _, err := durable.ReadSealed(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("then there is %v", err)
		}
	}
	for bit := range len(good) * 8 {
		bad := slices.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		damaged(bad)
	}
	for n := range len(good) {
		damaged(good[:n])
		damaged(append(slices.Clone(good[:n]), make([]byte, len(good)-n)...))
	}
}

// TestUnsealed: a file of before there were checksums is read, and so is an empty object.
func TestUnsealed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, object := range []string{"{}", `{"a":1}`, "{\n  \"local\": \"pkvo55ckod7j6w6usfdpa4kncpe2qbou\"\n}"} {
		must(t, os.WriteFile(path, []byte(object), 0o600))
		for range 2 { // as it was, and as it is written now
			got, err := durable.ReadSealed(path)
			if err != nil || string(got) != object {
				t.Errorf("%q is %q, %v", object, got, err)
			}
			must(t, durable.WriteSealed(path, got))
		}
	}
}

// TestUpdate: a file is replaced over and over, and there is its spare.
func TestUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"one", "a longer one", "two", ""} {
		must(t, durable.Update(path, []byte(text)))
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("it is %q, %v, not %q", got, err, text)
		}
	}
	if err := durable.Update(filepath.Join(path, "in a file"), nil); !errors.Is(err, durable.ErrState) {
		t.Errorf("where there is no folder: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
