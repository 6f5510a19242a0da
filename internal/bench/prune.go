//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/prune"
	"github.com/cofferbackup/coffer/backup"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/internal/bench/report"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/dir"
)

// The case p prunes an item of a million chunks. No other program is beside it: what
// counts is how long a prune takes, how much of the vault it reads, and its memory.
const (
	pruneCase   = "p"
	pruneDir    = 1000 // files in a folder
	prunePoints = 40   // each changes one file in a hundred
	pruneKept   = 7
)

// prunePhase is a part of the case. Each runs in a process of its own.
type prunePhase string

const (
	phaseBuild  prunePhase = "build"
	phaseMark   prunePhase = "mark"
	phaseSweep  prunePhase = "sweep and repack"
	phaseAfter  prunePhase = "sweep after it"
	phaseNormal prunePhase = "nothing to do"
)

// phaseResult is what a phase says of itself.
type phaseResult struct {
	Wall           time.Duration
	Read, Requests int64
	Packs, Chunks  int64
	Points         int
	Prune          prune.Result
	Bytes          int64 // in the vault
}

// runPrune runs the case and returns its block.
func runPrune(ctx context.Context, o options) (_ string, err error) {
	home := filepath.Join(o.dir, "prune")
	if err := os.RemoveAll(home); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	if err := os.MkdirAll(home, 0o700); err != nil {
		return "", err
	}
	built, err := runPhase(ctx, o, home, phaseBuild)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d files, %d chunks in %d packs, %.2f GB stored; %d points, each with one file in a hundred changed; retention last %d.\n",
		o.pruneFiles, built.Chunks, built.Packs, float64(built.Bytes)/1e9, built.Points, pruneKept)
	fmt.Fprintf(&b, "%d cores, %s; one run; made by `make bench` on %s.\n\n", runtime.NumCPU(), memory(), time.Now().Format(time.DateOnly))
	b.WriteString("| run | wall | CPU | peak memory | read | requests | freed | what it did |\n|---|--:|--:|--:|--:|--:|--:|---|\n")
	for _, phase := range []prunePhase{phaseMark, phaseSweep, phaseAfter, phaseNormal} {
		r, err := runPhase(ctx, o, home, phase)
		if err != nil {
			return "", err
		}
		b.WriteString(phaseRow(phase, r))
	}
	return b.String(), nil
}

// measuredPhase is a phase and what its process used.
type measuredPhase struct {
	phaseResult
	report.Sample
}

func phaseRow(phase prunePhase, r measuredPhase) string {
	p := r.Prune
	did := fmt.Sprintf("%d points and %d packs marked, %d points and %d packs removed, %d packs rewritten",
		p.MarkedPoints, p.MarkedPacks, p.RemovedPoints, p.RemovedPacks, p.RepackedPacks)
	return fmt.Sprintf("| %s | %.2f s | %.2f s | %d MiB | %.1f MB | %d | %.1f MB | %s |\n", phase, r.phaseResult.Wall.Seconds(), r.CPU.Seconds(),
		(r.Peak+1<<19)>>20, float64(r.Read)/1e6, r.Requests, float64(p.FreedBytes)/1e6, did)
}

// runPhase runs a phase in a child, so that its memory is its own.
func runPhase(ctx context.Context, o options, home string, phase prunePhase) (measuredPhase, error) {
	self, err := os.Executable()
	if err != nil {
		return measuredPhase{}, err
	}
	out := filepath.Join(home, "result.json")
	sample, err := command{argv: []string{self, "-dir", o.dir, "-keep", "-prune-files", fmt.Sprint(o.pruneFiles), "-pruning", string(phase)}, keep: out}.run(ctx)
	if err != nil {
		return measuredPhase{}, err
	}
	m := measuredPhase{Sample: sample}
	b, err := os.ReadFile(out)
	if err == nil {
		err = json.Unmarshal(b, &m.phaseResult)
	}
	if err != nil {
		return m, fmt.Errorf("%s: %w", phase, err)
	}
	fmt.Fprintf(os.Stderr, "prune  %-18s %7.2f s wall %7.2f s CPU %5d MiB %8.1f MB read in %d requests\n",
		phase, m.phaseResult.Wall.Seconds(), sample.CPU.Seconds(), sample.Peak>>20, float64(m.Read)/1e6, m.Requests)
	return m, nil
}

// pruneBench is the vault of the case, as a phase uses it.
type pruneBench struct {
	home  string
	ring  *kek.Ring
	store *counted
	vault *catalog.Vault
	item  *catalog.Item
	index *sqlite.Index
}

