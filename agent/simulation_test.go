//go:build linux

package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/kek/software"
	"github.com/cofferbackup/coffer/store/mem"
)

// The world of the simulation: how long what is marked stays, and the days.
const (
	grace   = 2 * time.Hour
	abandon = 8 * time.Hour
	days    = 14
	lingers = 72 * time.Hour // what is let go, at the most: the store is away for two days
)

// TestFortnight lives through fourteen days of a host that is backed up each hour, with
// retention, prunes and verifies by schedule, on a store that fails and a clock that
// jumps. The agent crashes, loses its state, and runs on a cloned host as well. Whatever
// happens: each point restores to what was backed up, none is gone that the retention
// or a hold keeps, and in the end nothing else is left.
//
// COFFER_SEEDS=FIRST-LAST goes through other fortnights.
func TestFortnight(t *testing.T) {
	first, last := uint64(1), uint64(1)
	if text := os.Getenv("COFFER_SEEDS"); text != "" {
		from, to, _ := strings.Cut(text, "-")
		var err error
		if first, err = strconv.ParseUint(from, 10, 32); err != nil {
			t.Fatal(err)
		}
		if last, err = strconv.ParseUint(to, 10, 32); err != nil {
			last = first
		}
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed)
			for range days {
				w.day++
				for hour := range 24 {
					w.hour(hour)
				}
				w.evening()
			}
			w.judgement()
			w.report()
		})
	}
}

// counts is what happened. A simulation in which one of these never did is none.
type counts struct {
	jobs, restores, prunes, verifies int
	removed, repacked, rescued       int64
	crashes, lost, jumps, outages    int
	clones, reloads, holds, releases int
}

// world is a vault and the hosts that use it.
type world struct {
	testing.TB
	seed  uint64
	rng   *rand.Rand // of what happens when
	clock *hostClock
	store *mem.Store
	sky   *sky
	keys  *provider
	key   string // URI
	vault string // its id

	one, twin *host // the twin has the identity of the other at times
	book      *book
	mark      time.Time // the true time of the last step
	keeps     int       // which of retentions
	idle      bool
	day       int
	calm      bool      // nothing has happened in this hour
	troubled  int       // hours for which what happened may last
	back      time.Time // when the clock is put right, by the true time; zero: it is right
	off       time.Duration
	counts    counts

	mu    sync.Mutex
	wrong []string // that the agents have told, and nothing explains
	says  []string // what they told last
}

