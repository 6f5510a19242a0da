//go:build !race

package sqlite_test

// raced says that the race detector is at work.
const raced = false

// every is of how many chunks one is looked up.
const every = 1