// doPhase is the work of the child. It says what it did on standard output.
func doPhase(ctx context.Context, o options, phase prunePhase) error {
	p := &pruneBench{home: filepath.Join(o.dir, "prune")}
	if err := p.open(ctx, phase == phaseBuild); err != nil {
		return err
	}
	defer p.close()
	var r phaseResult
	begin := time.Now()
	var err error
	if phase == phaseBuild {
		err = p.build(ctx, o.pruneFiles, &r)
	} else {
		err = p.prune(ctx, &r)
	}
	if err != nil {
		return err
	}
	r.Wall, r.Read, r.Requests = time.Since(begin), p.store.read.Load(), p.store.requests.Load()
	return json.NewEncoder(os.Stdout).Encode(r)
}

func (p *pruneBench) open(ctx context.Context, create bool) error {
	uri := "file://" + filepath.Join(p.home, "kek.pem")
	root, id := filepath.Join(p.home, "vault"), filepath.Join(p.home, "id")
	if create {
		if err := errors.Join(software.Create(ctx, uri, software.CreateOptions{Bits: 2048}), dir.Create(root)); err != nil {
			return err
		}
	}
	key, err := software.Open(ctx, "bench", uri)
	if err != nil {
		return err
	}
	p.ring = kek.NewRing(key)
	st, err := dir.Open(root)
	if err != nil {
		return err
	}
	p.store = &counted{Store: st}
	if create {
		p.vault, err = catalog.Create(ctx, p.store, catalog.CreateOptions{Mode: catalog.SoftwareKeys, Ring: p.ring, Now: time.Now()})
		if err == nil {
			err = os.WriteFile(id, []byte(p.vault.ID().String()), 0o600)
		}
	} else {
		var text []byte
		var pinned crypt.VaultID
		if text, err = os.ReadFile(id); err == nil {
			pinned, err = crypt.ParseVaultID(string(text))
		}
		if err == nil {
			p.vault, err = catalog.Open(ctx, p.store, catalog.OpenOptions{ID: pinned, Ring: p.ring})
		}
	}
	if err != nil {
		return err
	}
	if p.item, err = p.vault.CreateItem(ctx, "data", time.Now()); err != nil {
		return err
	}
	p.index, err = sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(p.home, "index"), Logger: slog.Default()})
	return err
}

func (p *pruneBench) close() {
	if p.index != nil {
		p.index.Close()
	}
	if p.vault != nil {
		p.vault.Close()
	}
}

// build makes the points.
func (p *pruneBench) build(ctx context.Context, files int, r *phaseResult) error {
	src := &tinySource{dirs: files / pruneDir, files: pruneDir}
	for n := range prunePoints {
		src.turn = n
		if _, err := backup.Run(ctx, backup.Config{Item: p.item, Packs: p.store, Index: p.index, Source: src,
			Host: "bench", Agent: "bench", Clock: time.Now, Log: slog.Default()}); err != nil {
			return fmt.Errorf("backup %d: %w", n, err)
		}
		fmt.Fprintf(os.Stderr, "prune  point %d of %d\n", n+1, prunePoints)
	}
	var err error
	if r.Packs, r.Chunks, err = p.index.Counts(ctx); err != nil {
		return err
	}
	r.Points = prunePoints
	r.Bytes, err = bytesIn(filepath.Join(p.home, "vault"))
	return err
}

// prune is one run, with the local index that the host has, brought up.
func (p *pruneBench) prune(ctx context.Context, r *phaseResult) error {
	if _, err := p.item.Sync(ctx, p.index); err != nil {
		return err
	}
	var err error
	r.Prune, err = prune.Run(ctx, prune.Config{Item: p.item, Store: p.store, Index: p.index, Retention: &policy.Retention{Last: pruneKept},
		Abandon: 24 * time.Hour, RepackBelow: 50, RepackMost: 10 << 30, Host: "bench", Clock: time.Now, Log: slog.Default()})
	return err
}

// counted is a store that counts what is asked of it.
type counted struct {
	store.Store
	read, requests atomic.Int64
}

func (c *counted) Get(ctx context.Context, key store.Key, b []byte, off int64) error {
	c.requests.Add(1)
	c.read.Add(int64(len(b)))
	return c.Store.Get(ctx, key, b, off)
}

func (c *counted) Stat(ctx context.Context, key store.Key) (store.Info, error) {
	c.requests.Add(1)
	return c.Store.Stat(ctx, key)
}

func (c *counted) Put(ctx context.Context, key store.Key, body store.Body, opts store.PutOptions) error {
	c.requests.Add(1)
	return c.Store.Put(ctx, key, body, opts)
}

func (c *counted) Delete(ctx context.Context, key store.Key) error {
	c.requests.Add(1)
	return c.Store.Delete(ctx, key)
}
