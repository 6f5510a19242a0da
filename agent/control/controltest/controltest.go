// Package controltest is an agent for tests of what talks to one: a
// control.Backend that answers from its fields and plays jobs from a script.
package controltest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// Backend is a control.Backend. Its fields are set before it is used.
type Backend struct {
	Now       time.Time // of all that happens
	Host      string
	VaultList []control.Vault
	ItemList  []control.Item
	PointList []control.Point
	KeyList   []control.Key
	Files     []control.Entry     // of every point
	Bytes     map[string][]byte   // content of every point, by path
	Breaks    map[string]error    // what Content fails with after the bytes, by path
	Differ    []control.DiffEntry // between any two points
	Problems  []control.Problem
	Config    control.ConfigReport
	Reports   map[string]control.KeyReport  // by key; one that is not here passes
	Usages    map[string]control.KeyUsage   // by key
	Warnings  []string                      // of every vault that is made
	Erasures  map[string]control.ItemErased // by item
	Audit     control.AuditReport
	// PolicyList is told with Explained, by policy.
	PolicyList []control.Policy
	Explained  map[string]control.Explanation
	Diagnosis  control.Diagnosis
	Reload     control.ConfigReport
	// Script says what a job does, by its kind and item, or else vault. A job runs
	// when it is first followed; without a script it is done at once.
	Script func(kind, subject string) Play

	mu     sync.Mutex
	jobs   []*job
	asked  []any // requests that started jobs or changed something
	inputs map[int64][]byte
}

// Play is the course of a job.
type Play struct {
	Events []control.Event // Seq and Time are filled in
	Step   time.Duration   // between the times of two events
	// Waits says that after Events the job runs until it is cancelled or its input
	// has been read.
	Waits bool
	End   control.Job // the State, Result, Error, Progress, Skips and Output that it ends with
}

type job struct {
	control.Job
	play    Play
	played  bool
	events  []control.Event
	changed chan struct{} // closed and replaced at every change
}

var _ control.Backend = (*Backend)(nil)

func notFound(what, name, verb string) error {
	return &control.Error{
		Code: control.CodeNotFound, Message: fmt.Sprintf("there is no %s %q", what, name),
		Next: "list what there is: coffer " + verb,
	}
}

// Status implements control.System.
func (b *Backend) Status(ctx context.Context) (control.Status, error) {
	v, err := b.Version(ctx)
	return control.Status{
		Version: v, Host: b.Host, Started: b.Now.Add(-76 * time.Hour),
		Vaults: b.VaultList, Items: b.ItemList, Problems: b.Problems,
	}, err
}

// Version implements control.System.
func (b *Backend) Version(context.Context) (control.Version, error) {
	return control.Version{Version: "0.1.0", Go: "go1.26.8", Platform: "linux/amd64", PKCS11: true}, nil
}

// CheckConfig implements control.System: a text with "wrong" in it is wrong.
func (b *Backend) CheckConfig(_ context.Context, req control.ConfigCheck) (control.ConfigReport, error) {
	if strings.Contains(req.Text, "wrong") {
		return b.Config, nil
	}
	return control.ConfigReport{Vaults: len(b.VaultList), Items: len(b.ItemList)}, nil
}

// Vaults implements control.Vaults.
func (b *Backend) Vaults(context.Context) ([]control.Vault, error) { return b.VaultList, nil }

// Vault implements control.Vaults.
func (b *Backend) Vault(_ context.Context, name string) (control.Vault, error) {
	for _, v := range b.VaultList {
		if v.Name == name {
			return v, nil
		}
	}
	return control.Vault{}, notFound("vault", name, "vault list")
}

// CreateVault implements control.Vaults.
func (b *Backend) CreateVault(ctx context.Context, req control.VaultCreate) (control.VaultCreated, error) {
	v, err := b.Vault(ctx, req.Name)
	if err != nil {
		return control.VaultCreated{}, err
	}
	if v.State != control.StateAbsent {
		return control.VaultCreated{}, &control.Error{
			Code: control.CodeConflict, Message: fmt.Sprintf("vault %s exists already", req.Name),
			Next: "see it: coffer vault show " + req.Name,
		}
	}
	return control.VaultCreated{
		ID: "new-vault-id", Name: v.Name, Store: v.Store, RecoverySheet: "Recovery sheet of vault " + v.Name + "\n", Warnings: b.Warnings,
	}, nil
}

