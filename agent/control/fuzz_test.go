package control_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// FuzzSelector reads any text as the name of a point: it means exactly one thing, and
// the same every time.
func FuzzSelector(f *testing.F) {
	for _, s := range []string{"", "latest", "2026-09-02", "2026-09-02T14:00", "2026-09-02 14:00:05-07:00", "2026-09-02T14:00:05Z-k3f9", "2026", "x/y", "a b", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sel, err := control.ParseSelector(text, time.UTC)
		if err != nil {
			if !errors.Is(err, control.ErrSelector) || sel != (control.Selector{}) {
				t.Fatalf("%q: %+v, %v", text, sel, err)
			}
			return
		}
		means := 0
		for _, is := range []bool{sel.Latest, !sel.AtOrBefore.IsZero(), sel.Prefix != ""} {
			if is {
				means++
			}
		}
		if means != 1 {
			t.Fatalf("%q means %+v", text, sel)
		}
		if sel.Prefix != "" && sel.Prefix != text {
			t.Fatalf("%q begins with %q", text, sel.Prefix)
		}
	})
}

// FuzzStream reads any bytes as a stream: values come only before its one end, which is
// a fault unless the stream says itself that it is whole.
func FuzzStream(f *testing.F) {
	for _, s := range []string{
		"", "{\"end\":{\"count\":0}}\n", "{\"value\":{\"path\":\"/a\",\"type\":\"file\"}}\n{\"end\":{\"count\":1}}\n",
		"{\"value\":{\"path\":\"/a\",\"path_raw\":\"L2H/\"}}\n\n{\"error\":{\"code\":\"store\",\"message\":\"x\"}}\n",
		"{\"end\":{\"count\":5}}\n", "{}\n", "null\n", "{\"value\":nul", "[[[[", "{\"end\":null}\n", "{\"value\":{},\"end\":{\"count\":1}}\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var values []control.Entry
		var end error
		ends := 0
		control.ReadStream(strings.NewReader(text), func(e control.Entry, err error) bool {
			if end != nil {
				t.Fatalf("%q goes on after %v", text, end)
			}
			if err != nil {
				end = err
				ends++
				return false
			}
			values = append(values, e)
			return true
		})
		if ends > 1 {
			t.Fatalf("%q ends %d times", text, ends)
		}
		if end == nil && !strings.Contains(strings.ToLower(text), "end") {
			t.Fatalf("%q is taken for whole, with %d values", text, len(values))
		}
		for _, e := range values { // what was read can be sent, and is the same then
			b, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			var again control.Entry
			if err := json.Unmarshal(b, &again); err != nil || again.Path != e.Path || again.Target != e.Target {
				t.Fatalf("%+v became %+v, %v", e, again, err)
			}
		}
	})
}

// FuzzTrailer reads a body with any trailers: it is whole only if its length is right
// and no error is told.
func FuzzTrailer(f *testing.F) {
	fault := base64.StdEncoding.EncodeToString([]byte(`{"code":"damaged","message":"x"}`))
	f.Add([]byte("half"), "4", "")
	f.Add([]byte("half"), "5", "")
	f.Add([]byte("half"), "", "")
	f.Add([]byte("half"), "4", fault)
	f.Add([]byte{}, "0", "")
	f.Add([]byte{}, "-1", "!")
	f.Add([]byte("x"), "+1", "bnVsbA==")
	f.Fuzz(func(t *testing.T, body []byte, length, fault string) {
		trailer := http.Header{}
		if length != "" {
			trailer.Set("Coffer-Length", length)
		}
		if fault != "" {
			trailer.Set("Coffer-Error", fault)
		}
		r := control.ReadMarked(bytes.NewReader(body), trailer)
		got, err := io.ReadAll(r)
		n, numErr := strconv.ParseInt(length, 10, 64)
		whole := fault == "" && numErr == nil && n == int64(len(body))
		if whole != (err == nil) || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes, length %q, fault %q: read %d, %v", len(body), length, fault, len(got), err)
		}
		if _, again := r.Read(make([]byte, 1)); err != nil && again == nil || err == nil && again != io.EOF { //nolint:errorlint // as Readers return it
			t.Fatalf("after %v it says %v", err, again)
		}
	})
}

// FuzzPaths sends any query and path to the verbs that read them from there: an answer
// is JSON, and never a fault of the agent.
func FuzzPaths(f *testing.F) {
	for _, s := range []string{"etc", "latest", "../x", "%2e%2e", "a%00b", "\xff", "1", "-1", "99999999999999999999", "?path=/etc", "#1"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, name, query string) {
		askPaths(t, name, query)
	})
}

// askPaths asks for things by any name, with any query.
func askPaths(t *testing.T, name, query string) {
	t.Helper()
	srv := control.NewServer(control.ServerConfig{Backend: world(), Logger: slog.New(slog.DiscardHandler), Role: control.Access{}.Role})
	for _, format := range []string{
		"/v1/items/%s", "/v1/vaults/%s", "/v1/keys/%s/usage", "/v1/policies/%s/explain", "/v1/jobs/%s", "/v1/jobs/%s/events",
		"/v1/items/%s/points/latest", "/v1/items/etc/points/%s/entries", "/v1/items/etc/points/%s/diff", "/v1/items/etc/points/%s/content",
	} {
		u := &url.URL{Scheme: "http", Host: "coffer", Path: fmt.Sprintf(format, name), RawQuery: "path=" + query + "&after=" + query + "&version=" + query}
		req := (&http.Request{Method: http.MethodGet, URL: u, Host: "coffer", Header: http.Header{}}).WithContext(control.WithPeer(t.Context(), control.Peer{}))
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, req)
		if kind := w.Header().Get("Content-Type"); kind == "application/json" && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%s answers %d %q", u, w.Code, w.Body)
		}
		if w.Code == http.StatusInternalServerError && !strings.Contains(w.Body.String(), `"damaged"`) {
			t.Fatalf("%s: %s", u, w.Body)
		}
	}
}
