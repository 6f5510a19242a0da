package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control"
)

// pointsUpTo yields n points of etc, and then fault if there is one. before hears of each.
func pointsUpTo(n int, fault error, before func(i int)) iter.Seq2[control.Point, error] {
	return func(yield func(control.Point, error) bool) {
		for i := range n {
			before(i)
			p := control.Point{Item: "etc", ID: fmt.Sprintf("p%d", i), Tags: []string{"<tag>"}}
			if i == n-1 {
				p.Damaged = true
			}
			if !yield(p, nil) {
				return
			}
		}
		if fault != nil {
			yield(control.Point{}, fault)
		}
	}
}

// TestPointsAsTheyCome: a list of many points is written while it comes, as text and as
// JSON, and is the same as one that was gathered first.
func TestPointsAsTheyCome(t *testing.T) {
	const n = 2*pointRows + 10
	for _, as := range []string{"text", "json"} {
		var out bytes.Buffer
		a := &app{env: &env{out: &out, now: time.Now}}
		read, written := 0, 0
		points := pointsUpTo(n, nil, func(i int) { // so much has been written when the i-th is asked for
			read += strings.Count(out.String()[written:], "etc")
			written = out.Len()
			if i-read > pointRows {
				t.Fatalf("%s: %d points are in memory", as, i-read)
			}
		})
		if as == "text" {
			if err := a.points("etc", points); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(out.String(), "\n")
			if got := strings.Count(out.String(), "STATE"); len(lines) != n+3 || got != 1 || !strings.Contains(lines[2*pointRows+1], "STATE") {
				t.Errorf("%d lines, of which %d have the new column in the head", len(lines), got)
			}
			continue
		}
		if err := array(&out, points); err != nil {
			t.Fatal(err)
		}
		var all []control.Point
		var whole bytes.Buffer
		if err := json.Unmarshal(out.Bytes(), &all); err != nil || len(all) != n {
			t.Fatalf("%d points, %v", len(all), err)
		}
		if writeJSON(&whole, all); whole.String() != out.String() { //nolint:errcheck // a buffer
			t.Errorf("it is not as one list is written:\n%.300s", out.String())
		}
	}
}

// TestPointsBreakOff: a list that breaks off shows what came, and is not taken for all.
func TestPointsBreakOff(t *testing.T) {
	torn := errors.New("torn")
	var out bytes.Buffer
	a := &app{env: &env{out: &out, now: time.Now}}
	if err := a.points("etc", pointsUpTo(3, torn, func(int) {})); !errors.Is(err, torn) || !strings.Contains(out.String(), "p2") {
		t.Errorf("%v after %q", err, out.String())
	}
	out.Reset()
	if err := array(&out, pointsUpTo(3, torn, func(int) {})); !errors.Is(err, torn) || json.Valid(out.Bytes()) {
		t.Errorf("%v after %q", err, out.String())
	}
	out.Reset()
	if err := array(io.Writer(&out), pointsUpTo(0, nil, nil)); err != nil || out.String() != "[]\n" {
		t.Errorf("%v, no points are %q", err, out.String())
	}
}
