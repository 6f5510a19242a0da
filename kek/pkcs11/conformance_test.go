//go:build cgo && linux

package pkcs11_test

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/kektest"
	"github.com/cofferbackup/coffer/kek/pkcs11"
)

func TestConformanceSoftHSM(t *testing.T) { conform(t, testkit.SoftHSM(t), kek.OAEPSHA1) }

func TestConformanceNSS(t *testing.T) { conform(t, testkit.NSS(t), kek.OAEPSHA256) }

func TestConformanceOpenCryptoki(t *testing.T) {
	testkit.OpenCryptoki(t, func(t *testing.T, tok testkit.Token) { conform(t, tok, kek.OAEPSHA256) })
}

// TestConformanceRemote runs the suite through a socket and a server.
func TestConformanceRemote(t *testing.T) {
	tok, _ := testkit.ServeHSM(t, testkit.SoftHSM(t))
	conform(t, tok, kek.OAEPSHA1)
}

// keyPrefix marks the keys of tests on a token that has others.
const keyPrefix = "coffer-test-"

func conform(t *testing.T, tok testkit.Token, alg kek.Algorithm) {
	pool, _ := newPool(t)
	create(t, pool, tok.URI(keyPrefix+"kek"))
	create(t, pool, tok.URI(keyPrefix+"other"))
	kektest.Run(t, func(t *testing.T) kektest.Provider {
		return kektest.Provider{
			Key: open(t, pool, tok.URI(keyPrefix+"kek")), Other: open(t, pool, tok.URI(keyPrefix+"other")),
			Provider: kek.PKCS11, Algorithm: alg,
			Secrets: []string{tok.PIN, tok.PINFile},
		}
	})
}

// bench is what the tests see of a Pool: its clock and its log.
type bench struct {
	mu  sync.Mutex
	now time.Time
	log bytes.Buffer
}

func (b *bench) Now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func (b *bench) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *bench) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// callWait is how long a token may take in a test.
const callWait = 10 * time.Second

func newPool(t *testing.T) (*pkcs11.Pool, *bench) {
	t.Helper()
	b := &bench{now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)}
	pool := pkcs11.NewPool(pkcs11.Config{Log: slog.New(slog.NewTextHandler(b, nil)), Now: b.Now, CloseWait: 2 * time.Second, CallWait: callWait})
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Errorf("close pool: %v", err)
		}
	})
	return pool, b
}

func create(t *testing.T, pool *pkcs11.Pool, uri string) kek.Ref {
	t.Helper()
	ref, err := pool.Create(t.Context(), uri, 2048)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return ref
}

// open opens the newest version of a key.
func open(t *testing.T, pool *pkcs11.Pool, uri string) kek.Key {
	t.Helper()
	keys, err := pool.Versions(t.Context(), "main", uri)
	if err != nil {
		t.Fatalf("Versions: %v", err)
	}
	t.Cleanup(func() {
		for _, key := range keys {
			if err := key.Close(); err != nil {
				t.Errorf("close key: %v", err)
			}
		}
	})
	return keys[0]
}

// keyOn makes a key on a token, and opens it.
func keyOn(t *testing.T, tok testkit.Token) (kek.Key, *bench) {
	t.Helper()
	pool, b := newPool(t)
	create(t, pool, tok.URI("kek"))
	return open(t, pool, tok.URI("kek")), b
}
