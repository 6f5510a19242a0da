package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// archive writes a folder, with its name, as a .tar.gz or .zip in which everything is
// root's, of one time, and in the order of its name.
func archive(file, dir string, at time.Time) (err error) {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if strings.HasSuffix(file, ".zip") {
		z := zip.NewWriter(out)
		return errors.Join(walk(dir, func(name, path string, info fs.FileInfo) error { return addZip(z, name, path, info, at) }), z.Close())
	}
	g, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(g)
	return errors.Join(walk(dir, func(name, path string, info fs.FileInfo) error { return addTar(t, name, path, info, at) }), t.Close(), g.Close())
}

// walk calls add for all folders and files below dir, by name.
func walk(dir string, add func(name, path string, info fs.FileInfo) error) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !info.IsDir() && !info.Mode().IsRegular() {
			return fmt.Errorf("%s is neither a folder nor a file", path)
		}
		rel, err := filepath.Rel(filepath.Dir(dir), path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if info.IsDir() {
			name += "/"
		}
		return add(name, path, info)
	})
}

// mode is 0755 for folders and what can be run, and 0644 for the rest, whatever the
// umask was.
func mode(info fs.FileInfo) fs.FileMode {
	if info.Mode().Perm()&0o100 != 0 {
		return 0o755
	}
	return 0o644
}

func addTar(t *tar.Writer, name, path string, info fs.FileInfo, at time.Time) error {
	h := &tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: int64(mode(info)), ModTime: at, Uname: "root", Gname: "root", Format: tar.FormatUSTAR}
	if !info.IsDir() {
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
	}
	if err := t.WriteHeader(h); err != nil || info.IsDir() {
		return err
	}
	return copyFile(t, path)
}

func addZip(z *zip.Writer, name, path string, info fs.FileInfo, at time.Time) error {
	h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: at}
	h.SetMode(mode(info) | info.Mode()&fs.ModeDir)
	w, err := z.CreateHeader(h)
	if err != nil || info.IsDir() {
		return err
	}
	return copyFile(w, path)
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// sums writes SHA256SUMS, which sha256sum -c reads.
func sums(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range files {
		if !e.Type().IsRegular() || e.Name() == "SHA256SUMS" {
			continue
		}
		h := sha256.New()
		if err := copyFile(h, filepath.Join(dir, e.Name())); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", h.Sum(nil), e.Name())
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(b.String()), 0o644)
}
