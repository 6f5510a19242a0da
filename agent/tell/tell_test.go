package tell_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/alarm"
	"github.com/cofferbackup/coffer/agent/audit"
	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/metrics"
	"github.com/cofferbackup/coffer/agent/notify/message"
	"github.com/cofferbackup/coffer/agent/queue"
	"github.com/cofferbackup/coffer/agent/state"
	"github.com/cofferbackup/coffer/agent/tell"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// look is what an agent sees of itself, and at what time.
type look struct {
	at     time.Duration // since noon
	vault  control.Vault
	items  []control.Item
	notice []string // that must come of it
}

// stage shows a teller what it is to see, and hears what it tells.
type stage struct {
	cfg     tell.Config
	notices chan message.Notice
	looked  chan struct{}  // the teller has looked
	next    chan time.Time // it goes on

	mu      sync.Mutex
	showing look
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{notices: make(chan message.Notice, 100), looked: make(chan struct{}), next: make(chan time.Time)}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m message.Notice
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		s.notices <- m
	}))
	t.Cleanup(server.Close)
	settings := &config.Config{Notify: map[string]config.Notify{"hook": {Webhook: &config.Webhook{URL: server.URL}}}}
	log := slog.New(slog.DiscardHandler)
	folder, err := state.Open(t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(folder.Close)
	book, err := audit.Open(audit.Config{Dir: folder.Path("audit")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { book.Close() })
	jobs, err := queue.Open(t.Context(), queue.Config{Dir: folder.Path("jobs"), Clock: time.Now, Log: log, Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(jobs.Stop)
	s.cfg = tell.Config{
		Settings: func() *config.Config { return settings }, State: folder, Status: s.status,
		Wrong: func(st control.Status) *alarm.Found {
			return alarm.Of(alarm.Look{Vaults: st.Vaults, Items: st.Items, Now: s.clock()})
		},
		Lost:    func(string, string) int { return 0 },
		Refused: func() *control.Problem { return nil },
		Health:  func(string) custody.Health { return custody.Health{} },
		Audit:   audit.NewDaily(book, s.clock), Counts: metrics.New(metrics.Config{View: func() metrics.View { return metrics.View{} }}), Jobs: jobs,
		Round: func(time.Duration) {}, Host: "web1", Started: noon, Clock: s.clock, After: s.after, Log: log,
	}
	return s
}

func (s *stage) now() look {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.showing
}

func (s *stage) show(l look) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.showing = l
}

func (s *stage) clock() time.Time { return noon.Add(s.now().at) }

func (s *stage) status(context.Context) (control.Status, error) {
	l := s.now()
	return control.Status{Vaults: []control.Vault{l.vault}, Items: l.items}, nil
}

// after: a round of the loop is two waits, and the first begins when it has looked. The
// notifier needs none: it is woken by what there is to tell.
func (s *stage) after(d time.Duration) <-chan time.Time {
	switch d {
	case 30 * time.Second:
		s.looked <- struct{}{}
		return s.next
	case tell.LookEvery - 30*time.Second:
		return s.next
	}
	return nil
}

// play shows a teller one look after the other, and wants its notices.
func play(t *testing.T, looks ...look) {
	t.Helper()
	s := newStage(t)
	s.show(looks[0])
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { tell.New(s.cfg).Run(ctx) })
	defer running.Wait()
	defer cancel()
	for i, l := range looks {
		if i > 0 {
			s.show(l)
			s.next <- noon
			s.next <- noon
		}
		<-s.looked
		var got []string
		for range l.notice {
			select {
			case m := <-s.notices:
				got = append(got, string(m.Kind)+" "+m.Subject+": "+m.Message)
			case <-time.After(10 * time.Second):
			}
		}
		slices.Sort(got)
		slices.Sort(l.notice)
		if !slices.Equal(got, l.notice) {
			t.Fatalf("look %d: told %q, want %q", i, got, l.notice)
		}
	}
	select {
	case m := <-s.notices:
		t.Errorf("told as well: %+v", m)
	case <-time.After(200 * time.Millisecond):
	}
}

func site(e *control.Error) control.Vault {
	if e != nil {
		return control.Vault{Name: "site", State: control.StateUnknown, Error: e}
	}
	return control.Vault{Name: "site", State: control.StateAccessible}
}

func etc(change func(*control.Item)) []control.Item {
	it := control.Item{Name: "etc", Vault: "site", Points: 3, LastGood: noon.Add(-10 * time.Hour)}
	if change != nil {
		change(&it)
	}
	return []control.Item{it}
}

// TestFaultsOfOneItem: each is told in its own words, and each is over for itself.
func TestFaultsOfOneItem(t *testing.T) {
	warnings := []control.Problem{{Kind: "holds", Message: "a hold does not open"}, {Kind: "marks", Message: "a mark does not open"}}
	play(t,
		look{vault: site(nil), items: etc(func(it *control.Item) { it.Overdue, it.Proof.Faults, it.Warnings = true, 2, warnings }), notice: []string{
			"alarm backup of etc: a backup was due, and no good point came of it since 2026-11-22T02:00:00Z",
			"alarm item etc: verifies found 2 faults that are not mended",
			"alarm item etc: a hold does not open",
			"alarm item etc: a mark does not open"}},
		look{at: 5 * time.Minute, vault: site(nil), items: etc(func(it *control.Item) { it.Overdue, it.Warnings = true, warnings[1:] }), notice: []string{
			"recovery item etc: it is well again", "recovery item etc: it is well again"}},
		look{at: 10 * time.Minute, vault: site(nil), items: etc(func(it *control.Item) { it.Warnings = warnings[1:] }), notice: []string{
			"recovery backup of etc: it is well again"}},
		look{at: 15 * time.Minute, vault: site(nil), items: etc(nil), notice: []string{"recovery item etc: it is well again"}})
}

// TestSilentStore: it is waited for, its items say nothing of it, and what was wrong with
// them stays as it was told.
func TestSilentStore(t *testing.T) {
	silent := &control.Error{Code: control.CodeStore, Message: "store does not answer", Next: "see that it is up"}
	unseen := []control.Item{{Name: "etc", Vault: "site", Error: silent}}
	bad := etc(func(it *control.Item) { it.Error = &control.Error{Code: control.CodeDamaged, Message: "bad index"} })
	play(t,
		look{vault: site(nil), items: bad, notice: []string{"alarm item etc: bad index"}},
		look{at: 5 * time.Minute, vault: site(nil), items: unseen},
		look{at: 10 * time.Minute, vault: site(silent), items: unseen},
		look{at: 20 * time.Minute, vault: site(nil), items: unseen, notice: []string{"alarm store of vault site: since 2026-11-22T12:05:00Z: store does not answer"}},
		look{at: 25 * time.Minute, vault: site(nil), items: bad, notice: []string{"recovery store of vault site: it is well again"}},
		look{at: 30 * time.Minute, vault: site(silent), items: unseen},
		look{at: 35 * time.Minute, vault: site(nil), items: etc(nil), notice: []string{"recovery item etc: it is well again"}})
}

// TestNotMadeYet: whoever sets a vault up is not called for it.
func TestNotMadeYet(t *testing.T) {
	play(t,
		look{vault: control.Vault{Name: "site", State: control.StateAbsent}, items: etc(func(it *control.Item) { it.Points = 0 })},
		look{at: 5 * time.Minute, vault: site(nil), items: etc(func(it *control.Item) { it.Points = 0 })})
}
