// Package corpus makes the data that the benchmark backs up: a tree of source
// files, a file of random bytes, a disk image with programs on it and a tree of
// tiny files.
//
// Invariants:
//   - The same seed on the same machine gives the same data, byte for byte.
//   - Nothing is read but regular files below the roots that the caller names.
//   - No two files of a tree are equal, so a program that deduplicates whole
//     files gains nothing by it.
package corpus

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Stats says what was made.
type Stats struct {
	Files int
	Bytes int64 // sum of the files' lengths; for an image the bytes put into it
	Note  string
}

// source returns the random source of a seed. ChaCha8 is the same on every
// machine and in every Go release.
func source(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// Random writes size random bytes to path.
func Random(ctx context.Context, path string, size int64, seed uint64) (Stats, error) {
	f, err := os.Create(path)
	if err != nil {
		return Stats{}, err
	}
	defer f.Close()
	src := source(seed)
	buf := make([]byte, 1<<20)
	for left := size; left > 0; {
		if err := ctx.Err(); err != nil {
			return Stats{}, err
		}
		n := min(left, int64(len(buf)))
		if _, err := src.Read(buf[:n]); err != nil {
			return Stats{}, err
		}
		if _, err := f.Write(buf[:n]); err != nil {
			return Stats{}, fmt.Errorf("write random bytes: %w", err)
		}
		left -= n
	}
	return Stats{Files: 1, Bytes: size}, f.Close()
}

// Tiny makes files of 20 to 900 bytes, spread evenly over dirs directories:
// short records of words and numbers, as a mail store or a cache would have.
func Tiny(ctx context.Context, dir string, files, dirs int, seed uint64) (Stats, error) {
	rnd := rand.New(source(seed))
	words := vocabulary(rnd, 2000)
	st := Stats{Files: files}
	for d := range dirs {
		if err := ctx.Err(); err != nil {
			return st, err
		}
		sub := filepath.Join(dir, fmt.Sprintf("d%04d", d))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return st, err
		}
		for i := d; i < files; i += dirs {
			b := record(rnd, words, i)
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("%07d.rec", i)), b, 0o644); err != nil {
				return st, err
			}
			st.Bytes += int64(len(b))
		}
	}
	return st, nil
}

func vocabulary(rnd *rand.Rand, n int) []string {
	words := make([]string, n)
	for i := range words {
		w := make([]byte, 2+rnd.IntN(9))
		for j := range w {
			w[j] = 'a' + byte(rnd.IntN(26))
		}
		words[i] = string(w)
	}
	return words
}

// record returns 20 to 900 bytes that start with the number, so that no two are
// equal.
func record(rnd *rand.Rand, words []string, number int) []byte {
	size := 20 + rnd.IntN(881)
	b := fmt.Appendf(make([]byte, 0, size+16), "id=%d ", number)
	for len(b) < size {
		b = append(b, words[rnd.IntN(len(words))]...)
		b = append(b, ' ')
	}
	return b[:size]
}

// copyFile copies the content of from to a new file and returns its length.
func copyFile(to, from string, mode os.FileMode) (int64, error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	n, err := io.Copy(out, bufio.NewReaderSize(in, 1<<20))
	if err != nil {
		return n, fmt.Errorf("copy %s: %w", from, err)
	}
	return n, out.Close()
}
