package work

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/restore"
)

// fault adds a line on what is wrong.
func (w *verifier) fault(line string) {
	w.faults++
	if len(w.out.Faults) < queue.MaxNotes {
		w.out.Faults = append(w.out.Faults, line)
	}
}

func (w *verifier) found(findings []restore.Finding, all uint64) {
	for _, f := range findings {
		w.fault(lineOf(f))
	}
	w.faults += max(0, int(all)-len(findings)) // those beyond what is remembered
}

func lineOf(f restore.Finding) string {
	line := string(f.Object)
	if f.Path != "" {
		line += " " + f.Path
	}
	return line + ": " + oneLine(f.Err)
}

// oneLine is an error in one line, in which errors that were joined are told once each.
func oneLine(err error) string {
	var told []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line = strings.TrimSpace(line); line != "" && !slices.ContainsFunc(told, func(before string) bool { return strings.Contains(before, line) }) {
			told = append(told, line)
		}
	}
	return strings.Join(told, "; ")
}

// end says what came of it all.
func (w *verifier) end() (*control.JobResult, error) {
	w.out.Points, w.out.Objects, w.out.Files = int64(w.done.Points.Load()), int64(w.done.Packs.Load()), int64(w.done.Files.Load())
	w.out.ReadBytes, w.out.Seconds = int64(w.done.Bytes.Load()), w.cfg.Clock().Sub(w.began).Seconds()
	w.out.Compared = int64(w.proving.Compared.Load())
	result := &control.JobResult{Verify: &w.out}
	if w.faults == 0 {
		return result, nil
	}
	for _, line := range w.out.Repaired { // a fault is told without the result
		w.job.Note("info", line)
	}
	says := fmt.Sprintf("%d faults found, the first in %s", w.faults, w.out.Faults[0])
	if w.faults == 1 {
		says = w.out.Faults[0]
	}
	return result, &control.Error{Code: control.CodeDamaged, Message: says, Next: w.next()}
}

// next is what an operator does about the faults that were found.
func (w *verifier) next() string {
	var steps []string
	if w.hidden {
		steps = append(steps, fault.HiddenNext)
	}
	item := cmp.Or(w.ask.Item, "ITEM")
	switch damaged := w.faults > w.missing; {
	case damaged && w.ask.Repair:
		step := fmt.Sprintf("see what stays lost: coffer job show %d; all else in these points restores", w.job.ID())
		if len(w.lost) > 0 {
			step += fmt.Sprintf(". Let them go with coffer point forget %s, or wait until the retention does", namesOf(item, w.lost))
		}
		steps = append(steps, step)
	case damaged:
		steps = append(steps, fmt.Sprintf("see all of them: coffer job show %d; store again what the source still has: coffer verify --repair %s", w.job.ID(), item))
	}
	if w.missing > 0 {
		var notes []string // each of one item
		for _, item := range slices.Sorted(maps.Keys(w.gone)) {
			notes = append(notes, "coffer point forget "+namesOf(item, w.gone[item]))
		}
		steps = append(steps, "find out who deleted the points that are gone, and from where; to take note of it: "+strings.Join(notes, ", "))
	}
	return strings.Join(steps, "; ")
}

// namesOf writes the first of an item's points as commands take them.
func namesOf(item string, points []catalog.PointName) string {
	var names []string
	for _, p := range points[:min(len(points), 3)] {
		names = append(names, item+"@"+p.String())
	}
	if more := len(points) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, " ")
}
