//go:build linux

package agent_test

import (
	"context"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// chance tells whether what happens so often does happen.
func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// happen decides what befalls the world in the next hour. What a simulation may not lack
// has its day.
func (w *world) happen(hour int) {
	w.Helper()
	w.weather(hour)
	w.jump(hour)
	w.clones(hour)
	if hour == 12 && (w.day == 5 || w.day == 11 || w.chance(0.2)) {
		w.keeps = w.rng.IntN(len(retentions))
		w.reload()
	}
	if hour == 6 || hour == 18 {
		w.hold()
	}
	w.die(hour)
}

// weather decides how the store answers.
func (w *world) weather(hour int) {
	gale := w.day == 9 && hour >= 6 || w.day == 10 || w.day == 11 && hour < 6 // two days
	hourly := w.chance(0.03)
	flaky, slow := 0.0, w.chance(0.1)
	if w.chance(0.2) {
		flaky = []float64{0.01, 0.05, 0.3}[w.rng.IntN(3)]
	}
	w.sky.set(func(s *sky) {
		if (gale || hourly) && !s.away {
			w.counts.outages++
		}
		s.away, s.flaky, s.slow = gale || hourly, flaky, slow
	})
	if gale || hourly || flaky > 0 || slow {
		w.calm = false
	}
}

// jump sets the clock a day ahead or back for some hours.
func (w *world) jump(hour int) {
	if w.off != 0 {
		w.calm = false
		if w.clock.True().Before(w.back) {
			return
		}
		w.clock.jump(-w.off)
		w.off = 0
		w.counts.jumps++
		return
	}
	day := 24 * time.Hour
	switch {
	case w.day == 3 && hour == 7, w.day == 12 && hour == 15:
		w.off = day
	case w.day == 6 && hour == 9, w.day == 13 && hour == 2:
		w.off = -day
	case w.chance(0.005):
		w.off = time.Duration(w.rng.IntN(49)-24) * time.Hour
	}
	if w.off != 0 {
		w.calm = false
		w.clock.jump(w.off)
		w.counts.jumps++
		w.back = w.clock.True().Add(time.Duration(1+w.rng.IntN(8)) * time.Hour)
	}
}

// clones has the host cloned, and the clone run beside it for some hours. Sometimes it is
// a clone of before, which knows nothing of what was since.
func (w *world) clones(hour int) {
	w.Helper()
	if w.twin.life != nil {
		w.calm = false
		if w.chance(0.15) {
			w.twin.end()
		}
		return
	}
	if !(hour == 10 && (w.day == 2 || w.day == 7 || w.day == 12)) && !w.chance(0.01) {
		return
	}
	w.calm = false
	if !exists(w.twin.path("state")) || w.chance(0.5) {
		w.one.end()
		w.twin.clone(w.one)
		w.one.begin()
	}
	w.twin.begin()
	w.counts.clones++
}

// die has an agent killed in the next hour, at an operation of the store, and starts
// those that were before.
func (w *world) die(hour int) {
	w.Helper()
	if w.twin.life != nil && w.twin.life.dead.Load() {
		w.counts.crashes++
		w.twin.end()
	}
	if w.one.life == nil || w.one.life.dead.Load() {
		w.calm = false
		if w.one.life != nil {
			w.counts.crashes++
			w.one.end()
			if w.chance(0.2) || w.counts.lost == 0 && w.day > 7 {
				w.one.forget()
				w.counts.lost++
			}
		}
		if w.chance(0.3) {
			return // nobody is there to start it
		}
		w.one.begin()
	}
	for _, h := range []*host{w.one, w.twin} {
		if h.life != nil && (w.chance(0.06) || h == w.one && hour == 20 && w.day%5 == 4) {
			w.calm = false
			h.life.left.Store(1 + int64(w.rng.IntN(120)))
		}
	}
}

// clear makes an end of all that is wrong: the agent runs, the store answers, and the
// clock is right.
func (w *world) clear() {
	w.Helper()
	w.sky.set(func(s *sky) { s.away, s.flaky, s.slow = false, 0, false })
	if w.off != 0 {
		w.clock.jump(-w.off)
		w.off = 0
	}
	for _, h := range []*host{w.one, w.twin} {
		if h.life != nil {
			h.life.left.Store(0)
		}
		if h.life != nil && h.life.dead.Load() {
			h.end()
		}
	}
	if w.one.life == nil {
		w.one.begin()
	}
	w.troubled = 2
}

// hold has an operator hold some point, or let another go.
func (w *world) hold() {
	w.Helper()
	if w.sky.away || w.sky.flaky > 0 || !w.one.lives() || w.one.life.left.Load() > 0 {
		return // nobody would know whether it was done
	}
	if w.chance(0.4) {
		w.release()
	}
	points := w.book.live()
	if len(points) == 0 {
		return
	}
	name := points[w.rng.IntN(len(points))]
	_, err := w.one.HoldPoint(context.Background(), control.PointHold{Item: "docs", Point: string(name), Owner: "legal", Reason: "a case"})
	if err != nil {
		w.Errorf("%s: hold %s: %v", w, name, err)
		return
	}
	w.book.points[name].held = true
	w.counts.holds++
}

// release lets all points go that are held.
func (w *world) release() {
	w.Helper()
	for name, e := range w.book.points {
		if !e.held {
			continue
		}
		if _, err := w.one.ReleasePoint(context.Background(), control.PointRelease{Item: "docs", Point: string(name)}); err != nil {
			w.Errorf("%s: release %s: %v", w, name, err)
		}
		e.held = false
		w.counts.releases++
	}
}