// retentions are what the operators want, now and then.
var retentions = []config.Retention{{Last: 6, Hourly: 24, Daily: 7}, {Last: 4, Hourly: 12, Daily: 5}, {Last: 8, Hourly: 30, Daily: 7}}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{TB: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 14)), clock: newHostClock(), keys: newBench(t, twoKeys).keys}
	w.store = mem.New(mem.Config{Now: w.clock.True})
	w.sky = &sky{clock: w.clock, rng: rand.New(rand.NewPCG(seed, 15))}
	w.one, w.twin = newHost(w, "one"), newHost(w, "twin")
	w.mark = w.clock.True()
	w.book = &book{w: w, points: make(map[catalog.PointName]*entry)}
	w.key = "file://" + w.one.path("main.pem")
	if err := software.Create(t.Context(), w.key, software.CreateOptions{Bits: 2048}); err != nil {
		t.Fatal(err)
	}
	w.one.begin()
	v, err := w.one.CreateVault(t.Context(), control.VaultCreate{Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	w.vault = v.ID
	t.Cleanup(func() { w.one.end(); w.twin.end() })
	return w
}

func (w *world) String() string {
	return fmt.Sprintf("seed %d, day %d, %s", w.seed, w.day, w.clock.Now().Format("01-02 15:04"))
}

func (w *world) retention() config.Retention { return retentions[w.keeps] }

// config is the configuration of both hosts.
func (w *world) config() string {
	id, when, keeps := "", "schedule: hourly, ", w.retention()
	if w.vault != "" {
		id = ", id: " + w.vault
	}
	if w.idle {
		when = ""
	}
	return fmt.Sprintf(`
agent: {state: $DIR/state, socket: $DIR/s}
keys:
  main: {uri: %q}
vaults:
  one:
    {store: "file://$DIR/one", keys: [main]%s, prune: {schedule: "every 3 hours", grace: %dh, abandon: %dh, repack_below: 60},
    verify: {structure: "every 6 hours", data: "daily at 04:00", every: 5d, restore: "daily at 05:00"}}
items:
  docs: {vault: one, files: {paths: [$DIR/docs]}}
policies:
  hourly: {items: [docs], %stimezone: UTC, retry: {tries: 3, first: 5m, longest: 20m}, retention: {last: %d, hourly: %d, daily: %d}}
`, w.key, id, grace/time.Hour, abandon/time.Hour, when, keeps.Last, keeps.Hourly, keeps.Daily)
}

// contents are what a point that is made now may have in it.
func (w *world) contents() []digest { return []digest{w.one.digest, w.twin.digest} }

// hour is an hour, from twenty minutes before the backup to forty after it.
func (w *world) hour(hour int) {
	w.Helper()
	w.calm = true
	w.happen(hour)
	if !w.calm {
		w.troubled = 2 // and what is tried again, or waits
	}
	w.pass(soon)
	before := w.book.made
	for _, h := range []*host{w.one, w.twin} {
		h.edit(w.rng)
	}
	for range 3 {
		w.step(w.mark.Add(20 * time.Minute))
	}
	if w.troubled > 0 {
		w.troubled--
	} else if w.book.made == before {
		w.Errorf("%s: no point was made in an hour without trouble", w)
	}
}

// step lets time pass until a time, and looks at what the agents have done. Where the
// store is slow, time passes meanwhile.
func (w *world) step(until time.Time) {
	w.Helper()
	w.mark = until
	w.pass(until.Sub(w.clock.True()))
}

// soon is after how long every scheduler has looked at the clock.
const soon = 30 * time.Second

// pass lets time pass, waits until the agents have done what was due, and looks at what
// came of it.
func (w *world) pass(d time.Duration) {
	w.Helper()
	w.clock.advance(max(d, soon))
	began, since := w.clock.Now(), w.clock.True()
	for _, h := range []*host{w.one, w.twin} {
		h.settle(since)
	}
	pruned := false
	for _, h := range []*host{w.one, w.twin} {
		for _, j := range h.news() {
			w.judge(h, j)
			pruned = pruned || j.Kind == control.KindPrune
		}
		pruned = pruned || h.life != nil && h.life.dead.Load()
	}
	w.book.look(pruned, began, w.clock.Now())
}

// judge takes down what a job came to.
func (w *world) judge(h *host, j control.Job) {
	w.Helper()
	w.counts.jobs++
	switch j.Kind {
	case control.KindPrune:
		w.counts.prunes++
	case control.KindVerify:
		w.counts.verifies++
	}
	if j.Result != nil && j.Result.Prune != nil {
		r := j.Result.Prune
		w.counts.removed += r.RemovedPoints
		w.counts.repacked += r.RepackedPacks
		w.counts.rescued += r.RescuedPacks
	}
	if j.State == control.JobFailed && (w.troubled == 0 || j.Error.Code == control.CodeDamaged) {
		w.Errorf("%s: %s of %s ended with %s: %s", w, j.Kind, h.name, j.Error.Code, j.Error.Message)
	}
}

// note takes down what an agent has told.
func (w *world) note(level slog.Level, message, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.says = append(w.says, text); len(w.says) > 40 {
		w.says = w.says[1:]
	}
	killed := strings.HasPrefix(message, "jobs did not come to a safe point")
	if level >= slog.LevelError && !killed || strings.Contains(message, "came back") {
		w.wrong = append(w.wrong, text)
	}
}

// evening wants every point to restore.
func (w *world) evening() {
	w.Helper()
	w.mu.Lock()
	for _, text := range w.wrong {
		w.Errorf("seed %d: %s", w.seed, text)
	}
	w.wrong = nil
	w.mu.Unlock()
	if w.sky.away {
		return
	}
	w.clear()
	w.pass(soon)
	w.book.restoreAll(w.one)
	if _, _, _, missing := w.book.waste(); len(missing) > 0 {
		w.Errorf("%s: points need packs that are not there: %s", w, missing)
	}
	if w.Failed() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.Fatalf("%s: the agents said last:\n%s", w, strings.Join(w.says, "\n"))
	}
}

