//go:build linux

package agent_test

import (
	"context"
	"sync"
	"time"

	"github.com/cofferbackup/coffer/agent/config"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/software"
)

// provider has software keys, whose answers a test decides.
type provider struct {
	mu       sync.Mutex
	broken   map[string]error // by key name: what it answers to everything
	versions map[string][]string
	facts    map[string]kek.Facts     // by URI
	held     map[string]chan struct{} // by key name: what it answers waits for this
	unwraps  int
	now      func() time.Time
	looks    []time.Time // for versions of keys
}

func (p *provider) breaks(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.broken, name)
	} else {
		p.broken[name] = err
	}
}

// hold has a key keep everybody who wants something opened waiting until release is
// called.
func (p *provider) hold(name string) (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := make(chan struct{})
	p.held[name] = c
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.held, name)
		close(c)
	}
}

// says decides what is said of the key in a file.
func (p *provider) says(uri string, f kek.Facts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.facts[uri] = f
}

// publish makes the keys in these files the versions of a key, the newest first.
func (p *provider) publish(name string, uris ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.versions[name] = uris
}

func (p *provider) broke(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken[name]
}

// looked is how often somebody looked for versions of keys from one time until another.
func (p *provider) looked(from, until time.Time) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.looks {
		if !at.Before(from) && at.Before(until) {
			n++
		}
	}
	return n
}

func (p *provider) calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unwraps
}

// open opens the key's files: URI is the newest, and what the test put before it.
func (p *provider) open(ctx context.Context, name string, key config.Key) ([]kek.Key, error) {
	if err := p.broke(name); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.looks = append(p.looks, p.now())
	uris := append([]string(nil), p.versions[name]...)
	p.mu.Unlock()
	if len(uris) == 0 {
		uris = []string{key.URI}
	}
	var keys []kek.Key
	for _, uri := range uris {
		k, err := software.Open(ctx, name, uri)
		if err != nil {
			return nil, err
		}
		keys = append(keys, &fickle{Key: k, p: p})
	}
	return keys, nil
}

// fickle is a key that answers as its provider says.
type fickle struct {
	kek.Key
	p *provider
}

func (f *fickle) Unwrap(ctx context.Context, w kek.Wrapped) ([]byte, error) {
	if err := f.broke(); err != nil {
		return nil, err
	}
	f.p.mu.Lock()
	f.p.unwraps++
	held := f.p.held[f.Ref().Name]
	f.p.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return nil, kek.Interrupted(ctx, "unwrap")
		}
	}
	return f.Key.Unwrap(ctx, w)
}

func (f *fickle) Check(ctx context.Context) error {
	if err := f.broke(); err != nil {
		return err
	}
	return f.Key.Check(ctx)
}

// broke is why the key opens nothing: "NAME/open" leaves its public half alone, and a
// URI its other versions.
func (f *fickle) broke() error {
	for _, what := range []string{f.Ref().Name, f.Ref().Name + "/open", f.Ref().URI} {
		if err := f.p.broke(what); err != nil {
			return err
		}
	}
	return nil
}

func (f *fickle) Inspect(context.Context) (kek.Facts, error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return f.p.facts[f.Ref().URI], nil
}
