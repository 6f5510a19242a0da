package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/internal/durable"
)

// record is what is kept of a job.
type record struct {
	control.Job
	Notes []control.Event `json:"notes,omitempty"`
}

func (q *Queue) path(id int64) string { return filepath.Join(q.cfg.Dir, fmt.Sprintf("%08d.json", id)) }

// read reads what is remembered.
func (q *Queue) read() error {
	if err := os.MkdirAll(q.cfg.Dir, 0o700); err != nil {
		return err
	}
	files, err := os.ReadDir(q.cfg.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		name, aside := strings.CutSuffix(f.Name(), durable.AsideSuffix)
		id, err := strconv.ParseInt(strings.TrimSuffix(name, ".json"), 10, 64)
		if err != nil || id <= 0 {
			continue
		}
		q.last = max(q.last, id)
		if aside {
			continue
		}
		raw, err := durable.ReadSealed(filepath.Join(q.cfg.Dir, name))
		var r record
		if err != nil || json.Unmarshal(raw, &r) != nil || r.ID != id {
			q.cfg.Log.Warn("record of a job is not readable", "file", f.Name(), "err", err)
			continue
		}
		j := newJob(id, r.Job, q.cfg.Clock)
		j.notes = r.Notes
		if !j.state.State.Ended() { // the process died under it
			j.state.State, j.state.Ended = control.JobFailed, q.cfg.Clock()
			j.state.Error = &control.Error{Code: control.CodeFailed, Message: "the agent ended while the job ran",
				Next: "run the job again; a backup goes on where this one stopped"}
			q.save(j)
		}
		close(j.ended)
		q.all[id] = j
		q.past = append(q.past, id)
	}
	q.forget()
	return nil
}

// save writes the job's record.
func (q *Queue) save(j *Job) {
	state, notes, _ := j.look()
	raw, err := json.Marshal(record{state, notes})
	if err == nil {
		err = durable.WriteSealed(q.path(j.id), raw)
	}
	if err != nil {
		q.cfg.Log.Warn("record of a job not written", "job", j.id, "err", err)
	}
}

// remember notes that a job has ended, and drops those that ended long before.
func (q *Queue) remember(id int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.past = append(q.past, id)
	q.forget()
}

// forget drops the jobs that ended first. The caller holds mu.
func (q *Queue) forget() {
	drop := max(0, len(q.past)-q.cfg.Keep)
	for _, id := range q.past[:drop] {
		delete(q.all, id)
		if err := os.Remove(q.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			q.cfg.Log.Warn("record of a job not removed", "job", id, "err", err)
		}
	}
	q.past = q.past[drop:]
}
