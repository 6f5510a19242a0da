package testkit

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Clock is the machine's, and can be put forward. A server that is started with it has
// its time from it.
type Clock struct {
	mu    sync.Mutex
	jumps []jump
}

// jump is a moment of the machine's clock, a whole second, and by how much this one
// went forward in it.
type jump struct {
	at time.Time
	by time.Duration
}

// Now is the time by the clock.
func (c *Clock) Now() time.Time { return c.At(time.Now()) }

// Ahead is by how much it is ahead of the machine's.
func (c *Clock) Ahead() time.Duration {
	now := time.Now()
	return c.At(now).Sub(now)
}

// At is what the clock showed when the machine's showed t.
func (c *Clock) At(t time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ahead := time.Duration(0)
	for _, j := range c.jumps {
		if !t.Before(j.at) {
			ahead += j.by
		}
	}
	return t.Add(ahead)
}

// Forward puts the clock forward. It returns when the second has ended in which it was
// called: what was made before then is told from what is made after by times in whole
// seconds too.
func (c *Clock) Forward(t testing.TB, by time.Duration) {
	t.Helper()
	at := time.Now().Truncate(time.Second).Add(time.Second)
	c.mu.Lock()
	c.jumps = append(c.jumps, jump{at, by})
	c.mu.Unlock()
	select {
	case <-time.After(time.Until(at)):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// ntpEpoch is 1 January 1900 in seconds of Unix (RFC 5905, section 6).
const ntpEpoch = -2208988800

// serveNTP tells the time to who asks for it as RFC 5905 has it, and returns where.
func (c *Clock) serveNTP(t testing.TB) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ask := make([]byte, 1<<10)
		for {
			n, from, err := conn.ReadFrom(ask)
			if err != nil {
				return
			}
			if n < 48 {
				continue
			}
			_, _ = conn.WriteTo(c.ntpAnswer(ask), from) // who did not get it asks again
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return conn.LocalAddr().String()
}

// ntpAnswer is the header of RFC 5905, section 7.3, as a server of stratum 1 fills it in.
func (c *Clock) ntpAnswer(ask []byte) []byte {
	now := c.Now()
	stamp := uint64(now.Unix()-ntpEpoch)<<32 | uint64(now.Nanosecond())<<32/uint64(time.Second)
	p := make([]byte, 48)
	p[0], p[1], p[2], p[3] = 4<<3|4, 1, 6, 0xec // version 4 and mode 4 (server), stratum, poll, precision
	copy(p[24:32], ask[40:48])                  // origin: what the client sent
	for _, at := range []int{16, 32, 40} {      // reference, receive, transmit
		binary.BigEndian.PutUint64(p[at:], stamp)
	}
	return p
}

// listed is a time in a listing of S3.
var listed = regexp.MustCompile(`<LastModified>([^<]*)</LastModified>`)

// serveS3 stands before an S3 server, which takes the time of objects from the machine,
// and has its answers say when they were put by the clock. It returns its address.
func (c *Clock) serveS3(t testing.TB, server string) string {
	t.Helper()
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: server})
			r.Out.Host = r.In.Host // it is signed
		},
		ModifyResponse: func(r *http.Response) error {
			if at, err := http.ParseTime(r.Header.Get("Last-Modified")); err == nil {
				r.Header.Set("Last-Modified", c.At(at).UTC().Format(http.TimeFormat))
			}
			if r.Request.Method != http.MethodGet || r.Request.URL.Query().Get("list-type") == "" {
				return nil
			}
			text, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			text = listed.ReplaceAllFunc(text, c.relisted)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
			r.Header.Set("Content-Length", strconv.Itoa(len(text)))
			return nil
		},
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	return front.Listener.Addr().String()
}

// relisted is a time in a listing by the clock.
func (c *Clock) relisted(element []byte) []byte {
	const form = "2006-01-02T15:04:05.000Z07:00"
	text := listed.FindSubmatch(element)[1]
	at, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return element
	}
	return bytes.Replace(slices.Clone(element), text, []byte(c.At(at).UTC().Format(form)), 1)
}
