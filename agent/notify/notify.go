// Package notify tells people what is wrong, and when it is right again: by webhook,
// mail, command, and the ping of a service that watches for missing backups.
//
// Invariants:
//   - Nobody who reports waits: for a channel, for the disk, or for anything else.
//   - A fault is told once to each channel, again after the channel's Repeat while it
//     lasts, and once when it is over. This is kept in a file, so that an agent that
//     starts again and again says the same thing once. What was told and not yet
//     written down when the agent died is told twice, never not at all.
//   - A channel that fails is tried again, later each time, and holds up no other.
//   - Everything that is kept is bounded: in number, and in length.
//   - Secrets are read anew each time, go nowhere but to the channel, and are in no
//     error and no log.
package notify

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/agent/notify/message"
)

// Config of a Notifier. Everything must be set.
type Config struct {
	Path string // of the file that remembers what was told
	Host string // this one's name
	// Channels returns those that there are now. What it returns is not changed.
	Channels func() map[string]config.Notify
	// Secret reads a secret: file:/path or env:NAME. What it returns is zeroed.
	Secret func(ref string) ([]byte, error)
	Clock  func() time.Time
	After  func(time.Duration) <-chan time.Time
	Log    *slog.Logger
}

// Report says that something is wrong.
type Report struct {
	// About says which fault it is. The same fault has the same one each time.
	About string
	// Notice of kind Failure or Alarm. Host, Time and Count are filled in.
	Notice message.Notice
	How    How
}

// How a fault is reported that was reported before.
type How int

// The ways.
const (
	Again  How = iota // it happened once more
	Lasts             // it is still so
	Graver            // it has become worse: it is told at once, whenever it was told last
)

// Channel is how a channel stands.
type Channel struct {
	Name     string
	Sent     int64 // notices and pings, since the agent began
	Failures int64 // tries that failed, since then
	// Failing since; zero: the last try was good, or there was none.
	Failing time.Time
	Error   string // of the last try; "" if it was good
}

// Notifier is safe for concurrent use.
type Notifier struct {
	cfg  Config
	wake chan struct{} // of length 1

	mu       sync.Mutex
	faults   map[string]*fault // by what they are about
	changed  bool              // since they were written
	channels map[string]*channel
}

// channel is what is known of a channel besides its configuration.
type channel struct {
	Channel
	busy    bool
	inRow   int // tries that failed since the last good one
	retry   time.Time
	passing []message.Notice // to be told once, oldest first
	pings   []ping
}

// Bounds of what waits.
const (
	maxFaults  = 1000
	maxPassing = 100 // notices of success, and pings, of a channel
	maxMessage = 4 << 10
)

// Open returns a notifier that goes on where the last one stopped. What was told
// before is forgotten, with a warning, if the file cannot be read.
func Open(cfg Config) *Notifier {
	n := &Notifier{cfg: cfg, wake: make(chan struct{}, 1), channels: make(map[string]*channel)}
	n.faults = n.load()
	return n
}

// Report notes a fault, to be told.
func (n *Notifier) Report(r Report) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.report(r)
}

func (n *Notifier) report(r Report) {
	now := n.cfg.Clock()
	f, known := n.faults[r.About]
	if !known {
		if len(n.faults) >= maxFaults && !n.makeRoom() {
			n.cfg.Log.Warn("too many faults at once to tell of this one", "about", r.About, "message", r.Notice.Message)
			return
		}
		f = &fault{Told: make(map[string]told)}
		n.faults[r.About] = f
	}
	f.happen(now, n.filled(r.Notice, now), r.How)
	n.changed = true
	n.poke()
}

// Clear notes that a fault is over. It is nothing if there was none. Without a subject
// the notice has that of the fault.
func (n *Notifier) Clear(about string, m message.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clear(about, m)
}

func (n *Notifier) clear(about string, m message.Notice) {
	f, ok := n.faults[about]
	if !ok || f.over() {
		return
	}
	now := n.cfg.Clock()
	m.Kind = message.Recovery
	f.end(now, n.filled(m, now))
	n.changed = true
	n.poke()
}

// Faults returns what the open faults are about, in order.
func (n *Notifier) Faults() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for about, f := range n.faults {
		if !f.over() {
			out = append(out, about)
		}
	}
	slices.Sort(out)
	return out
}

// Tell tells something once, to the channels that want it, and forgets it: that a job
// is done. If a channel does not keep up, the oldest go untold.
func (n *Notifier) Tell(m message.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m = n.filled(m, n.cfg.Clock())
	for name, cfg := range n.cfg.Channels() {
		if cfg.Ping == nil && wants(cfg, m) {
			c := n.channel(name)
			c.passing = bounded(append(c.passing, m))
		}
	}
	n.poke()
}

// Ping tells those that watch for missing backups of an item how one goes.
func (n *Notifier) Ping(item string, s Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, cfg := range n.cfg.Channels() {
		if cfg.Ping != nil && (len(cfg.Items) == 0 || slices.Contains(cfg.Items, item)) {
			c := n.channel(name)
			c.pings = bounded(append(c.pings, ping{s, n.cfg.Clock()}))
		}
	}
	n.poke()
}

// Channels returns how each channel stands, in the order of their names.
func (n *Notifier) Channels() []Channel {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Channel
	for _, name := range slices.Sorted(maps.Keys(n.cfg.Channels())) {
		out = append(out, n.channel(name).Channel)
	}
	return out
}

// Run tells what there is to tell until ctx ends. What is on its way then is cut off,
// and told after the next start.
func (n *Notifier) Run(ctx context.Context) {
	var sending sync.WaitGroup
	defer func() {
		sending.Wait()
		n.save()
	}()
	for {
		next := n.pass(ctx, &sending)
		n.save()
		var late <-chan time.Time
		if next > 0 {
			late = n.cfg.After(next)
		}
		select {
		case <-n.wake:
		case <-late:
		case <-ctx.Done():
			return
		}
	}
}

// channel returns what is known of a channel. The caller holds mu.
func (n *Notifier) channel(name string) *channel {
	c, ok := n.channels[name]
	if !ok {
		c = &channel{Channel: Channel{Name: name}}
		n.channels[name] = c
	}
	return c
}

// filled adds what the notifier knows to a notice.
func (n *Notifier) filled(m message.Notice, now time.Time) message.Notice {
	m.Host, m.Time = n.cfg.Host, now
	m.Message, m.Next, m.Subject = cut(m.Message), cut(m.Next), cut(m.Subject)
	m.Count = max(m.Count, 1)
	return m
}

func cut(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	return strings.ToValidUTF8(text[:maxMessage], "") + " ..."
}

// poke has Run look again.
func (n *Notifier) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// bounded lets the oldest go.
func bounded[T any](waiting []T) []T { return waiting[max(0, len(waiting)-maxPassing):] }