// judgement ends the world: no more backups are made, and prunes have to leave what is
// needed and nothing else.
func (w *world) judgement() {
	w.Helper()
	w.clear()
	w.release()
	w.idle = true
	w.reload()
	before := w.counts.prunes
	for w.counts.prunes < before+10 {
		w.step(w.mark.Add(time.Hour))
		packs, sessions, marks, missing := w.book.waste()
		if packs+sessions+marks+len(missing) == 0 && len(w.loose()) == 0 {
			break
		}
	}
	packs, sessions, marks, missing := w.book.waste()
	if loose := w.loose(); packs+sessions+marks+len(missing)+len(loose) > 0 {
		w.Errorf("%s: after %d prunes there are %d packs that nothing needs, %d sessions, %d marks, points that nothing keeps: %s, and missing packs: %s",
			w, w.counts.prunes-before, packs, sessions, marks, loose, missing)
	}
	w.Logf("seed %d: %d prunes at the end", w.seed, w.counts.prunes-before)
	w.book.restoreAll(w.one)
	w.one.end()
	w.one.forget()
	w.one.begin()
	w.book.restoreAll(w.one)
}

// loose are the points that are there and that nothing keeps.
func (w *world) loose() (names []string) {
	w.Helper()
	for _, d := range w.book.decide(w.clock.Now()) {
		if !d.Keep {
			names = append(names, d.Point.ID)
		}
	}
	return names
}

// report says what there was.
func (w *world) report() {
	w.Helper()
	c := &w.counts
	var faults, delays int
	w.sky.set(func(s *sky) { faults, delays = s.faults, s.delays })
	w.Logf("seed %d: %d jobs, %d points made, %d gone, %d kept; %d restores, %d prunes, %d verifies; %d points removed, %d packs repacked, %d rescued; "+
		"%d faults and %d delays of the store, %d outages, %d crashes, %d states lost, %d jumps of the clock, %d clones, %d reloads, %d holds, %d released", w.seed,
		c.jobs, w.book.made, w.book.gone, len(w.book.live()), c.restores, c.prunes, c.verifies, c.removed, c.repacked, c.rescued,
		faults, delays, c.outages, c.crashes, c.lost, c.jumps, c.clones, c.reloads, c.holds, c.releases)
	for what, n := range map[string]int{"points": w.book.made, "points gone": w.book.gone, "restores": c.restores, "prunes": c.prunes, "verifies": c.verifies,
		"points removed": int(c.removed), "packs repacked": int(c.repacked), "faults": faults, "delays": delays, "outages": c.outages, "crashes": c.crashes, "states lost": c.lost,
		"jumps": c.jumps, "clones": c.clones, "reloads": c.reloads, "holds": c.holds, "releases": c.releases} {
		if n == 0 {
			w.Errorf("seed %d: there were no %s", w.seed, what)
		}
	}
}

// reload has both agents read the configuration anew.
func (w *world) reload() {
	w.Helper()
	for _, h := range []*host{w.one, w.twin} {
		if !h.lives() {
			continue
		}
		h.configure(w.config())
		if report, err := h.ReloadConfig(context.Background()); err != nil || len(report.Problems) > 0 {
			w.Fatalf("%s: reload: %+v, %v", w, report, err)
		}
	}
	w.counts.reloads++
}
