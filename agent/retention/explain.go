package retention

import (
	"context"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/point"
	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/prune"
	"github.com/cofferbackup/coffer/agent/vault"
	"github.com/cofferbackup/coffer/catalog"
)

// ExplainItem says of each point of an item why it is kept, or when it goes.
func (w *Warden) ExplainItem(ctx context.Context, name string) ([]control.PointFate, error) {
	it, synced, err := w.cfg.Vaults.Remembering(ctx, name)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	if synced.Unopened != nil {
		return nil, fault.Of(synced.Unopened)
	}
	decided, fates, err := w.decisions(ctx, it, policy.Allow{})
	if err != nil {
		return nil, err
	}
	out := make([]control.PointFate, 0, len(decided))
	for _, d := range decided {
		point := catalog.PointName(d.Point.ID)
		f := control.PointFate{Item: name, Point: point.String(), Time: d.Point.Time, Keep: d.Keep, Reasons: d.Reasons,
			Expires: d.Expires, Pinned: d.Pinned, Goes: fates.Goes[point]}
		_, asked := fates.Asked[point]
		switch {
		case len(fates.Holds[point]) > 0 || d.Keep && !asked: // also if it is marked: a prune asks again
			f.Goes = time.Time{}
		case d.Keep:
			f.Keep, f.Reasons, f.Expires, f.Pinned = false, []string{"somebody asked for it to go"}, time.Time{}, false
		}
		out = append(out, f)
	}
	return out, nil
}

// decisions says of each point of an item whether its policy keeps it, oldest first. An
// item without a retention keeps all.
func (w *Warden) decisions(ctx context.Context, it *vault.Item, allow policy.Allow) ([]policy.Decision, point.Fates, error) {
	fates, err := w.cfg.Points.Fates(ctx, it)
	if err == nil {
		err = fault.Of(fates.Fault)
	}
	if err != nil {
		return nil, fates, err
	}
	var there []catalog.Summary
	for s, err := range it.Index.Summaries(ctx, catalog.PointQuery{}) {
		if err != nil {
			return nil, fates, err
		}
		if s.State != catalog.PointGone {
			there = append(there, s)
		}
	}
	points := prune.Points(there, fates.All)
	_, p := w.cfg.Settings().PolicyOf(it.Name())
	keeps, ok := p.Keeps()
	if ok {
		decided, err := policy.Decide(points, keeps, w.cfg.Clock(), allow)
		return decided, fates, err
	}
	decided := make([]policy.Decision, 0, len(points))
	for _, p := range points {
		why := []string{"no retention: everything is kept"}
		for _, h := range p.Holds {
			why = append(why, h.Why())
		}
		decided = append(decided, policy.Decision{Point: p, Keep: true, Reasons: why, Pinned: true})
	}
	return decided, fates, nil
}
