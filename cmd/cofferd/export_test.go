package main

import "time"

// Execute is main, by a clock of the test's.
func Execute(clock func() time.Time) int { return execute(clock) }
