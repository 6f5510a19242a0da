package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

func TestSelector(t *testing.T) {
	loc := time.FixedZone("x", 2*3600)
	at := func(s string) control.Selector {
		tm, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return control.Selector{AtOrBefore: tm}
	}
	tests := map[string]control.Selector{
		"":                          {Latest: true},
		"latest":                    {Latest: true},
		"2026-09-02":                at("2026-09-02T23:59:59.999999999+02:00"),
		"2026-09-02T14:00":          at("2026-09-02T14:00:59.999999999+02:00"),
		"2026-09-02 14:00":          at("2026-09-02T14:00:59.999999999+02:00"),
		"2026-09-02T14:00:05":       at("2026-09-02T14:00:05.999999999+02:00"),
		"2026-09-02T14:00:05Z":      at("2026-09-02T14:00:05.999999999Z"),
		"2026-09-02 14:00:05-07:00": at("2026-09-02T14:00:05.999999999-07:00"),
		"2026-09-02T14:00:05Z-k3f9": {Prefix: "2026-09-02T14:00:05Z-k3f9"},
		"2026-09":                   {Prefix: "2026-09"},
		"20260902t1400":             {Prefix: "20260902t1400"},
	}
	for text, want := range tests {
		got, err := control.ParseSelector(text, loc)
		if err != nil || got.Latest != want.Latest || got.Prefix != want.Prefix || !got.AtOrBefore.Equal(want.AtOrBefore) {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"a b", "x/y", "a@b", "2026-09-02 25:00", "\x1b[0m", "é"} {
		if got, err := control.ParseSelector(text, loc); !errors.Is(err, control.ErrSelector) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}

func TestErrors(t *testing.T) {
	keys := &control.Error{Code: control.CodeKeysInaccessible, Message: "no key", Next: "do x"}
	tests := []struct {
		err  error
		code control.Code
		exit int
	}{
		{nil, "", 0},
		{errors.New("x"), control.CodeFailed, 1},
		{fmt.Errorf("restore: %w", keys), control.CodeKeysInaccessible, 4},
		{fmt.Errorf("x: %w", context.Canceled), control.CodeCancelled, 1},
	}
	for _, tt := range tests {
		if got := control.CodeOf(tt.err); got != tt.code {
			t.Errorf("%v has code %q, want %q", tt.err, got, tt.code)
		}
		if got := control.ExitCode(tt.err); got != tt.exit {
			t.Errorf("%v exits with %d, want %d", tt.err, got, tt.exit)
		}
	}
	if e := control.AsError(fmt.Errorf("restore vm1: %w", keys)); e.Message != "restore vm1: no key" || e.Next != "do x" {
		t.Errorf("a wrapped error travels as %+v", e)
	}
}

// TestPathsOnTheWire pins how paths that are not UTF-8 look to others.
func TestPathsOnTheWire(t *testing.T) {
	b, err := json.Marshal(control.Entry{Path: "/a\xff", Type: "file"})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"path":"/a\ufffd","type":"file","mode":0,"uid":0,"gid":0,"size":0,"mtime":"0001-01-01T00:00:00Z","path_raw":"L2H/"}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if b, _ := json.Marshal(control.Entry{Path: "/a", Type: "file"}); strings.Contains(string(b), "raw") {
		t.Errorf("a path in UTF-8 is written as %s", b)
	}
}

// FuzzRequest sends any body to the verbs that take one. What is accepted means
// the same when it is sent again; what is not is told so, in JSON.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{"item":"etc"}`, `{"item":"etc","target":"/x","paths":["/a","/b"],"paths_raw":[null,"/w=="]}`,
		`{"key":"main"}`, `{"vault":"site","uri":"file:///x","restore_only":true}`, `{"vault":"site","new_generation":true}`,
		`{"vault":"site","mode":"customer-managed"}`, `{"item":"etc","confirm":"etc"}`, `{"head":"ab"}`,
		`{"item":"etc","point":"p1","owner":"legal","reason":"x"}`, `{"item":"etc","points":["p1"],"allow_empty":true}`,
		`{"item":"etc","dry_run":true}`, `{"name":"nightly","item":"etc"}`, `{"item":"etc","part":10,"repair":true}`,
		`{"level":"data"}`, `{"name":"site"}`, `{"item":"etc","input":{"name":"dump"}}`, `{}`, `[]`, `nul`, `{"item":1}`, `{"x":{}}`,
	} {
		f.Add(s)
	}
	paths := []string{
		"backup", "restore", "verify", "vaults", "vaults/mode", "keys", "keys/check", "keys/link", "keys/rotate",
		"keys/revalidate", "keys/drill", "items/erase", "config/check", "audit/verify",
		"points/hold", "points/release", "points/forget", "prune", "policies/run",
	}
	f.Fuzz(func(t *testing.T, body string) {
		b := world()
		srv := control.NewServer(control.ServerConfig{
			Backend: b, Logger: slog.New(slog.DiscardHandler), Role: control.Access{}.Role,
		})
		for _, p := range paths {
			req := httptest.NewRequestWithContext(control.WithPeer(t.Context(), control.Peer{}), http.MethodPost, "http://coffer/v1/"+p, strings.NewReader(body))
			w := httptest.NewRecorder()
			srv.ServeHTTP(w, req)
			if !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%s answers %d %q", p, w.Code, w.Body)
			}
			if w.Code == http.StatusInternalServerError {
				t.Fatalf("%s: %s", p, w.Body)
			}
		}
		for _, asked := range b.Asked() {
			text, err := json.Marshal(asked)
			if err != nil {
				t.Fatal(err)
			}
			again := reflect.New(reflect.TypeOf(asked))
			if err := json.Unmarshal(text, again.Interface()); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			text2, err := json.Marshal(again.Elem().Interface())
			if err != nil || string(text2) != string(text) {
				t.Fatalf("%s became %s, %v", text, text2, err)
			}
		}
	})
}
