//go:build !linux

package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/backup/source/files/ignore"
	"github.com/cofferbackup/coffer/catalog/tree"
)

// dir is a directory by what every system has: names, types, permissions, sizes
// and mtimes. There is no ctime; the mtime stands for it. OneFileSystem and the
// owners, holes and attributes of files are not known here.
type dir struct {
	s     *session
	parts []string
	place place
	lacks bool // a child was left out
}

func (s *session) openTop(context.Context) (*dir, error) {
	return &dir{s: s, place: place{at: s.picks, whole: s.picks.root}}, nil
}

func (d *dir) native(name string) string { return join(append(slices.Clone(d.parts), name)) }

func (d *dir) path(names ...string) string {
	return "/" + strings.Join(append(slices.Clone(d.parts), names...), "/")
}

func (d *dir) Names(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !d.place.whole {
		return d.place.at.names(), nil
	}
	entries, err := os.ReadDir(join(d.parts))
	if err != nil {
		return nil, fmt.Errorf("list directory: %w", reason(err))
	}
	var names []string
	tag := false
	for _, e := range entries {
		tag = tag || e.Name() == tagName
		if d.keeps(e) {
			names = append(names, e.Name())
		} else {
			d.lacks = true
		}
	}
	if tag && d.s.cfg.SkipCacheDirs && !d.place.at.isRoot() && d.tagged() {
		d.s.note(d.path(), "cache directory (CACHEDIR.TAG)")
		d.place.whole = false
		names = append(d.place.at.names(), tagName)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (d *dir) keeps(e fs.DirEntry) bool {
	if d.place.at.child(e.Name()) != nil {
		return true
	}
	kind := ignore.Other
	switch {
	case e.Type()&fs.ModeSocket != 0:
		d.s.note(d.path(e.Name()), isSocket)
		return false
	case e.IsDir():
		kind = ignore.Dir
	}
	return !d.s.exclude.Match(d.place.below, e.Name(), kind)
}

const (
	tagName      = "CACHEDIR.TAG"
	tagSignature = "Signature: 8a477f597d28d172789f06886806bc55"
)

func (d *dir) tagged() bool {
	f, err := os.Open(d.native(tagName))
	if err != nil {
		return false
	}
	defer f.Close()
	buf := make([]byte, len(tagSignature))
	_, err = io.ReadFull(f, buf)
	return err == nil && string(buf) == tagSignature
}

func (d *dir) Stat(_ context.Context, name string, prev *tree.Node) (*tree.Node, bool, error) {
	path := d.native(name)
	stat := os.Lstat
	if d.place.follows(name) || len(d.parts) == 0 && filepath.VolumeName(name) != "" {
		stat = os.Stat
	}
	info, err := stat(path)
	if err != nil {
		return nil, false, failed("stat", err)
	}
	node := d.s.node(info, name)
	node.Partial = node.Type == tree.Dir && !d.child(name).whole
	switch limit := d.s.cfg.MaxFileSize; {
	case node.Type == 0:
		d.lacks = true
		d.s.note(d.path(name), isSocket)
		return nil, false, source.ErrSkipped
	case node.Type == tree.File && limit > 0 && node.Size > limit:
		d.lacks = true
		d.s.note(d.path(name), overLimit(node.Size, limit))
		return nil, false, source.ErrSkipped
	}
	if prev != nil && node.Type == tree.File && prev.Type == node.Type && prev.Size == node.Size &&
		prev.MTime == node.MTime && prev.CTime == node.MTime && !prev.Changing {
		return prev, true, nil
	}
	if node.Type == tree.Symlink {
		if node.Target, err = os.Readlink(path); err != nil {
			return nil, false, failed("read symlink", err)
		}
	}
	return node, false, nil
}

func (s *session) node(info fs.FileInfo, name string) *tree.Node {
	t := info.ModTime()
	node := &tree.Node{
		Name:  name,
		Mode:  uint32(info.Mode().Perm()),
		MTime: tree.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())},
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		node.Type = tree.File
		node.Size = uint64(info.Size())
		if !s.racy(node.MTime, node.MTime) {
			node.CTime = node.MTime
		}
	case mode.IsDir():
		node.Type = tree.Dir
	case mode&fs.ModeSymlink != 0:
		node.Type = tree.Symlink
	case mode&fs.ModeNamedPipe != 0:
		node.Type = tree.FIFO
	}
	return node
}

func (d *dir) Dir(ctx context.Context, name string) (source.Dir, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &dir{s: d.s, parts: append(slices.Clone(d.parts), name), place: d.child(name)}, nil
}

func (d *dir) child(name string) place {
	return d.place.child(name, func() bool { return !d.s.exclude.Match(d.place.below, name, ignore.Dir) })
}

// Partial implements source.Partial.
func (d *dir) Partial() bool { return !d.place.whole || d.lacks }

func (d *dir) Open(ctx context.Context, name string) (source.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h, err := os.Open(d.native(name))
	if err != nil {
		return nil, failed("open", err)
	}
	f := &file{s: d.s, name: name, File: h}
	if err := f.Rewind(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return f, nil
}

func (d *dir) Close() error { return nil }

func failed(doing string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return source.ErrVanished
	}
	return fmt.Errorf("%s: %w", doing, reason(err))
}

// file is one range of data from the beginning to the end.
type file struct {
	*os.File
	s    *session
	name string
	was  fs.FileInfo
	read bool
}

func (f *file) NextData() (off, length int64, err error) {
	if f.read || f.was.Size() == 0 {
		return f.was.Size(), 0, io.EOF
	}
	f.read = true
	return 0, -1, nil
}

func (f *file) Changed() (*tree.Node, bool, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("stat: %w", reason(err))
	}
	return f.s.node(info, f.name), info.Size() != f.was.Size() || !info.ModTime().Equal(f.was.ModTime()), nil
}

func (f *file) Rewind() error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat: %w", reason(err))
	}
	if !info.Mode().IsRegular() {
		return errors.New("open: it is no longer a regular file")
	}
	f.was, f.read = info, false
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("rewind: %w", reason(err))
	}
	return nil
}
