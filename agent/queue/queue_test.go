package queue_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/queue"
)

// bench is a queue whose jobs run until they are told to go.
type bench struct {
	*testing.T
	dir string
	*queue.Queue

	mu    sync.Mutex
	later time.Duration         // since start
	told  map[string]chan error // by item: what its job is to end with
	ran   chan string
	ended []control.Job
}

func start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func newBench(t *testing.T, slots int) *bench {
	b := &bench{T: t, dir: t.TempDir(), told: make(map[string]chan error), ran: make(chan string, 100)}
	b.open(slots)
	return b
}

func (b *bench) open(slots int) {
	b.Helper()
	q, err := queue.Open(b.Context(), queue.Config{Dir: b.dir, Clock: b.now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Slots: slots, Keep: 20,
		Ended: func(j control.Job) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.ended = append(b.ended, j)
		}})
	if err != nil {
		b.Fatal(err)
	}
	b.Queue = q
	b.Cleanup(q.Stop)
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return start().Add(b.later)
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.later += d
}

// add queues a backup that ends when it is told to.
func (b *bench) add(item string, priority int) *queue.Job {
	end := make(chan error, 1)
	b.mu.Lock()
	b.told[item] = end
	b.mu.Unlock()
	return b.Start("uid 0", control.Job{Kind: control.KindBackup, Item: item, Priority: priority}, func(ctx context.Context, _ *queue.Job) (*control.JobResult, error) {
		b.ran <- item
		select {
		case err := <-end:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
}

// tell ends the job of an item.
func (b *bench) tell(item string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told[item] <- err
}

// next waits for the next job that runs.
func (b *bench) next() string {
	b.Helper()
	select {
	case item := <-b.ran:
		return item
	case <-time.After(time.Minute):
		b.Fatal("no job runs")
		return ""
	}
}

// none fails if a job runs. Whatever may run has been let run when this is called.
func (b *bench) none() {
	b.Helper()
	select {
	case item := <-b.ran:
		b.Errorf("%s runs", item)
	default:
	}
}

func (b *bench) over(j *queue.Job) control.Job {
	b.Helper()
	ended := make(chan struct{})
	b.Then(j, func() { close(ended) })
	select {
	case <-ended:
	case <-time.After(time.Minute):
		b.Fatal("the job does not end")
	}
	return j.Snapshot()
}

// TestOrder: the highest priority first, then who came first, never more than there
// are slots.
func TestOrder(t *testing.T) {
	b := newBench(t, 1)
	first := b.add("a", 0)
	if got := b.next(); got != "a" {
		t.Fatalf("%s runs", got)
	}
	b.add("low", -5)
	b.add("b", 0)
	b.add("c", 0)
	b.add("high", 5)
	b.none()
	b.tell("a", nil)
	b.over(first)
	var got []string
	for range 4 {
		item := b.next()
		b.none()
		got = append(got, item)
		b.tell(item, nil)
	}
	if want := []string{"high", "b", "c", "low"}; !slices.Equal(got, want) {
		t.Errorf("they ran as %v, want %v", got, want)
	}
}

// TestPatience: however many of high priority come, one of low priority has its turn when
// it has waited for a day.
func TestPatience(t *testing.T) {
	b := newBench(t, 1)
	b.add("high 0", 100)
	b.add("low", -100)
	b.next()
	for i := range 30 {
		b.add(fmt.Sprintf("high %d", i+1), 100)
		b.pass(time.Hour)
		b.tell(fmt.Sprintf("high %d", i), nil)
		if b.next() == "low" {
			if i != 24 {
				t.Errorf("it ran after %d h", i+1)
			}
			b.tell("low", nil)
			return
		}
	}
	t.Error("it never ran")
}

// TestSubject: one job of an item at a time, whatever its priority, and a prune beside
// it.
func TestSubject(t *testing.T) {
	b := newBench(t, 1)
	j := b.add("a", 0)
	b.next()
	second := b.add("a", 100)
	prune := b.Start("uid 0", control.Job{Kind: control.KindPrune, Item: "a"}, func(context.Context, *queue.Job) (*control.JobResult, error) {
		return nil, nil
	})
	b.over(prune)
	if s := second.Snapshot().State; s != control.JobQueued {
		t.Errorf("the second job of the item is %s", s)
	}
	b.none()
	j.Cancel()
	if s := b.over(j); s.State != control.JobCancelled || s.Error == nil {
		t.Errorf("%+v", s)
	}
	b.next()
	b.tell("a", errors.New("broke"))
	if s := b.over(second); s.State != control.JobFailed || s.Error.Message != "broke" {
		t.Errorf("%+v", s)
	}
}

// TestHold: what is held does not run, and what has a job is not held.
func TestHold(t *testing.T) {
	b := newBench(t, 2)
	release, ok := b.Hold("a", "vault v")
	if !ok {
		t.Fatal("not held")
	}
	if _, ok := b.Hold("vault v"); ok {
		t.Error("held twice")
	}
	j := b.add("a", 0)
	other := b.add("b", 0)
	if got := b.next(); got != "b" {
		t.Fatalf("%s runs", got)
	}
	b.none()
	if _, ok := b.Hold("b"); ok {
		t.Error("an item was held whose job runs")
	}
	release()
	release() // does nothing more
	b.next()
	b.tell("a", nil)
	b.tell("b", nil)
	b.over(j)
	b.over(other)
	if _, ok := b.Hold("a", "b"); !ok {
		t.Error("not held after the jobs")
	}
}

// TestPause: a job that pauses lets another run, keeps its item, and goes on later.
func TestPause(t *testing.T) {
	b := newBench(t, 1)
	wait, paused := make(chan time.Time), make(chan error, 1)
	j := b.Start("uid 0", control.Job{Kind: control.KindBackup, Item: "a"}, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		err := b.Pause(ctx, j, wait)
		paused <- err
		return nil, err
	})
	other := b.add("b", 0)
	same := b.add("a", 100)
	if got := b.next(); got != "b" {
		t.Fatalf("%s runs", got)
	}
	close(wait)
	select {
	case <-paused:
		t.Error("it went on without a slot")
	default:
	}
	b.tell("b", nil)
	b.over(other)
	if err := <-paused; err != nil {
		t.Error(err)
	}
	b.over(j)
	b.next()
	b.tell("a", nil)
	b.over(same)
	// One that is cancelled while it pauses gives up what it has.
	j = b.Start("uid 0", control.Job{Kind: control.KindBackup, Item: "a"}, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		b.ran <- "pausing"
		return nil, b.Pause(ctx, j, make(chan time.Time))
	})
	b.next()
	j.Cancel()
	if s := b.over(j); s.State != control.JobCancelled {
		t.Errorf("%+v", s)
	}
	j = b.add("a", 0)
	b.next()
	b.tell("a", nil)
	b.over(j)
}

// TestCancelQueued: a job that waits is cancelled at once, and never runs.
func TestCancelQueued(t *testing.T) {
	b := newBench(t, 1)
	b.add("a", 0)
	b.next()
	waits := b.add("b", 0)
	waits.Cancel()
	if s := b.over(waits); s.State != control.JobCancelled || !s.Started.IsZero() {
		t.Errorf("%+v", s)
	}
	b.SetSlots(3)
	b.add("c", 0)
	if got := b.next(); got != "c" {
		t.Errorf("%s runs", got)
	}
}

// TestStop: everything ends, with the reason.
func TestStop(t *testing.T) {
	b := newBench(t, 1)
	runs := b.add("a", 0)
	b.next()
	waits := b.add("b", 0)
	cleaned := false
	b.Then(waits, func() { cleaned = true })
	b.Stop()
	for _, j := range []*queue.Job{runs, waits} {
		if s := j.Snapshot(); s.State != control.JobCancelled || s.Error == nil || s.Error.Message != "the agent was stopped" {
			t.Errorf("%+v", s)
		}
	}
	if !cleaned || len(b.ended) != 2 {
		t.Errorf("cleaned %t, %d ends told", cleaned, len(b.ended))
	}
}

// TestLive: a follower hears each note once, also after it was cut off.
func TestLive(t *testing.T) {
	b := newBench(t, 1)
	step := make(chan string)
	j := b.Start("uid 0", control.Job{Kind: control.KindBackup, Item: "a"}, func(_ context.Context, j *queue.Job) (*control.JobResult, error) {
		for text := range step {
			j.Note("warning", text)
		}
		return nil, nil
	})
	hear := func(after uint64, until string) (uint64, []string) {
		var notes []string
		for e, err := range j.Events(t.Context(), after) {
			if err != nil {
				t.Fatal(err)
			}
			after = max(after, e.Seq)
			if e.Note != nil {
				notes = append(notes, e.Note.Message)
				if e.Note.Message == until {
					break
				}
			}
		}
		return after, notes
	}
	step <- "one"
	step <- "two"
	after, notes := hear(0, "two")
	if !slices.Equal(notes, []string{"one", "two"}) {
		t.Errorf("%v", notes)
	}
	step <- "three"
	close(step)
	if _, notes = hear(after, ""); !slices.Equal(notes, []string{"three"}) {
		t.Errorf("%v", notes)
	}
}

// TestInput: the data reaches the job, and its fault the caller.
func TestInput(t *testing.T) {
	b := newBench(t, 1)
	j := b.Start("uid 0", control.Job{Kind: control.KindBackup, Item: "a"}, func(ctx context.Context, j *queue.Job) (*control.JobResult, error) {
		in, err := j.AwaitInput(ctx)
		if err != nil {
			return nil, err
		}
		defer close(in.Done)
		text, err := io.ReadAll(in.R)
		return nil, errors.Join(err, fmt.Errorf("got %s", text))
	})
	if err := j.Send(t.Context(), strings.NewReader("all of it")); err == nil || err.Error() != "got all of it" {
		t.Error(err)
	}
	if err := j.Send(t.Context(), strings.NewReader("more")); control.CodeOf(err) != control.CodeConflict {
		t.Error(err)
	}
}
