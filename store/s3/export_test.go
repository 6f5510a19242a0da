package s3

import "time"

// WithStall returns cfg with another time after which a connection that moves no
// byte is cut.
func WithStall(cfg Config, d time.Duration) Config {
	cfg.stall = d
	return cfg
}
