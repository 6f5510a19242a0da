//go:build linux

package proof_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/proof"
	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/backup/source"
	sourcefiles "github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/restore/target"
	targetfiles "github.com/cofferbackup/coffer/restore/target/files"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/mem"
	"github.com/cofferbackup/coffer/store/pack"
)

// bench is an item with one point, and the folder that it was made of.
type bench struct {
	*testing.T
	item   *catalog.Item
	index  *sqlite.Index
	point  *catalog.Point
	dir    string
	source source.Source
	store  *mem.Store
	base   string // the scratch folder
	spoil  func(folder string)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t, dir: filepath.Join(t.TempDir(), "data"), base: filepath.Join(t.TempDir(), "scratch")}
	b.store = mem.New(mem.Config{})
	v, err := catalog.Create(t.Context(), b.store, catalog.CreateOptions{Mode: catalog.SoftwareKeys, Ring: kek.NewRing(kektest.NewKey(t)), Now: time.Now()})
	b.check(err)
	t.Cleanup(v.Close)
	b.item, err = v.CreateItem(t.Context(), "etc", time.Now())
	b.check(err)
	b.index, err = sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "index"), Logger: slog.New(slog.DiscardHandler)})
	b.check(err)
	t.Cleanup(func() { b.index.Close() })
	b.sample()
	// Taken in the past, so that no file is too young to be known as unchanged.
	later := func() time.Time { return time.Now().Add(time.Hour) }
	b.source, err = sourcefiles.New(sourcefiles.Config{Paths: []string{b.dir}, Clock: later})
	b.check(err)
	b.point, err = backup.Run(t.Context(), backup.Config{Item: b.item, Packs: b.store, Index: b.index, Source: b.source,
		Host: "test", Agent: "test", Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	b.check(err)
	return b
}

func (b *bench) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// sample has something of everything that a proof compares.
func (b *bench) sample() {
	put := func(name string, data []byte, mode os.FileMode) {
		path := filepath.Join(b.dir, name)
		b.check(os.MkdirAll(filepath.Dir(path), 0o755))
		b.check(os.WriteFile(path, data, 0o600))
		b.check(os.Chmod(path, mode))
	}
	random := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{7}).Read(random)
	put("small", []byte("small"), 0o644)
	put("empty", nil, 0o640)
	put("big", random, 0o600)
	put("secret/closed", []byte("no mode at all"), 0)
	put("holes", append(append(slices.Clone(random[:1<<20]), make([]byte, 1<<20)...), random[:100]...), 0o600)
	b.check(os.Link(filepath.Join(b.dir, "small"), filepath.Join(b.dir, "link")))
	b.check(os.Symlink("small", filepath.Join(b.dir, "symlink")))
	b.check(syscall.Mkfifo(filepath.Join(b.dir, "fifo"), 0o600))
	b.check(syscall.Setxattr(filepath.Join(b.dir, "big"), "user.note", []byte("x"), 0))
	b.check(os.Chmod(filepath.Join(b.dir, "secret"), 0o500))
	b.Cleanup(func() { os.Chmod(filepath.Join(b.dir, "secret"), 0o700) })
}

// spoiled is a target whose folder somebody changes when the restore is finished.
type spoiled struct {
	target.Target
	folder string
	spoil  func(string)
}

type spoiledSink struct {
	target.Sink
	spoiled
}

func (s spoiled) Open(ctx context.Context, opts target.Options) (target.Sink, error) {
	sink, err := s.Target.Open(ctx, opts)
	return spoiledSink{sink, s}, err
}

func (s spoiledSink) Finish(ctx context.Context) error {
	err := s.Sink.Finish(ctx)
	s.spoil(s.folder)
	return err
}

func (b *bench) scratch() *proof.Scratch {
	return &proof.Scratch{Dir: b.base, Owner: "me", Run: "now", Target: func(path string) (target.Target, error) {
		t, err := targetfiles.New(targetfiles.Config{Path: path})
		if b.spoil == nil || path == b.base {
			return t, err
		}
		return spoiled{t, path, b.spoil}, err
	}}
}

func (b *bench) prove(src source.Source) ([]proof.Finding, *proof.Progress, error) {
	done := new(proof.Progress)
	findings, err := proof.Restore(b.Context(), proof.Config{Point: b.point, Reader: b.item.NewReader(b.index), Scratch: b.scratch(),
		Source: src, Progress: done})
	return findings, done, err
}

// empty wants nothing to be left in the scratch folder.
func (b *bench) empty() {
	b.Helper()
	left, err := os.ReadDir(b.base)
	if err != nil && !os.IsNotExist(err) {
		b.Fatal(err)
	}
	for _, e := range left {
		b.Errorf("%s is left in the scratch folder", e.Name())
	}
}

