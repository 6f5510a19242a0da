package throttle_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/internal/throttle"
)

// clock passes only while somebody sleeps.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return ctx.Err()
}

var begin = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

func limiter(rate int64) (*throttle.Limiter, *clock) {
	c := &clock{now: begin}
	return throttle.New(throttle.Config{Rate: rate, Now: c.Now, Sleep: c.Sleep}), c
}

// took tells how long it took for n bytes to go, a piece at a time.
func took(t *testing.T, l *throttle.Limiter, c *clock, n, piece int) time.Duration {
	t.Helper()
	start := c.Now()
	for ; n > 0; n -= piece {
		if err := l.Wait(t.Context(), min(n, piece)); err != nil {
			t.Fatal(err)
		}
	}
	return c.Now().Sub(start)
}

// TestRate: whatever the pieces, so much goes in a time, give or take what the bucket
// held at the beginning.
func TestRate(t *testing.T) {
	for _, rate := range []int64{1 << 10, 1 << 20, 100 << 20} {
		for _, piece := range []int{1000, 64 << 10, 32 << 20} {
			l, c := limiter(rate)
			n := int(rate * 20)
			if piece < n/10_000 {
				continue // so many steps show nothing new
			}
			held := float64(4 << 10)
			least := time.Duration((float64(n) - held) / float64(rate) * float64(time.Second))
			if got := took(t, l, c, n, piece); got < least-time.Millisecond || got > 20*time.Second+time.Millisecond {
				t.Errorf("%d bytes in pieces of %d at %d a second took %s, want %s", n, piece, rate, got, least)
			}
		}
	}
}

func TestNoLimit(t *testing.T) {
	l, c := limiter(0)
	if got := took(t, l, c, 1<<40, 1<<30); got != 0 {
		t.Errorf("without a limit it took %s", got)
	}
	if err := l.Wait(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// TestSetRate: a limit can be set, changed and taken away while it is in use.
func TestSetRate(t *testing.T) {
	l, c := limiter(0)
	for _, step := range []struct {
		rate int64
		want time.Duration
	}{{1 << 20, 10 * time.Second}, {10 << 20, time.Second}, {1 << 10, 10 * 1024 * time.Second}, {0, 0}, {1 << 20, 10 * time.Second}} {
		l.SetRate(step.rate)
		got := took(t, l, c, 10<<20, 64<<10)
		if got > step.want+step.want/10 || got < step.want-step.want/7 {
			t.Errorf("10 MiB at %d a second took %s, want %s", step.rate, got, step.want)
		}
	}
}

// TestShared: several have the rate together, and each gets on.
func TestShared(t *testing.T) {
	l, c := limiter(1 << 20)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := l.Wait(t.Context(), 4<<20); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// The clock of the test adds up what each of them sleeps, so it shows no less than
	// the 32 seconds that they have to take together.
	if got := c.Now().Sub(begin); got < 31*time.Second {
		t.Errorf("8 times 4 MiB at 1 MiB a second took %s", got)
	}
}

func TestWaitEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	sleeps := 0
	l := throttle.New(throttle.Config{Rate: 1 << 10, Sleep: func(ctx context.Context, d time.Duration) error {
		if sleeps++; sleeps == 3 {
			cancel()
		}
		return ctx.Err()
	}})
	if err := l.Wait(ctx, 1<<30); !errors.Is(err, context.Canceled) || sleeps != 3 {
		t.Errorf("wait ends with %v after %d sleeps", err, sleeps)
	}
	if err := l.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("wait after the end: %v", err)
	}
	// A real sleep that nobody would wait for.
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := throttle.New(throttle.Config{Rate: 1}).Wait(ctx, 1<<30); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait past a deadline: %v", err)
	}
}
