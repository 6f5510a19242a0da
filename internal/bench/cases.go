//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cofferbackup/coffer/internal/bench/corpus"
)

// A step is one thing that is measured.
type step string

const (
	first     step = "first backup"
	unchanged step = "unchanged backup"
	restored  step = "restore"
	verified  step = "verify"
	oneFile   step = "one file"
)

// benchCase is one kind of data.
type benchCase struct {
	name  string
	title string
	steps []step
	path  string // of one file below the data, for the step one file
	build func(ctx context.Context, dir string) (corpus.Stats, error)
}

func caseNamed(name string) (benchCase, bool) {
	all := []step{first, unchanged, restored, verified}
	switch name {
	case "a":
		return benchCase{name: name, title: "60,000 small source files, 1.5 GB", steps: all, build: buildTree}, true
	case "b":
		return benchCase{name: name, title: "2 GiB of random bytes in one file", steps: all, build: buildRandom}, true
	case "c":
		return benchCase{name: name, title: "8 GiB sparse ext4 image with 4.7 GB of programs", steps: all, build: buildImage}, true
	case "d":
		return benchCase{name: name, title: "1,000,000 files of 20 to 900 bytes in 1,000 directories",
			steps: append(all, oneFile), path: "d0417/0123417.rec", build: buildTiny}, true
	}
	return benchCase{}, false
}

func buildTree(ctx context.Context, dir string) (corpus.Stats, error) {
	env, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		return corpus.Stats{}, fmt.Errorf("go env: %w", err)
	}
	roots := append(strings.Fields(string(env)), "/usr/include", "/usr/lib", "/usr/share")
	return corpus.Tree(ctx, dir, corpus.TreeOptions{Roots: roots, Files: 60_000, Bytes: 1_500_000_000, Seed: 1})
}

func buildRandom(ctx context.Context, dir string) (corpus.Stats, error) {
	return corpus.Random(ctx, filepath.Join(dir, "random.bin"), 2<<30, 2)
}

func buildImage(ctx context.Context, dir string) (corpus.Stats, error) {
	env, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return corpus.Stats{}, fmt.Errorf("go env: %w", err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return corpus.Stats{}, err
	}
	roots := []string{"/usr/bin", "/usr/sbin", "/usr/lib", strings.TrimSpace(string(env)), "/opt",
		filepath.Join(home, ".rustup"), filepath.Join(home, ".cache/coffer-tools"), "/usr/share"}
	return corpus.Image(ctx, filepath.Join(dir, "disk.img"), corpus.ImageOptions{Roots: roots, Size: 8 << 30, Bytes: 4_700_000_000})
}

func buildTiny(ctx context.Context, dir string) (corpus.Stats, error) {
	return corpus.Tiny(ctx, dir, 1_000_000, 1000, 4)
}

// dataDir is where the data of c lies.
func dataDir(o options, c benchCase) string { return filepath.Join(o.dir, "data-"+c.name) }

// makeData makes the data of one case. A file beside it says that it is
// complete and what it is.
func makeData(ctx context.Context, o options, name string) error {
	c, ok := caseNamed(name)
	if !ok {
		return fmt.Errorf("no case %q", name)
	}
	dir := dataDir(o, c)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	st, err := c.build(ctx, dir)
	if err != nil {
		return err
	}
	// borg reads the newest file of a set again each time, in case it changed
	// within the clock's tick. It shall not be the disk image.
	if err := os.WriteFile(filepath.Join(dir, "newest"), []byte("the newest file\n"), 0o644); err != nil {
		return err
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return os.WriteFile(dir+".json", b, 0o644)
}

// prepare has the data of c made if it is not there. A child process does it, so
// that its memory does not count as that of the programs started afterwards (a
// child begins with the peak of its parent).
func prepare(ctx context.Context, o options, c benchCase) (corpus.Stats, error) {
	var st corpus.Stats
	b, err := os.ReadFile(dataDir(o, c) + ".json")
	if err != nil {
		self, err := os.Executable()
		if err != nil {
			return st, err
		}
		fmt.Fprintf(os.Stderr, "%s: making the data\n", c.name)
		child := exec.CommandContext(ctx, self, "-dir", o.dir, "-make", c.name)
		child.Stderr = os.Stderr
		if err := child.Run(); err != nil {
			return st, fmt.Errorf("make data: %w", err)
		}
		if b, err = os.ReadFile(dataDir(o, c) + ".json"); err != nil {
			return st, err
		}
	}
	return st, json.Unmarshal(b, &st)
}

// discard removes the data of c.
func discard(o options, c benchCase) error {
	if o.keep {
		return nil
	}
	if err := os.Remove(dataDir(o, c) + ".json"); err != nil {
		return err
	}
	return os.RemoveAll(dataDir(o, c))
}
