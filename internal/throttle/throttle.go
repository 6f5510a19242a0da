// Package throttle holds back a flow of bytes that several share.
package throttle

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// Config of a Limiter. Zero fields take the defaults.
type Config struct {
	Rate  int64                                            // bytes a second; 0: no limit
	Now   func() time.Time                                 // time.Now
	Sleep func(ctx context.Context, d time.Duration) error // returns ctx.Err() as soon as ctx is done
}

// Limiter lets so many bytes a second through, for all who use it together. It is
// safe for concurrent use.
type Limiter struct {
	cfg    Config
	bucket *rate.Limiter
}

// A bucket holds what flows in an eighth of a second, and at least so much.
const (
	share    = 8
	smallest = 4 << 10
)

// New returns a limiter.
func New(cfg Config) *Limiter {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Sleep == nil {
		cfg.Sleep = sleep
	}
	l := &Limiter{cfg: cfg, bucket: rate.NewLimiter(rate.Inf, smallest)}
	l.SetRate(cfg.Rate)
	return l
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// SetRate changes the bytes a second; 0 is no limit. Who waits already waits as long
// as he was to.
func (l *Limiter) SetRate(bytes int64) {
	now := l.cfg.Now()
	if bytes <= 0 {
		l.bucket.SetLimitAt(now, rate.Inf)
		return
	}
	l.bucket.SetLimitAt(now, rate.Limit(bytes))
	l.bucket.SetBurstAt(now, int(max(smallest, bytes/share)))
}

// Wait returns when n bytes may go, or ctx has ended.
func (l *Limiter) Wait(ctx context.Context, n int) error {
	for n > 0 && l.bucket.Limit() != rate.Inf {
		if err := ctx.Err(); err != nil {
			return err
		}
		now := l.cfg.Now()
		part := min(n, l.bucket.Burst())
		r := l.bucket.ReserveN(now, part)
		if !r.OK() {
			continue // the bucket has become smaller since
		}
		if d := r.DelayFrom(now); d > 0 {
			if err := l.cfg.Sleep(ctx, d); err != nil {
				r.CancelAt(l.cfg.Now())
				return err
			}
		}
		n -= part
	}
	return ctx.Err()
}
