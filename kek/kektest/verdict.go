package kektest

import (
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/kek"
)

// Verdicts returns a letter for each step of a check: p, w, f or s. It fails unless there
// is one of each stage, in order, that says what is, and what to do where that is needed.
func Verdicts(t testing.TB, steps []kek.Step) string {
	t.Helper()
	if len(steps) != len(kek.Stages()) {
		t.Fatalf("%d steps: %+v", len(steps), steps)
	}
	var b strings.Builder
	for i, stage := range kek.Stages() {
		if steps[i].Stage != stage {
			t.Errorf("step %d is %s, want %s", i, steps[i].Stage, stage)
		}
		if needsNext := steps[i].Verdict == kek.Warned || steps[i].Verdict == kek.Failed; needsNext != (steps[i].Next != "") || steps[i].Says == "" {
			t.Errorf("%s says %q and next %q", stage, steps[i].Says, steps[i].Next)
		}
		b.WriteByte(steps[i].Verdict[0])
	}
	return b.String()
}
