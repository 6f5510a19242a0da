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
	"time"

	"github.com/cofferbackup/coffer/agent"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/backup/source"
	sourcefiles "github.com/cofferbackup/coffer/backup/source/files"
	"github.com/cofferbackup/coffer/backup/source/stream"
	"github.com/cofferbackup/coffer/catalog/sqlite"
	"github.com/cofferbackup/coffer/kek/keyvault"
	"github.com/cofferbackup/coffer/kek/pkcs11"
	"github.com/cofferbackup/coffer/restore/target"
	targetfiles "github.com/cofferbackup/coffer/restore/target/files"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/dir"
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
}

// newParts returns what opens the things that a configuration names, and what
// closes that which they share.
func newParts(log *slog.Logger, clock func() time.Time) (agent.Parts, func()) {
	w := &wiring{log: log, clock: clock, tokens: pkcs11.NewPool(pkcs11.Config{Log: log, Now: clock}), clouds: keyvault.NewPool()}
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
		Source: w.source, Target: w.target, Index: w.index,
	}, closeParts
}

func (w *wiring) openStore(ctx context.Context, url string) (store.Store, error) {
	st, err := w.bareStore(ctx, url)
	if err != nil {
		return nil, err
	}
	return patient{retry.New(st, retry.Config{Notify: func(tries int, err error, wait time.Duration) {
		w.log.Warn("store does not answer, trying again", "store", url, "tries", tries, "wait", wait.Round(time.Millisecond), "err", err)
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

func (w *wiring) bareStore(ctx context.Context, url string) (store.Store, error) {
	switch scheme, _, _ := strings.Cut(url, ":"); scheme {
	case "file":
		root, err := dir.ParseURL(url)
		if err != nil {
			return nil, err
		}
		return dir.Open(root)
	case "s3":
		cfg, err := s3.ParseURL(url)
		if err != nil {
			return nil, err
		}
		return s3.Open(ctx, cfg)
	}
	return nil, fmt.Errorf("store %q is neither file:///FOLDER nor s3://HOST/BUCKET", url)
}

func (w *wiring) makeStore(ctx context.Context, url string) (store.Store, error) {
	if root, err := dir.ParseURL(url); err == nil {
		if err := dir.Create(root); err != nil {
			return nil, err
		}
	}
	return w.openStore(ctx, url)
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

func (w *wiring) index(ctx context.Context, path string) (agent.Index, error) {
	return sqlite.Open(ctx, sqlite.Config{Path: path, Logger: w.log})
}
