package queue_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/queue"
)

// TestCrash: what the process died under is a job that failed, with its notes; what is
// not readable is passed over; numbers are never used twice.
func TestCrash(t *testing.T) {
	b := newBench(t, 1)
	done := b.Start("policy nightly", control.Job{Kind: control.KindBackup, Item: "a", Policy: "nightly", Try: 2}, func(_ context.Context, j *queue.Job) (*control.JobResult, error) {
		j.Note("info", "half of it")
		j.Update(func(s *control.Job) { s.Output = "hook says hello" })
		return &control.JobResult{}, nil
	})
	b.over(done)
	b.add("b", 0)
	b.next()
	b.write("00000007.json", "{torn")
	b.write("notes.txt", "not ours")
	b.open(1) // the first one is as good as dead: nothing of it is closed
	all := b.List(control.JobFilter{})
	if len(all) != 2 || all[0].Item != "b" || all[0].State != control.JobFailed || all[0].Error == nil || all[1].State != control.JobDone {
		t.Fatalf("%+v", all)
	}
	j, err := b.Get(done.ID())
	if err != nil {
		t.Fatal(err)
	}
	if s := j.Snapshot(); s.Output != "hook says hello" || s.Policy != "nightly" || s.Try != 2 || s.By != "policy nightly" {
		t.Errorf("%+v", s)
	}
	var kinds []string
	for e, err := range j.Events(t.Context(), 0) {
		switch {
		case err != nil:
			t.Error(err)
		case e.Note != nil:
			kinds = append(kinds, e.Note.Message)
		case e.Job != nil:
			kinds = append(kinds, string(e.Job.State))
		}
	}
	if want := "done, half of it, done"; strings.Join(kinds, ", ") != want {
		t.Errorf("told %v, want %s", kinds, want)
	}
	if next := b.add("c", 0); next.ID() != 8 {
		t.Errorf("the next job is %d", next.ID())
	}
	if _, err := b.Get(99); control.CodeOf(err) != control.CodeNotFound {
		t.Error(err)
	}
}

func (b *bench) write(name, text string) {
	b.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

// TestForget: the oldest ended jobs go, with their records, and none that runs.
func TestForget(t *testing.T) {
	b := newBench(t, 1)
	runs := b.add("a", 0)
	b.next()
	b.SetSlots(8)
	var jobs []*queue.Job
	for i := range 30 {
		jobs = append(jobs, b.Start("uid 0", control.Job{Kind: control.KindVerify, Item: fmt.Sprint("x", i)}, func(context.Context, *queue.Job) (*control.JobResult, error) {
			return nil, nil
		}))
		b.over(jobs[i])
	}
	if _, err := b.Get(runs.ID()); err != nil {
		t.Error(err)
	}
	if _, err := b.Get(jobs[0].ID()); control.CodeOf(err) != control.CodeNotFound {
		t.Errorf("the oldest is still there: %v", err)
	}
	records, err := os.ReadDir(b.dir)
	if err != nil || len(records) != 20+1 {
		t.Errorf("%d records, %v", len(records), err)
	}
}