// TestProof: a point that is right is restored, compared with itself and its source, and
// leaves nothing behind.
func TestProof(t *testing.T) {
	b := newBench(t)
	findings, done, err := b.prove(b.source)
	b.check(err)
	for _, f := range findings {
		t.Errorf("%s: %v", f.Path, f.Err)
	}
	if done.Compared.Load() != 6 || done.Source.Load() != 6 || done.Bytes.Load() < 3<<20 {
		t.Errorf("%d files compared, %d with the source, %d bytes", done.Compared.Load(), done.Source.Load(), done.Bytes.Load())
	}
	b.empty()
}

// TestDamagedPack: a point whose packs are damaged, cut off or gone is found not to come
// back, and the proof of it ends as any other.
func TestDamagedPack(t *testing.T) {
	for name, spoil := range map[string]func(b *bench, key store.Key) error{
		"flipped": func(b *bench, key store.Key) error {
			return b.store.Tamper(key, func(raw []byte) []byte { raw[len(raw)/2] ^= 1; return raw })
		},
		"cut": func(b *bench, key store.Key) error {
			return b.store.Tamper(key, func(raw []byte) []byte { return raw[:len(raw)/2] })
		},
		"cut to nothing": func(b *bench, key store.Key) error {
			return b.store.Tamper(key, func([]byte) []byte { return nil })
		},
		"gone": func(b *bench, key store.Key) error { return b.store.Delete(b.Context(), key) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for _, id := range b.point.Packs {
				b.check(spoil(b, pack.Key(b.item.ID(), id)))
			}
			findings, done, err := b.prove(nil)
			b.check(err)
			if len(findings) == 0 || done.Faults.Load() != uint64(len(findings)) {
				t.Errorf("%d findings, %d faults", len(findings), done.Faults.Load())
			}
			b.empty()
		})
	}
}

// TestEveryDifference: whatever does not come back as it was is found, by its path, and
// nothing else.
func TestEveryDifference(t *testing.T) {
	b := newBench(t)
	at := func(folder, name string) string { return filepath.Join(folder, b.dir, name) }
	// still puts the times back, so that one thing differs and no other.
	still := func(folder, name string, change func(path string)) {
		path := at(folder, name)
		info, err := os.Lstat(path)
		b.check(err)
		parent, err := os.Lstat(filepath.Dir(path))
		b.check(err)
		change(path)
		_ = os.Chtimes(path, info.ModTime(), info.ModTime()) // if it is still there
		b.check(os.Chtimes(filepath.Dir(path), parent.ModTime(), parent.ModTime()))
	}
	write := func(path string, off int64, data string) {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		b.check(err)
		_, err = f.WriteAt([]byte(data), off)
		b.check(errors.Join(err, f.Close()))
	}
	for name, test := range map[string]struct {
		path  string
		spoil func(folder string)
	}{
		"a wrong byte":   {"big", func(f string) { still(f, "big", func(p string) { write(p, 2<<20, "x") }) }},
		"a filled hole":  {"holes", func(f string) { still(f, "holes", func(p string) { write(p, 3<<19, "x") }) }},
		"cut off":        {"big", func(f string) { still(f, "big", func(p string) { b.check(os.Truncate(p, 100)) }) }},
		"gone":           {"empty", func(f string) { still(f, "empty", func(p string) { b.check(os.Remove(p)) }) }},
		"mode":           {"big", func(f string) { b.check(os.Chmod(at(f, "big"), 0o644)) }},
		"time":           {"big", func(f string) { b.check(os.Chtimes(at(f, "big"), time.Unix(1, 0), time.Unix(1, 0))) }},
		"time of folder": {"", func(f string) { b.check(os.Chtimes(at(f, ""), time.Unix(1, 0), time.Unix(1, 0))) }},
		"attribute":      {"big", func(f string) { b.check(syscall.Setxattr(at(f, "big"), "user.note", []byte("y"), 0)) }},
		"symlink": {"symlink", func(f string) {
			still(f, "symlink", func(p string) { b.check(errors.Join(os.Remove(p), os.Symlink("other", p))) })
		}},
		"another kind": {"fifo", func(f string) {
			still(f, "fifo", func(p string) { b.check(errors.Join(os.Remove(p), os.WriteFile(p, nil, 0o600))) })
		}},
		"one too many": {"zzz", func(f string) { still(f, "big", func(string) { b.check(os.WriteFile(at(f, "zzz"), nil, 0o600)) }) }},
	} {
		t.Run(name, func(t *testing.T) {
			b := *b
			b.T, b.spoil = t, test.spoil
			findings, _, err := b.prove(b.source)
			b.check(err)
			want := filepath.Join(b.dir, test.path)
			found := false
			for _, f := range findings {
				found = found || f.Path == want
				if f.Path != want && !(name == "symlink" && strings.HasSuffix(f.Path, "symlink")) {
					t.Errorf("%s: %v", f.Path, f.Err)
				}
			}
			if !found {
				t.Errorf("nothing is said of %s", want)
			}
			b.empty()
		})
	}
}

