package main

import (
	"sync/atomic"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/kek/secret"
)

// retriesOf counts how often operations of the stores of a URL were tried again.
func (w *wiring) retriesOf(url string) *atomic.Int64 {
	n, _ := w.retries.LoadOrStore(url, new(atomic.Int64))
	return n.(*atomic.Int64)
}

func (w *wiring) retried(vault config.Vault) int64 { return w.retriesOf(vault.Store).Load() }

// readSecret reads a secret that the configuration names, as it is now.
func readSecret(ref string) ([]byte, error) {
	s, err := secret.Parse(ref)
	if err != nil {
		return nil, err
	}
	return s.Read()
}
