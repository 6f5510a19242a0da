//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// compare fails unless got holds the directories and regular files of want with
// the same names, bytes, modes and times, and nothing else.
func compare(want, got string) error {
	count := 0
	err := filepath.WalkDir(want, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		count++
		rel, err := filepath.Rel(want, path)
		if err != nil {
			return err
		}
		return compareEntry(path, filepath.Join(got, rel))
	})
	if err != nil {
		return fmt.Errorf("compare what was restored: %w", err)
	}
	extra := -count
	err = filepath.WalkDir(got, func(_ string, _ fs.DirEntry, err error) error {
		extra++
		return err
	})
	if err == nil && extra != 0 {
		err = fmt.Errorf("compare what was restored: %d entries too many", extra)
	}
	return err
}

func compareEntry(want, got string) error {
	w, err := os.Lstat(want)
	if err != nil {
		return err
	}
	g, err := os.Lstat(got)
	switch {
	case err != nil:
		return err
	case w.Mode() != g.Mode():
		return fmt.Errorf("%s has mode %s, want %s", got, g.Mode(), w.Mode())
	case !w.ModTime().Equal(g.ModTime()):
		return fmt.Errorf("%s is of %s, want %s", got, g.ModTime(), w.ModTime())
	case !w.Mode().IsRegular():
		return nil
	case w.Size() != g.Size():
		return fmt.Errorf("%s has %d bytes, want %d", got, g.Size(), w.Size())
	}
	return compareBytes(want, got)
}

func compareBytes(want, got string) error {
	w, err := os.Open(want)
	if err != nil {
		return err
	}
	defer w.Close()
	g, err := os.Open(got)
	if err != nil {
		return err
	}
	defer g.Close()
	a, b := make([]byte, 1<<17), make([]byte, 1<<17)
	for {
		n, errW := io.ReadFull(w, a)
		m, errG := io.ReadFull(g, b)
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			return fmt.Errorf("%s differs from %s", got, want)
		}
		if end(errW) && end(errG) {
			return nil
		}
		if err := errors.Join(errW, errG); err != nil {
			return err
		}
	}
}

func end(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
