//go:build linux

package agent_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/store"
)

// TestHold: what is held stays against its policy and against a request to forget it,
// until it is released; and its item is not erased.
func TestHold(t *testing.T) {
	p := newPruned(t, lastTwo)
	for range 3 {
		p.change()
	}
	first := p.points()[0].ID
	for _, req := range []control.PointHold{{Point: first, Owner: "legal"}, {Point: first, Reason: "case 4711"}} {
		req.Item = "docs"
		_, err := p.HoldPoint(t.Context(), req)
		p.refused(err, control.CodeBadRequest)
	}
	h, err := p.HoldPoint(t.Context(), control.PointHold{Item: "docs", Point: first, Owner: "legal", Reason: "case 4711"})
	must(t, err)
	if h.Point != first {
		t.Errorf("the hold is said to be on %q, want %s", h.Point, first)
	}
	h.Point = "" // beneath its point it is not said
	held := p.clock.Now()
	p.advance(time.Minute)
	_, err = p.HoldPoint(t.Context(), control.PointHold{Item: "docs", Point: first, Owner: "audit", Reason: "yearly"})
	must(t, err)
	if got := p.points()[0]; len(got.Holds) != 2 || got.Holds[0] != h || h.Owner != "legal" || h.Reason != "case 4711" || !h.Since.Equal(held) {
		t.Errorf("%+v, hold %+v", got, h)
	}
	_, err = p.ForgetPoints(t.Context(), control.PointForget{Item: "docs", Points: []string{first}})
	p.refused(err, control.CodeConflict)
	_, err = p.EraseItem(t.Context(), control.ItemErase{Item: "docs", Confirm: "docs"})
	p.refused(err, control.CodeConflict)
	p.outlive()
	if got := p.points(); len(got) != 3 || got[0].ID != first {
		t.Errorf("kept: %+v", got)
	}
	p.restorable()

	_, err = p.ReleasePoint(t.Context(), control.PointRelease{Item: "docs", Point: first, Hold: "nonsense"})
	p.refused(err, control.CodeNotFound)
	left, err := p.ReleasePoint(t.Context(), control.PointRelease{Item: "docs", Point: first, Hold: h.ID})
	must(t, err)
	if left.ID != first || len(left.Holds) != 1 || left.Holds[0].Owner != "audit" {
		t.Errorf("after the release of one: %+v", left)
	}
	p.outlive()
	if left, err = p.ReleasePoint(t.Context(), control.PointRelease{Item: "docs", Point: first}); err != nil || left.ID != first || len(left.Holds) != 0 {
		t.Errorf("after the release of all: %+v, %v", left, err)
	}
	_, err = p.ReleasePoint(t.Context(), control.PointRelease{Item: "docs", Point: first})
	p.refused(err, control.CodeNotFound)
	p.outlive()
	if got := p.points(); len(got) != 2 || got[0].ID == first {
		t.Errorf("kept: %+v", got)
	}
	p.restorable()
	for kind, n := range map[audit.Kind]int{audit.PointHeld: 2, audit.PointReleased: 2, audit.PointRemoved: 2} {
		if got := p.audited(kind); len(got) != n || got[0].Point == "" || got[0].Item != "docs" || got[0].By == "" {
			t.Errorf("%s: %+v", kind, got)
		}
	}
	_, err = p.EraseItem(t.Context(), control.ItemErase{Item: "docs", Confirm: "docs"})
	must(t, err)
}

// TestHoldRescues: a hold on a point that is marked to go keeps it.
func TestHoldRescues(t *testing.T) {
	p := newPruned(t, lastTwo)
	for range 2 {
		p.change()
	}
	p.done(p.Prune(t.Context(), control.PruneRequest{Item: "docs"}))
	first := p.points()[0]
	if want := p.clock.Now().Add(72 * time.Hour); !first.Goes.Equal(want) {
		t.Errorf("goes %s, want %s", first.Goes, want)
	}
	_, err := p.HoldPoint(t.Context(), control.PointHold{Item: "docs", Point: first.ID, Owner: "legal", Reason: "case 4711"})
	must(t, err)
	if got := p.points()[0]; !got.Goes.IsZero() {
		t.Errorf("held, and goes %s", got.Goes)
	}
	p.outlive()
	if got := p.points(); len(got) != 3 || got[0].ID != first.ID {
		t.Errorf("kept: %+v", got)
	}
	p.restorable()
}

