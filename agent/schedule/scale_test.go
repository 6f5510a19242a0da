package schedule_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/schedule"
)

// TestMany: thousands of tasks are looked at in much less time than there is between two
// looks, and all of them begin when they are due.
func TestMany(t *testing.T) {
	const most = 5 * time.Second // it takes some hundredths of one
	var tasks []schedule.Task
	for i := range 3000 {
		task := named("p/"+strconv.Itoa(i), "daily at 02:00", "Europe/Berlin")
		task.Spec.Jitter = 30 * time.Minute
		if i%2 == 0 {
			task.Spec.Not = "08:00-18:00 mon-fri"
		}
		tasks = append(tasks, task)
	}
	w := newWorld(t, tasks...)
	w.step()
	began := time.Now()
	for range 10 {
		w.real += 30 * time.Second
		w.step()
	}
	if took := time.Since(began); took > 10*most {
		t.Errorf("10 looks at %d tasks took %s", len(tasks), took)
	}
	w.real += 14 * time.Hour
	w.step()
	if n := len(w.started); n != len(tasks) {
		t.Errorf("%d of %d began", n, len(tasks))
	}
}
