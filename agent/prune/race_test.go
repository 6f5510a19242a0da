//go:build race

package prune_test

// slow: the race detector makes everything ten times slower.
const slow = true
