//go:build race

package sqlite_test

// raced says that the race detector is at work.
const raced = true

// every is of how many chunks one is looked up: each takes ten times as long here, and
// what this is to find are races.
const every = 16