// Keys implements control.Keys.
func (b *Backend) Keys(context.Context) ([]control.Key, error) { return b.KeyList, nil }

// CreateKey implements control.Keys.
func (b *Backend) CreateKey(_ context.Context, req control.KeyCreate) (control.Key, error) {
	for _, k := range b.KeyList {
		if k.Name == req.Name {
			k.Bits, k.Error = max(req.Bits, 2048), nil
			if req.Hybrid {
				k.Algorithm = "RSA-OAEP-256+ML-KEM-768"
			}
			return k, nil
		}
	}
	return control.Key{}, notFound("key", req.Name, "key list")
}

// Items implements control.Items.
func (b *Backend) Items(context.Context) ([]control.Item, error) { return b.ItemList, nil }

// Item implements control.Items.
func (b *Backend) Item(_ context.Context, name string) (control.Item, error) {
	for _, i := range b.ItemList {
		if i.Name == name {
			return i, nil
		}
	}
	return control.Item{}, notFound("item", name, "item list")
}

// Points implements control.Points.
func (b *Backend) Points(ctx context.Context, req control.PointsRequest) iter.Seq2[control.Point, error] {
	return func(yield func(control.Point, error) bool) {
		if req.Item == "" {
			for _, it := range b.ItemList {
				for _, p := range b.pointsOf(it.Name, req.Last) {
					if !yield(p, nil) {
						return
					}
				}
			}
			return
		}
		if _, err := b.Item(ctx, req.Item); err != nil {
			yield(control.Point{}, err)
			return
		}
		for _, p := range b.pointsOf(req.Item, req.Last) {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// pointsOf are the points of an item, or the last ones.
func (b *Backend) pointsOf(item string, last int) []control.Point {
	var out []control.Point
	for _, p := range b.PointList {
		if p.Item == item {
			out = append(out, p)
		}
	}
	if last > 0 {
		out = out[max(0, len(out)-last):]
	}
	return out
}

// Point implements control.Points, for "latest" and ids alone.
func (b *Backend) Point(ctx context.Context, item, point string) (control.Point, error) {
	if _, err := b.Item(ctx, item); err != nil {
		return control.Point{}, err
	}
	for _, p := range slices.Backward(b.pointsOf(item, 0)) {
		if point == "latest" || p.ID == point {
			return p, nil
		}
	}
	return control.Point{}, notFound("point", point, "point list "+item)
}

// Entries implements control.Points.
func (b *Backend) Entries(ctx context.Context, req control.EntriesRequest) iter.Seq2[control.Entry, error] {
	return func(yield func(control.Entry, error) bool) {
		if _, err := b.Point(ctx, req.Item, req.Point); err != nil {
			yield(control.Entry{}, err)
			return
		}
		for _, e := range b.Files {
			if strings.HasPrefix(e.Path, req.Path) && !yield(e, ctx.Err()) {
				return
			}
		}
	}
}

// Diff implements control.Points.
func (b *Backend) Diff(ctx context.Context, req control.DiffRequest) iter.Seq2[control.DiffEntry, error] {
	return func(yield func(control.DiffEntry, error) bool) {
		if _, err := b.Point(ctx, req.Item, req.From); err != nil {
			yield(control.DiffEntry{}, err)
			return
		}
		for _, e := range b.Differ {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Content implements control.Points.
func (b *Backend) Content(ctx context.Context, req control.ContentRequest, w io.Writer) error {
	if _, err := b.Point(ctx, req.Item, req.Point); err != nil {
		return err
	}
	content, ok := b.Bytes[req.Path]
	if !ok {
		return notFound("path", req.Path, "point ls "+req.Item)
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	return b.Breaks[req.Path]
}
