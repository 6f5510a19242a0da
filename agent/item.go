package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/store"
)

// Items implements control.Items.
func (a *Agent) Items(ctx context.Context) ([]control.Item, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	var out []control.Item
	for _, name := range slices.Sorted(maps.Keys(a.settings().Items)) {
		it, err := a.item(ctx, glancing, name)
		if control.CodeOf(err) == control.CodeNotFound {
			continue // a reload has just taken it out
		}
		if err != nil {
			return nil, err
		}
		out = append(out, it)
	}
	return out, nil
}

// Item implements control.Items.
func (a *Agent) Item(ctx context.Context, name string) (control.Item, error) {
	glancing, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	return a.item(ctx, glancing, name)
}

// item describes an item, with what can be learned of its points while glancing
// lasts.
func (a *Agent) item(ctx, glancing context.Context, name string) (control.Item, error) {
	cfg, ok := a.settings().Items[name]
	if !ok {
		return control.Item{}, fault.NotFound("item", name, "coffer item list")
	}
	kind, from := sourceOf(cfg)
	out := control.Item{Name: name, Vault: cfg.Vault, Kind: kind, Source: from}
	var due time.Time
	out.Policy, out.Next, due = a.Planned(name)
	out.Overdue = !due.IsZero()
	out.Proof = a.proofs.Entry(cfg.Vault, name).Proof()
	err := a.glanceAt(glancing, name, &out)
	err = overdue(ctx, glancing, err, store.ErrUnavailable)
	if err != nil && !errors.Is(err, catalog.ErrNoItem) && control.CodeOf(err) != control.CodeNotFound {
		out.Error = control.AsError(err)
	}
	return out, ctx.Err()
}

// glanceAt fills in what there is to say of an item's points.
func (a *Agent) glanceAt(ctx context.Context, name string, out *control.Item) error {
	it, synced, err := a.vaults.Remembering(ctx, name)
	if err != nil {
		return err
	}
	defer it.Close()
	points, stored, err := it.Index.CountPoints(ctx)
	if err != nil {
		return err
	}
	out.Points, out.StoredBytes = int(points), stored
	if out.Warnings, err = it.Strange(ctx); err != nil {
		return err
	}
	for s, err := range it.Index.Summaries(ctx, catalog.PointQuery{Newest: true}) {
		if err != nil {
			return err
		}
		if s.Unreadable && s.State != catalog.PointGone {
			out.Warnings = append(out.Warnings, control.Problem{Subject: "item " + name, Next: "see what is wrong with it: coffer verify " + name + "; then let it go: coffer point forget " + name + "@" + s.Name.String(),
				Message: fmt.Sprintf("point %s does not open, and is newer than the last good one", s.Name)})
		}
		if s.State == catalog.PointGone || s.Damaged {
			continue
		}
		out.LastPoint, out.LastGood, out.SourceBytes = s.Name.String(), s.Name.Time(), int64(s.Stats.Bytes)
		break
	}
	if synced.Unopened != nil {
		return fault.Of(synced.Unopened)
	}
	return fault.Of(it.Hiding(ctx, synced.Err()))
}

func sourceOf(cfg config.Item) (kind, from string) {
	switch {
	case cfg.Files != nil:
		return "files", strings.Join(cfg.Files.Paths, ", ")
	case cfg.Stream != nil:
		return "stream", strings.Join(cfg.Stream.Command, " ")
	}
	return "", ""
}
