package main

import (
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // a host without zone files keeps the times of its policies

	"github.com/cofferbackup/coffer/agent"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/backup/source"
	sourcefiles "github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/backup/source/stream"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/internal/throttle"
	"github.com/cofferbackup/coffer/kek/keyvault"
	"github.com/cofferbackup/coffer/kek/pkcs11"
	"github.com/cofferbackup/coffer/restore/target"
	targetfiles "github.com/cofferbackup/coffer/restore/target/files"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/dir"
	"github.com/cofferbackup/coffer/store/limit"
	"github.com/cofferbackup/coffer/store/retry"
	"github.com/cofferbackup/coffer/store/s3"
)

// This file is the only one that names implementations: one switch per kind.

func withFIPS() bool { return fips140.Enabled() }

// wiring is what the parts share.
type wiring struct {
	log    *slog.Logger
	clock  func() time.Time
	tokens *pkcs11.Pool
	clouds *keyvault.Pool

	readOnly bool // stores are only looked at

	mu     sync.Mutex
	limits map[string]limits // by URL

	retries sync.Map // of *atomic.Int64, by URL
}

// openToRead opens a store that is only looked at.
func openToRead(ctx context.Context, log *slog.Logger, clock func() time.Time, url string) (*patient, error) {
	w := &wiring{log: log, clock: clock, readOnly: true, limits: make(map[string]limits)}
	return w.patient(ctx, config.Vault{Store: url})
}

// newParts returns what opens the things that a configuration names, and what
// closes that which they share.
func newParts(log *slog.Logger, clock func() time.Time) (agent.Parts, func()) {
	w := &wiring{log: log, clock: clock, tokens: pkcs11.NewPool(pkcs11.Config{Log: log, Now: clock}), clouds: keyvault.NewPool(),
		limits: make(map[string]limits)}
	closeParts := func() {
		if err := w.tokens.Close(); err != nil {
			log.Warn("tokens not closed", "err", err)
		}
		if err := w.clouds.Close(); err != nil {
			log.Warn("connections to Key Vault not closed", "err", err)
		}
	}
	return agent.Parts{
		Store: w.openStore, MakeStore: w.makeStore, Key: w.openKey, Escrow: w.openEscrow, MakeKey: w.makeKey, CheckKey: w.checkKey,
		Source: w.source, Target: w.target, Index: w.index, RemoveIndex: sqlite.Remove, Secret: readSecret, Retries: w.retried,
	}, closeParts
}

// limits are what all stores of one URL keep to.
type limits struct{ upload, download *throttle.Limiter }

// limitsOf returns the limits of a store, and has them as they are said now.
func (w *wiring) limitsOf(url string, cfg config.Limits) limits {
	w.mu.Lock()
	defer w.mu.Unlock()
	l, ok := w.limits[url]
	if !ok {
		l = limits{throttle.New(throttle.Config{Now: w.clock}), throttle.New(throttle.Config{Now: w.clock})}
		w.limits[url] = l
	}
	l.upload.SetRate(int64(cfg.Upload))
	l.download.SetRate(int64(cfg.Download))
	return l
}

func (w *wiring) openStore(ctx context.Context, vault config.Vault) (store.Store, error) {
	st, err := w.patient(ctx, vault)
	if err != nil {
		return nil, err
	}
	return st, nil
}

func (w *wiring) patient(ctx context.Context, vault config.Vault) (*patient, error) {
	st, err := w.bareStore(ctx, vault.Store, w.limitsOf(vault.Store, vault.Limits))
	if err != nil {
		return nil, err
	}
	return &patient{retry.New(st, retry.Config{Notify: func(tries int, err error, wait time.Duration) {
		w.retriesOf(vault.Store).Add(1)
		w.log.Warn("store does not answer, trying again", "store", vault.Store, "tries", tries, "wait", wait.Round(time.Millisecond), "err", err)
	}}), st}, nil
}

// patient is a store with patience, and all that it can do, that can be closed.
type patient struct {
	*retry.Store
	inner store.Store
}

func (p patient) Close() error {
	if c, ok := p.inner.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (w *wiring) bareStore(ctx context.Context, url string, l limits) (store.Store, error) {
	switch scheme, _, _ := strings.Cut(url, ":"); scheme {
	case "file":
		root, err := dir.ParseURL(url)
		if err != nil {
			return nil, err
		}
		st, err := dir.OpenWith(dir.Config{Root: root, Now: w.clock, ReadOnly: w.readOnly})
		if err != nil {
			return nil, err
		}
		return limit.New(st, limit.Config{Upload: l.upload.Wait, Download: l.download.Wait}), nil
	case "s3":
		cfg, err := s3.ParseURL(url)
		if err != nil {
			return nil, err
		}
		cfg.Now, cfg.Upload, cfg.Download = w.clock, l.upload.Wait, l.download.Wait
		return s3.Open(ctx, cfg)
	}
	e := &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf("store %q is neither file:///FOLDER nor s3://HOST/BUCKET", url)}
	if strings.HasPrefix(url, "/") {
		e.Next = "for a folder, write file://" + url
	} else {
		e.Next = "write the store as the vault's recovery sheet has it"
	}
	return nil, e
}

func (w *wiring) makeStore(ctx context.Context, vault config.Vault) (store.Store, error) {
	if root, err := dir.ParseURL(vault.Store); err == nil {
		if err := dir.Create(root); err != nil {
			return nil, err
		}
	}
	return w.openStore(ctx, vault)
}

func (w *wiring) source(item config.Item, name string, data agent.Stream) (source.Source, error) {
	switch {
	case data != nil:
		if name == "" && item.Stream != nil {
			name = item.Stream.Name
		}
		return stream.New(stream.Config{Name: name, Reader: data, Clock: w.clock})
	case item.Files != nil:
		return sourcefiles.New(sourcefiles.Config{
			Paths: item.Files.Paths, Exclude: item.Files.Exclude, ExcludeFiles: item.Files.ExcludeFiles,
			OneFileSystem: item.Files.OneFilesystem, SkipCacheDirs: item.Files.SkipCacheDirs,
			MaxFileSize: uint64(item.Files.MaxFileSize), Clock: w.clock,
		})
	case item.Stream != nil && len(item.Stream.Command) > 0:
		return stream.New(stream.Config{Name: item.Stream.Name, Command: item.Stream.Command, Env: item.Stream.Env, Dir: item.Stream.Dir, Clock: w.clock})
	case item.Stream != nil:
		return nil, &control.Error{Code: control.CodeBadRequest, Message: "the item is a stream without a command",
			Next: "send it the data: coffer backup ITEM --stdin, or give it stream.command in the config"}
	}
	return nil, errors.New("the item has no source")
}

func (w *wiring) target(path string) (target.Target, error) {
	return targetfiles.New(targetfiles.Config{Path: filepath.Clean(path)})
}

func (w *wiring) index(ctx context.Context, path string) (vault.Index, error) {
	return sqlite.Open(ctx, sqlite.Config{Path: path, Logger: w.log})
}