// TestForget: a point that somebody asks to go goes after the grace time, whatever its
// policy says; the last good one only if that is said.
func TestForget(t *testing.T) {
	p := newPruned(t, "")
	for range 2 {
		p.change()
	}
	all := p.points()
	forget := func(allowEmpty bool, points ...string) ([]control.Point, error) {
		return p.ForgetPoints(t.Context(), control.PointForget{Item: "docs", Points: points, AllowEmpty: allowEmpty})
	}
	_, err := forget(false, "2001-01-01")
	p.refused(err, control.CodeNotFound)
	_, err = forget(false)
	p.refused(err, control.CodeBadRequest)
	for _, guess := range []string{"latest", "2100-01-01", all[2].ID[:len(all[2].ID)-1]} { // which of them is meant is not guessed
		_, err = forget(true, guess)
		p.refused(err, control.CodeBadRequest)
		if next := control.AsError(err).Next; !strings.Contains(next, "coffer point forget docs@"+all[2].ID+";") {
			t.Errorf("%s: %s", guess, next)
		}
	}
	_, err = forget(false, all[0].ID, all[1].ID, all[2].ID)
	p.refused(err, control.CodeConflict)

	gone, err := forget(false, all[1].ID, all[1].ID)
	must(t, err)
	if len(gone) != 1 || gone[0].ID != all[1].ID || !gone[0].Goes.Equal(p.clock.Now().Add(72*time.Hour)) || gone[0].Stats != all[1].Stats {
		t.Errorf("%+v", gone)
	}
	// It counts for nothing any more: of the two others one must stay.
	_, err = forget(false, all[0].ID, all[2].ID)
	p.refused(err, control.CodeConflict)
	p.advance(71 * time.Hour)
	if r := p.prune(control.PruneRequest{Item: "docs"}); r.RemovedPoints != 0 || len(p.points()) != 3 {
		t.Errorf("before its time: %+v", r)
	}
	p.advance(2 * time.Hour)
	if r := p.prune(control.PruneRequest{Item: "docs"}); r.RemovedPoints != 1 || r.RemovedPacks == 0 || r.FreedBytes == 0 {
		t.Errorf("after its time: %+v", r)
	}
	if got := p.points(); len(got) != 2 || got[0].ID != all[0].ID || got[1].ID != all[2].ID {
		t.Errorf("left: %+v", got)
	}
	p.restorable()

	_, err = forget(true, all[0].ID, all[2].ID)
	must(t, err)
	p.outlive()
	if got := p.points(); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
	p.change() // the item lives on
	p.restorable()
	asked := 0
	for _, e := range p.audited(audit.PointForgotten) {
		if e.Outcome == "asked" && e.By != "" {
			asked++
		}
	}
	if asked != 1+3+2+2 { // those that were refused too
		t.Errorf("%d requests are in the audit log", asked)
	}
}

// TestForgetGone: to forget a point that somebody deleted ends the alarm, and prunes go
// on, which none did while it was not known what else is gone.
func TestForgetGone(t *testing.T) {
	p := newPruned(t, lastTwo)
	for range 3 {
		p.change()
	}
	stolen := p.points()[1].ID
	stealPoint(t, p.bench, stolen)
	j := p.wait(p.Prune(t.Context(), control.PruneRequest{}))
	if j.State != control.JobFailed || j.Error.Code != control.CodeDamaged || !strings.Contains(j.Error.Message, "docs") {
		t.Errorf("%s: %+v", j.State, j.Error)
	}
	if r := j.Result; r == nil || len(r.Prune.Items) != 2 || r.Prune.Items[0].Error == nil || r.Prune.Items[1].Error != nil || r.Prune.MarkedPoints != 0 {
		t.Errorf("%+v", r)
	}
	gone, err := p.ForgetPoints(t.Context(), control.PointForget{Item: "docs", Points: []string{stolen}})
	if err != nil || len(gone) != 1 || gone[0].ID != stolen || !gone[0].Goes.IsZero() {
		t.Errorf("%+v, %v", gone, err)
	}
	delete(p.content, stolen)
	p.outlive()
	if got := p.points(); len(got) != 2 {
		t.Errorf("left: %+v", got)
	}
	p.restorable()
	if item, err := p.Item(t.Context(), "docs"); err != nil || item.Error != nil {
		t.Errorf("%+v, %v", item, err)
	}
}

// TestEraseOfUnreadableHolds: where it cannot be known who holds what, nothing is erased.
func TestEraseOfUnreadableHolds(t *testing.T) {
	p := newPruned(t, "")
	h, err := p.HoldPoint(t.Context(), control.PointHold{Item: "docs", Point: "latest", Owner: "legal", Reason: "case 4711"})
	must(t, err)
	paths := objects(t, p.bench, "one/items/*/holds/"+h.ID)
	if len(paths) != 1 {
		t.Fatalf("hold %s is in %v", h.ID, paths)
	}
	must(t, os.Chmod(paths[0], 0o600))
	must(t, os.WriteFile(paths[0], []byte(strings.Repeat("garbage ", 40)), 0o600))
	_, err = p.EraseItem(t.Context(), control.ItemErase{Item: "docs", Confirm: "docs"})
	p.refused(err, control.CodeDamaged)
	if j := p.wait(p.Prune(t.Context(), control.PruneRequest{Item: "docs"})); j.State != control.JobFailed || j.Error.Code != control.CodeDamaged {
		t.Errorf("prune: %s, %+v", j.State, j.Error)
	}
	// What there is is shown, and comes back.
	p.done(p.Restore(t.Context(), control.RestoreRequest{Item: "docs", Point: p.points()[0].ID, Target: p.path("back")}))
}

