package agent

import (
	"context"
	"fmt"
	"strings"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/catalog"
)

// lookAt fills in what there is to say of an item's points.
func (a *Agent) lookAt(ctx context.Context, name string, out *control.Item) error {
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
	var strange catalog.PointName // the newest that does not open
	more := 0
	for s, err := range it.Index.Summaries(ctx, catalog.PointQuery{Newest: true}) {
		if err != nil {
			return err
		}
		if s.Unreadable && s.State != catalog.PointGone {
			if more++; more == 1 {
				strange = s.Name
			}
		}
		if s.State == catalog.PointGone || s.Damaged {
			continue
		}
		out.LastPoint, out.LastGood, out.SourceBytes = s.Name.String(), s.Name.Time(), int64(s.Stats.Bytes)
		break
	}
	if more > 0 {
		out.Warnings = append(out.Warnings, unreadable(name, strange, more-1))
	}
	if synced.Unopened != nil {
		return fault.Of(synced.Unopened)
	}
	return it.Hiding(ctx, synced.Err())
}

// unreadable says that a point of an item, and some more, do not open.
func unreadable(item string, p catalog.PointName, more int) control.Problem {
	says := fmt.Sprintf("point %s does not open, and is newer than the last good one", p)
	if more > 0 {
		says += fmt.Sprintf(" (and %d more)", more)
	}
	return control.Problem{Subject: "item " + item, Kind: "points", Message: says,
		Next: "see what is wrong with it: coffer verify " + item + "; then let it go: coffer point forget " + item + "@" + p.String()}
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
