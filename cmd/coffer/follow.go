package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cofferbackup/coffer/agent/control"
)

// errLeft: the operator pressed Ctrl-C twice.
var errLeft = errors.New("left")

// through shows a job that this run has asked for: to its end, or only that it is
// there.
func (a *app) through(ctx context.Context, j control.Job, detach bool) error {
	if detach {
		return a.detached(j)
	}
	j, err := a.carry(ctx, j)
	if err != nil {
		return err
	}
	return a.finish(j)
}

// carry follows a job that this run has asked for to its end: it draws progress,
// asks the agent to cancel at the first Ctrl-C and leaves at the second.
func (a *app) carry(ctx context.Context, j control.Job) (control.Job, error) {
	watch, leave := context.WithCancelCause(context.WithoutCancel(ctx))
	defer leave(nil)
	d := a.newDrawer(j)
	defer d.close()
	defer context.AfterFunc(a.hard, func() { leave(errLeft) })()
	asked := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		d.note(fmt.Sprintf("cancelling job %d; once more Ctrl-C leaves it to the agent", j.ID))
		asked <- a.Cancel(watch, j.ID)
	})
	end, err := a.follow(watch, j, d)
	if !stop() {
		err = errors.Join(err, <-asked)
	}
	if errors.Is(context.Cause(watch), errLeft) {
		return j, &control.Error{
			Code: control.CodeCancelled, Message: fmt.Sprintf("left job %d before it ended", j.ID),
			Next: fmt.Sprintf("see how it is: coffer job show %d", j.ID),
		}
	}
	return end, err
}

// follow shows a job until it ends. A connection that breaks is made anew.
func (a *app) follow(ctx context.Context, j control.Job, d drawer) (control.Job, error) {
	var seq uint64
	for {
		heard := false
		var broken error
		for e, err := range a.Events(ctx, j.ID, seq) {
			if err != nil {
				broken = err
				break
			}
			heard, seq = true, max(seq, e.Seq)
			switch {
			case e.Job != nil:
				j = *e.Job
				d.progress(j.Progress, e.Time)
			case e.Progress != nil:
				d.progress(*e.Progress, e.Time)
			case e.Note != nil:
				d.note(jobLabel(j) + ": " + e.Note.Message)
			}
		}
		switch {
		case j.State.Ended():
			return j, nil
		case broken == nil:
			broken = &control.Error{
				Code: control.CodeProtocol, Message: "the agent stopped telling of a job that has not ended",
				Next: fmt.Sprintf("see how it is: coffer job show %d", j.ID),
			}
		}
		if !heard || control.CodeOf(broken) != control.CodeTorn {
			return j, fmt.Errorf("follow job %d: %w", j.ID, broken)
		}
	}
}

// jobLabel names what a job is about.
func jobLabel(j control.Job) string {
	return cmp.Or(j.Item, j.Vault, j.Kind)
}

// finish shows how a job ended, and sets the exit code.
func (a *app) finish(j control.Job) error {
	if j.State == control.JobDone && j.Progress.Skipped > 0 {
		a.code = control.ExitSkipped
	}
	if j.State != control.JobDone && !a.json {
		return jobFault(j)
	}
	if err := a.print(j, func(p *page) { p.result(j) }); err != nil {
		return err
	}
	if j.State != control.JobDone {
		return jobFault(j)
	}
	return nil
}

// jobFault is why a job did not end well.
func jobFault(j control.Job) error {
	next := fmt.Sprintf("see coffer job show %d, and the agent's log", j.ID)
	if j.Error == nil {
		return &control.Error{Code: control.CodeFailed, Message: fmt.Sprintf("job %d is %s", j.ID, j.State), Next: next}
	}
	e := *j.Error
	e.Message = strings.TrimSpace(j.Kind+" "+cmp.Or(j.Item, j.Vault)) + ": " + e.Message
	if e.Next == "" && e.Code != control.CodeCancelled {
		e.Next = next
	}
	return &e
}

// detached tells of a job that goes on alone.
func (a *app) detached(j control.Job) error {
	return a.print(j, func(p *page) {
		p.line("%s: job %d is %s; follow it with: coffer job watch %d", safe(jobLabel(j)), j.ID, j.State, j.ID)
	})
}

// result says what a job did.
func (p *page) result(j control.Job) {
	r := j.Result
	switch {
	case r != nil && r.Point != nil:
		p.backedUp(*r.Point)
	case r != nil && r.Restore != nil:
		p.restored(j, *r.Restore)
	case r != nil && r.Verify != nil:
		p.verified(j, *r.Verify)
	case r != nil && r.Rekey != nil:
		p.rewrapped(*r.Rekey)
	case r != nil && r.Drill != nil:
		p.drilled(*r.Drill)
	case r != nil && r.Prune != nil:
		p.pruned(j, *r.Prune)
	default:
		p.line("%s: job %d is %s", safe(jobLabel(j)), j.ID, j.State)
	}
	if n := j.Progress.Skipped; n > 0 {
		p.line("     %s skipped: coffer job show %d", control.Counted(n, "entry"), j.ID)
	}
}