// TestHoldAtTheLastMoment: a hold that is put while a prune removes points either keeps
// its point or is refused.
func TestHoldAtTheLastMoment(t *testing.T) {
	p := newPruned(t, lastTwo)
	for range 3 {
		p.change()
	}
	p.prune(control.PruneRequest{})
	p.advance(73 * time.Hour)
	all := p.points()
	hold := func(point string) error {
		_, err := p.HoldPoint(t.Context(), control.PointHold{Item: "docs", Point: point, Owner: "legal", Reason: "case 4711"})
		return err
	}
	// The prune has looked for holds on this point: the hold comes too late, and says so.
	outcome := make(chan error, 1)
	var once sync.Once
	p.on(func(_ context.Context, what string, key store.Key) error {
		if what == "delete" && strings.Contains(string(key), "/points/") {
			once.Do(func() {
				stamp, _, _ := strings.Cut(key.Base(), "-")
				i := slices.IndexFunc(all, func(c control.Point) bool { return c.Time.Format("20060102t150405.000z") == stamp })
				outcome <- hold(all[i].ID)
			})
		}
		return nil
	})
	p.prune(control.PruneRequest{Item: "docs"})
	p.refused(<-outcome, control.CodeConflict)
	p.on(nil)
	if left := p.points(); len(left) != 2 {
		t.Errorf("left: %+v", left)
	}
	if held, released := p.audited(audit.PointHeld), p.audited(audit.PointReleased); len(held) != 1 || len(released) != 1 {
		t.Errorf("%d holds and %d releases are in the audit log", len(held), len(released))
	}

	// By another agent, before the prune comes to the point.
	p.change()
	p.prune(control.PruneRequest{})
	p.advance(73 * time.Hour)
	twin := p.twin(lastTwo, 0)
	first := p.points()[0].ID
	var once2 sync.Once
	p.on(func(_ context.Context, what string, key store.Key) error {
		if what == "put" && strings.Contains(string(key), "/marks/") { // asks for the time, before it decides
			once2.Do(func() {
				_, err := twin.HoldPoint(t.Context(), control.PointHold{Item: "docs", Point: first, Owner: "audit", Reason: "yearly"})
				outcome <- err
			})
		}
		return nil
	})
	p.prune(control.PruneRequest{Item: "docs"})
	must(t, <-outcome)
	if left := p.points(); len(left) != 3 || left[0].ID != first || len(left[0].Holds) != 1 {
		t.Errorf("left: %+v", left)
	}
	p.on(nil)
	p.restorable()
}

// TestHoldFromAnotherHost: a hold that is put on one host while a prune of another is about
// to remove the point says that it may be too late, whether it is or not.
func TestHoldFromAnotherHost(t *testing.T) {
	for _, tt := range []struct {
		name     string
		at, in   string // when the prune is there the hold is put
		left     int    // points
		conflict bool
	}{
		{"before the prune writes down what goes", "put", "/removed/", 3, false},
		{"before it looks for holds", "list", "/holds/", 3, true},
		{"after it has looked", "delete", "/points/", 2, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPruned(t, lastTwo)
			p.change()
			p.change()
			p.prune(control.PruneRequest{})
			p.advance(73 * time.Hour)
			twin := p.twin(lastTwo, 0)
			first := p.points()[0].ID
			outcome := make(chan error, 1)
			written := tt.at == "put"
			var mu sync.Mutex
			var once sync.Once
			p.on(func(_ context.Context, what string, key store.Key) error {
				mu.Lock()
				written = written || what == "put" && strings.Contains(string(key), "/removed/")
				now := written && what == tt.at && strings.Contains(string(key), tt.in)
				mu.Unlock()
				if now {
					once.Do(func() {
						_, err := twin.HoldPoint(t.Context(), control.PointHold{Item: "docs", Point: first, Owner: "audit", Reason: "yearly"})
						outcome <- err
					})
				}
				return nil
			})
			p.prune(control.PruneRequest{Item: "docs"})
			close(outcome)
			if err, met := <-outcome; !met {
				t.Fatal("the prune never was there")
			} else if tt.conflict {
				p.refused(err, control.CodeConflict)
			} else {
				must(t, err)
			}
			p.on(nil)
			if left := p.points(); len(left) != tt.left {
				t.Errorf("left: %+v", left)
			}
			p.restorable()
		})
	}
}
