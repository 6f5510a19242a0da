//go:build !linux

package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/restore/target"
)

// sink restores what every system has: directories, files and symlinks with
// permissions and times. What is written cannot leave the target (os.Root).
type sink struct {
	opts target.Options
	top  *os.Root
	temp atomic.Uint32

	mu    sync.Mutex
	files map[*file]struct{}
}

func open(cfg Config, opts target.Options) (*sink, error) {
	if err := os.MkdirAll(cfg.Path, 0o700); err != nil {
		return nil, err
	}
	return openThere(cfg, opts)
}

func openThere(cfg Config, opts target.Options) (*sink, error) {
	top, err := os.OpenRoot(cfg.Path)
	if err != nil {
		return nil, err
	}
	s := &sink{opts: opts, top: top, files: make(map[*file]struct{})}
	s.temp.Store(rand.Uint32())
	return s, nil
}

func (s *sink) Root() target.Dir { return s.viewRoot() }

func (s *sink) viewRoot() viewer {
	root, err := s.top.OpenRoot(".")
	return &dir{s: s, root: root, broken: err}
}

func (s *sink) Finish(ctx context.Context) error { return ctx.Err() }

func (s *sink) Close() error {
	s.mu.Lock()
	open := s.files
	s.files = make(map[*file]struct{})
	s.mu.Unlock()
	for f := range open {
		f.discard()
	}
	return s.top.Close()
}

type dir struct {
	s      *sink
	parent *dir
	name   string
	root   *os.Root
	broken error
}

func (d *dir) path(name string) string {
	for ; d.parent != nil; d = d.parent {
		name = d.name + "/" + name
	}
	return name
}

func (d *dir) check(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return d.broken
}

func (d *dir) Look(name string) (*tree.Node, error) {
	if err := d.check(name); err != nil {
		return nil, err
	}
	info, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := info.ModTime()
	node := &tree.Node{Name: name, Mode: uint32(info.Mode().Perm()), MTime: tree.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		node.Type, node.Size = tree.File, uint64(info.Size())
	case mode.IsDir():
		node.Type = tree.Dir
	case mode&fs.ModeSymlink != 0:
		node.Type = tree.Symlink
		node.Target, err = d.root.Readlink(name)
	}
	return node, err
}

func (d *dir) Names() ([]string, error) {
	if d.broken != nil {
		return nil, d.broken
	}
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// enter opens a directory that is there and is no symlink to one.
func (d *dir) enter(name string) (*dir, error) {
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open directory: %w", target.ErrInTheWay)
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return &dir{s: d.s, parent: d, name: name, root: root}, nil
}

func (d *dir) view(name string) (viewer, error) {
	if err := d.check(name); err != nil {
		return nil, err
	}
	return d.enter(name)
}

func (d *dir) Dir(name string) (target.Dir, error) {
	if err := d.check(name); err != nil {
		return nil, err
	}
	if err := d.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return d.enter(name)
}

func (d *dir) Existing(name string) (target.Existing, error) {
	there, err := d.Look(name)
	if err != nil {
		return nil, err
	}
	if there != nil && there.Type != tree.File {
		return nil, fmt.Errorf("open: %w", target.ErrInTheWay)
	}
	return d.root.Open(name)
}

// vacate makes room for name: nothing is to be lost before, so it comes last.
func (d *dir) vacate(name string) error {
	info, err := d.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && info.IsDir():
		return target.ErrInTheWay
	}
	return err
}

func (d *dir) Make(node *tree.Node) error {
	if err := d.check(node.Name); err != nil {
		return err
	}
	if node.Type != tree.Symlink {
		return fmt.Errorf("make %s: %w", node.Type, errors.ErrUnsupported)
	}
	temp := d.s.tempName()
	if err := d.root.Symlink(node.Target, temp); err != nil {
		return err
	}
	return d.place(temp, node.Name)
}

// place renames what is complete, or removes it.
func (d *dir) place(temp, name string) error {
	err := d.vacate(name)
	if err == nil {
		err = d.root.Rename(temp, name)
	}
	if err != nil {
		err = errors.Join(err, d.root.Remove(temp))
	}
	return err
}

func (d *dir) Link(name string, from target.Dir, old string) error {
	src, ok := from.(*dir)
	if !ok {
		return errors.ErrUnsupported
	}
	if err := errors.Join(d.check(name), src.check(old)); err != nil {
		return err
	}
	if err := d.vacate(name); err != nil {
		return err
	}
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.s.top.Link(src.path(old), d.path(name))
}

func (d *dir) SetMeta(node *tree.Node) error {
	there, err := d.Look(node.Name)
	if err != nil {
		return err
	}
	if there == nil || there.Type != node.Type {
		return fmt.Errorf("set metadata: %w", target.ErrInTheWay)
	}
	return setMeta(d.root, node.Name, node)
}

func setMeta(root *os.Root, name string, node *tree.Node) error {
	mtime := time.Unix(node.MTime.Sec, int64(node.MTime.Nsec))
	return errors.Join(root.Chtimes(name, time.Time{}, mtime), root.Chmod(name, fs.FileMode(node.Mode).Perm()))
}

func (d *dir) Remove(name string) error {
	if err := d.check(name); err != nil {
		return err
	}
	return d.root.RemoveAll(name)
}

func (d *dir) Finish(node *tree.Node) error {
	if d.broken != nil {
		return d.broken
	}
	var err error
	if node != nil {
		err = setMeta(d.root, ".", node)
	}
	d.broken = fmt.Errorf("directory: %w", errClosed)
	return errors.Join(err, d.root.Close())
}

type file struct {
	*os.File
	d    *dir
	node *tree.Node
	temp string
}

func (s *sink) tempName() string { return fmt.Sprintf(".coffer-%08x.tmp", s.temp.Add(1)) }

func (d *dir) Create(node *tree.Node) (target.File, error) {
	if err := d.check(node.Name); err != nil {
		return nil, err
	}
	f := &file{d: d, node: node, temp: d.s.tempName()}
	var err error
	if f.File, err = d.root.OpenFile(f.temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.s.files[f] = struct{}{}
	return f, nil
}

func (f *file) take() bool {
	f.d.s.mu.Lock()
	defer f.d.s.mu.Unlock()
	_, ok := f.d.s.files[f]
	delete(f.d.s.files, f)
	return ok
}

func (f *file) Reuse(old target.Existing, off, length int64) error {
	buf := make([]byte, min(length, 256<<10))
	for length > 0 {
		p := buf[:min(int64(len(buf)), length)]
		if n, err := old.ReadAt(p, off); n < len(p) {
			return fmt.Errorf("reuse: %w", err)
		}
		if _, err := f.WriteAt(p, off); err != nil {
			return err
		}
		off, length = off+int64(len(p)), length-int64(len(p))
	}
	return nil
}

func (f *file) Commit() error {
	if !f.take() {
		return fmt.Errorf("commit: %w", errClosed)
	}
	err := errors.Join(f.Truncate(int64(f.node.Size)), f.File.Close())
	if err != nil {
		return errors.Join(err, f.d.root.Remove(f.temp))
	}
	if err := setMeta(f.d.root, f.temp, f.node); err != nil {
		return errors.Join(err, f.d.root.Remove(f.temp))
	}
	return f.d.place(f.temp, f.node.Name)
}

func (f *file) Abort() {
	if f.take() {
		f.discard()
	}
}

func (f *file) discard() {
	_ = f.File.Close()
	_ = f.d.root.Remove(f.temp)
}