// TestHardLinkIsFound: a second name that has become a copy is found.
func TestHardLinkIsFound(t *testing.T) {
	b := newBench(t)
	b.spoil = func(folder string) {
		path := filepath.Join(folder, b.dir, "small")
		info, err := os.Stat(path)
		b.check(err)
		data, err := os.ReadFile(path)
		b.check(err)
		b.check(errors.Join(os.Remove(path), os.WriteFile(path, data, 0o644), os.Chmod(path, 0o644), os.Chtimes(path, info.ModTime(), info.ModTime())))
	}
	findings, _, err := b.prove(nil)
	b.check(err)
	if !slices.ContainsFunc(findings, func(f proof.Finding) bool { return strings.Contains(f.Err.Error(), "hard link") }) {
		t.Errorf("found are %v", findings)
	}
}

// lying is a source that says that a file has not changed, and reads otherwise: what a
// backup that stored the wrong bytes looks like.
type lying struct{ source.Source }
type lyingSession struct{ source.Session }
type lyingDir struct{ under }

// under is source.Dir by another name: it has a method Dir.
type under = source.Dir
type lyingFile struct {
	source.File
	read int
}

func (s lying) Open(ctx context.Context, report func(source.Skip)) (source.Session, error) {
	session, err := s.Source.Open(ctx, report)
	return lyingSession{session}, err
}

func (s lyingSession) Root() source.Dir { return lyingDir{s.Session.Root()} }

func (d lyingDir) Dir(ctx context.Context, name string) (source.Dir, error) {
	sub, err := d.under.Dir(ctx, name)
	return lyingDir{sub}, err
}

func (d lyingDir) Open(ctx context.Context, name string) (source.File, error) {
	f, err := d.under.Open(ctx, name)
	if name == "big" {
		f = &lyingFile{File: f}
	}
	return f, err
}

func (f *lyingFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if f.read += n; n > 0 && f.read > 1<<20 {
		p[n-1] ^= 1
	}
	return n, err
}

// TestSourceTellsOfWrongBytes: bytes that the vault has had wrong from the beginning are
// found, since the source has not changed since; a file that has changed says nothing.
func TestSourceTellsOfWrongBytes(t *testing.T) {
	b := newBench(t)
	findings, _, err := b.prove(lying{b.source})
	b.check(err)
	if len(findings) != 1 || findings[0].Path != filepath.Join(b.dir, "big") || !strings.Contains(findings[0].Err.Error(), "source") {
		t.Errorf("found are %v", findings)
	}
	b.check(os.WriteFile(filepath.Join(b.dir, "big"), []byte("another"), 0o600))
	findings, done, err := b.prove(b.source)
	b.check(err)
	if len(findings) > 0 || done.Source.Load() != 5 {
		t.Errorf("%d files compared with the source, found are %v", done.Source.Load(), findings)
	}
}

// TestCleanTakesOnlyItsOwn: what an agent before left behind goes, whatever its mode;
// what others have there stays.
func TestCleanTakesOnlyItsOwn(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"coffer-proof-me-before-1/deep/er", "coffer-proof-me-now-2", "coffer-proof-other-before-3", "somebody's"} {
		b.check(os.MkdirAll(filepath.Join(b.base, name), 0o700))
	}
	b.check(os.WriteFile(filepath.Join(b.base, "coffer-proof-me-before-1/deep/file"), nil, 0o400))
	b.check(os.Chmod(filepath.Join(b.base, "coffer-proof-me-before-1/deep"), 0))
	b.check(b.scratch().Clean(t.Context()))
	entries, err := os.ReadDir(b.base)
	b.check(err)
	left := make(map[string]bool)
	for _, e := range entries {
		left[e.Name()] = true
	}
	if want := map[string]bool{"coffer-proof-me-now-2": true, "coffer-proof-other-before-3": true, "somebody's": true}; !maps.Equal(left, want) {
		t.Errorf("left are %v", left)
	}
}

// TestCancelledLeavesNothing: a proof that is stopped takes away what it restored.
func TestCancelledLeavesNothing(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.spoil = func(string) { cancel() }
	_, err := proof.Restore(ctx, proof.Config{Point: b.point, Reader: b.item.NewReader(b.index), Scratch: b.scratch()})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	b.empty()
}

// TestNoRoom: a point that is larger than what is free is refused before anything is
// written.
func TestNoRoom(t *testing.T) {
	b := newBench(t)
	b.check(os.MkdirAll(b.base, 0o700))
	if err := syscall.Mount("tmpfs", b.base, "tmpfs", 0, "size=1m"); err != nil {
		testkit.Missing(t, "a small file system", "mount tmpfs: "+err.Error()+": run as root")
	}
	defer syscall.Unmount(b.base, 0)
	_, _, err := b.prove(nil)
	if !errors.Is(err, proof.ErrSpace) {
		t.Errorf("it ended with %v", err)
	}
	b.empty()
}
