package controltest

import (
	"context"
	"fmt"
	"slices"

	"github.com/cofferbackup/coffer/agent/control"
)

// Diagnose implements control.System.
func (b *Backend) Diagnose(context.Context) (control.Diagnosis, error) { return b.Diagnosis, nil }

// ReloadConfig implements control.Settings.
func (b *Backend) ReloadConfig(context.Context) (control.ConfigReport, error) { return b.Reload, nil }

// HoldPoint implements control.Retention. PointList stays as it is.
func (b *Backend) HoldPoint(ctx context.Context, req control.PointHold) (control.Hold, error) {
	p, err := b.Point(ctx, req.Item, req.Point)
	if err != nil {
		return control.Hold{}, err
	}
	b.note(req)
	return control.Hold{ID: "h7", Point: p.ID, Owner: req.Owner, Reason: req.Reason, Since: b.Now}, nil
}

// ReleasePoint implements control.Retention. PointList stays as it is.
func (b *Backend) ReleasePoint(ctx context.Context, req control.PointRelease) (control.Point, error) {
	p, err := b.Point(ctx, req.Item, req.Point)
	if err != nil {
		return p, err
	}
	meant := func(h control.Hold) bool { return req.Hold == "" || h.ID == req.Hold }
	if !slices.ContainsFunc(p.Holds, meant) {
		return p, notFound("hold", req.Hold, "point show "+req.Item+"@"+p.ID)
	}
	if p.Holds = slices.DeleteFunc(slices.Clone(p.Holds), meant); len(p.Holds) == 0 {
		p.Holds = nil // as it is read again
	}
	b.note(req)
	return p, nil
}

// ForgetPoints implements control.Retention. PointList stays as it is.
func (b *Backend) ForgetPoints(ctx context.Context, req control.PointForget) ([]control.Point, error) {
	if _, err := b.Item(ctx, req.Item); err != nil {
		return nil, err
	}
	var gone []control.Point
	for _, name := range req.Points {
		p, err := b.Point(ctx, req.Item, name)
		if err != nil {
			return nil, err
		}
		if p.ID != name {
			return nil, &control.Error{
				Code: control.CodeBadRequest, Message: fmt.Sprintf("%q is not the id of a point of %s; the point that it picks is %s", name, req.Item, p.ID),
				Next: fmt.Sprintf("if that is the one: coffer point forget %s@%s", req.Item, p.ID),
			}
		}
		if len(p.Holds) > 0 {
			return nil, &control.Error{
				Code: control.CodeConflict, Message: fmt.Sprintf("point %s is held: %s", p.ID, p.Holds[0].Reason),
				Next: fmt.Sprintf("ask %s, then release it: coffer point release %s@%s", p.Holds[0].Owner, req.Item, p.ID),
			}
		}
		p.Goes = b.Now.AddDate(0, 0, 3)
		gone = append(gone, p)
	}
	if len(gone) == len(b.pointsOf(req.Item, 0)) && !req.AllowEmpty {
		return nil, &control.Error{
			Code: control.CodeConflict, Message: fmt.Sprintf("%s would have no point left", req.Item),
			Next: "if that is meant, say so: --allow-empty",
		}
	}
	b.note(req)
	return gone, nil
}

// Prune implements control.Retention.
func (b *Backend) Prune(ctx context.Context, req control.PruneRequest) (control.Job, error) {
	return b.begin(ctx, req, control.Job{Kind: control.KindPrune, Item: req.Item})
}

// Policies implements control.Policies.
func (b *Backend) Policies(context.Context) ([]control.Policy, error) { return b.PolicyList, nil }

// Explain implements control.Policies.
func (b *Backend) Explain(_ context.Context, name string) (control.Explanation, error) {
	for _, p := range b.PolicyList {
		if p.Name == name {
			e := b.Explained[name]
			e.Policy = p
			return e, nil
		}
	}
	return control.Explanation{}, notFound("policy", name, "policy list")
}

// RunPolicy implements control.Policies.
func (b *Backend) RunPolicy(ctx context.Context, req control.PolicyRun) ([]control.Job, error) {
	e, err := b.Explain(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	var jobs []control.Job
	for _, it := range e.Policy.Items {
		if req.Item != "" && it.Item != req.Item {
			continue
		}
		j, err := b.begin(ctx, control.BackupRequest{Item: it.Item}, control.Job{Kind: control.KindBackup, Item: it.Item, Policy: req.Name})
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
	}
	if jobs == nil {
		return nil, notFound("item", req.Item, "policy show "+req.Name)
	}
	return jobs, nil
}
