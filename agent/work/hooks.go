package work

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/hook"
	"github.com/cofferbackup/coffer/agent/queue"
)

// The results that a post hook is told.
const (
	resultDone   = "done"
	resultFailed = "failed"
)

// hooked does a backup between the hooks of its item's policy. Once the first has begun
// the second runs, whatever happens: what the one has stopped the other starts. Only who
// cancels the job while it runs ends it.
func (d *Desk) hooked(ctx context.Context, j *queue.Job, item string, do func() (*control.JobResult, error)) (*control.JobResult, error) {
	name, p := d.cfg.Settings().PolicyOf(item)
	if p.Hooks.Pre == nil && p.Hooks.Post == nil {
		return do()
	}
	env := []string{"COFFER_ITEM=" + item, "COFFER_POLICY=" + name, fmt.Sprintf("COFFER_JOB=%d", j.ID())}
	var result *control.JobResult
	j.Follow(func() control.Progress { return control.Progress{Phase: "pre hook"} })
	err := d.hook(ctx, j, "pre", p.Hooks.Pre, env)
	if err == nil {
		result, err = do()
	}
	said, point := resultDone, j.Snapshot().Point
	if err != nil {
		said, point = resultFailed, ""
	}
	env = append(env, "COFFER_RESULT="+said, "COFFER_POINT="+point)
	after := d.hookAfter(ctx, j, p.Hooks.Post, env)
	if after != nil { // the point is there, or is not: to back up again would mend nothing
		j.Note("warning", after.Error())
		d.cfg.Log.Warn("hook after a backup", "job", j.ID(), "item", item, "policy", name, "err", after)
	}
	return result, err
}

// hookAfter runs the hook after a backup. How far the backup came is shown on.
func (d *Desk) hookAfter(ctx context.Context, j *queue.Job, h *config.Hook, env []string) error {
	if h == nil {
		return nil
	}
	came := j.Snapshot().Progress
	j.Follow(func() control.Progress {
		now := came
		now.Phase = "post hook"
		return now
	})
	defer j.Follow(func() control.Progress { return came })
	ctx, done := j.After(ctx)
	defer done()
	return d.hook(ctx, j, "post", h, env)
}

// hook runs one hook of a job, if there is one. What it prints is kept with the job.
func (d *Desk) hook(ctx context.Context, j *queue.Job, which string, h *config.Hook, env []string) error {
	if h == nil {
		return nil
	}
	printed, err := hook.Run(ctx, hook.Config{Command: h.Command, Timeout: time.Duration(h.Timeout), Env: env})
	if err != nil {
		next := fmt.Sprintf("see what it printed: coffer job show %d", j.ID())
		if _, never := errors.AsType[*fs.PathError](err); never { // it did not begin
			next = "see that there is such a program, and that the agent's user may run it; or correct the hook in the config"
		}
		err = &control.Error{Code: control.CodeFailed, Message: fmt.Sprintf("%s %v", which, err), Next: next}
	}
	j.Update(func(s *control.Job) { s.Output = keepEnd(s.Output + section(which, h.Command[0], printed, err)) })
	return err
}

// section is what a hook printed, under a line that says which it was and how it ended.
func section(which, command, printed string, err error) string {
	how := fmt.Sprintf("%s hook %s: well", which, command)
	if err != nil {
		how = err.Error() // it says which
	}
	if printed != "" && !strings.HasSuffix(printed, "\n") {
		printed += "\n"
	}
	return fmt.Sprintf("--- %s\n%s", how, printed)
}

// keepEnd keeps the last of a text that is too long.
func keepEnd(text string) string {
	if len(text) <= hook.MaxOutput {
		return text
	}
	return strings.ToValidUTF8(text[len(text)-hook.MaxOutput:], "")
}
