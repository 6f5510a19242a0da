//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"

	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog/tree"
)

// tinySource is a source of many small files that are in no file system, so that forty
// points of a million of them are made in minutes. In each turn one file in a hundred
// changes, whichever.
type tinySource struct {
	dirs, files int // in each
	turn        int
}

func (s *tinySource) Kind() string { return "files" }

func (s *tinySource) Open(context.Context, func(source.Skip)) (source.Session, error) {
	return tinySession{s}, nil
}

type tinySession struct{ *tinySource }

func (s tinySession) Root() source.Dir                          { return tinyDir{s.tinySource, -1} }
func (s tinySession) Owners() (users, groups map[uint32]string) { return nil, nil }
func (s tinySession) Finish(context.Context) error              { return nil }
func (s tinySession) Close() error                              { return nil }

// tinyDir is one of the folders, or with number -1 the folder of all.
type tinyDir struct {
	*tinySource
	number int
}

func (d tinyDir) Names(context.Context) ([]string, error) {
	n := d.files
	if d.number < 0 {
		n = d.dirs
	}
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%06d", i)
	}
	return names, nil
}

func (d tinyDir) Stat(_ context.Context, name string, prev *tree.Node) (*tree.Node, bool, error) {
	if d.number < 0 {
		return &tree.Node{Name: name, Type: tree.Dir, Mode: 0o700}, false, nil
	}
	f, err := d.file(name)
	if err != nil {
		return nil, false, err
	}
	if prev != nil && prev.MTime == f.node.MTime {
		return prev, true, nil
	}
	return f.node, false, nil
}

// file makes a file as it is in this turn.
func (d tinyDir) file(name string) (*tinyFile, error) {
	i, err := strconv.Atoi(name)
	if err != nil {
		return nil, err
	}
	// The last turn in which it changed.
	number, turn := uint64(d.number*d.files+i), d.turn
	for turn > 0 && rand.New(rand.NewPCG(number, uint64(turn))).IntN(100) != 0 {
		turn--
	}
	rng := rand.New(rand.NewPCG(number, uint64(turn)<<32))
	data := make([]byte, 20+rng.IntN(880))
	for at := range data {
		data[at] = byte(rng.Uint32())
	}
	return &tinyFile{Reader: bytes.NewReader(data), node: &tree.Node{Name: name, Type: tree.File, Mode: 0o600,
		MTime: tree.Time{Sec: int64(turn)}, Size: uint64(len(data))}}, nil
}

func (d tinyDir) Dir(_ context.Context, name string) (source.Dir, error) {
	i, err := strconv.Atoi(name)
	return tinyDir{d.tinySource, i}, err
}

func (d tinyDir) Open(_ context.Context, name string) (source.File, error) { return d.file(name) }
func (d tinyDir) Close() error                                             { return nil }

type tinyFile struct {
	*bytes.Reader
	node *tree.Node
	read bool
}

func (f *tinyFile) NextData() (off, length int64, err error) {
	if f.read {
		return int64(f.node.Size), 0, io.EOF
	}
	f.read = true
	return 0, int64(f.node.Size), nil
}

func (f *tinyFile) Changed() (*tree.Node, bool, error) { return f.node, false, nil }
func (f *tinyFile) Rewind() error                      { return errors.ErrUnsupported }
func (f *tinyFile) Close() error                       { return nil }
