package policy_test

import (
	"math"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/policy"
)

func TestWait(t *testing.T) {
	for _, test := range []struct {
		a        policy.Attempts
		failures int
		want     time.Duration
	}{
		{policy.Attempts{}, -1, 0},
		{policy.Attempts{}, 0, 0},
		{policy.Attempts{}, 1, time.Minute},
		{policy.Attempts{}, 2, 2 * time.Minute},
		{policy.Attempts{}, 6, 32 * time.Minute},
		{policy.Attempts{}, 7, time.Hour},
		{policy.Attempts{}, math.MaxInt, time.Hour},
		{policy.Attempts{First: 3 * time.Hour}, 4, 3 * time.Hour},
		{policy.Attempts{First: 10 * time.Second, Longest: 25 * time.Second}, 2, 20 * time.Second},
		{policy.Attempts{First: 10 * time.Second, Longest: 25 * time.Second}, 3, 25 * time.Second},
		{policy.Attempts{First: 1, Longest: math.MaxInt64}, 100, math.MaxInt64},
	} {
		if got := test.a.Wait(test.failures); got != test.want {
			t.Errorf("%+v after %d failures: %s, not %s", test.a, test.failures, got, test.want)
		}
	}
}

func TestAttempts(t *testing.T) {
	began := at(t, "2026-11-22T02:00")
	a := policy.Attempts{Tries: 3, First: 10 * time.Minute, Deadline: time.Hour}
	for _, test := range []struct {
		after    time.Duration
		failures int
		want     time.Duration // after began; 0: none
	}{
		{5 * time.Minute, 1, 15 * time.Minute},
		{20 * time.Minute, 2, 40 * time.Minute},
		{20 * time.Minute, 3, 0},
		{49 * time.Minute, 1, 59 * time.Minute},
		{50 * time.Minute, 1, 0},
	} {
		at, ok := a.Next(began, began.Add(test.after), test.failures)
		if ok != (test.want != 0) || ok && at.Sub(began) != test.want {
			t.Errorf("%d failures, %s after the beginning: %s, %v", test.failures, test.after, at, ok)
		}
	}
	for after, want := range map[time.Duration]bool{-24 * time.Hour: false, 0: false, time.Hour - 1: false, time.Hour: true} {
		if a.Passed(began, began.Add(after)) != want {
			t.Errorf("%s after the beginning the deadline has passed: %v", after, !want)
		}
	}
	if (policy.Attempts{}).Passed(began, began.AddDate(1, 0, 0)) {
		t.Error("no deadline has passed")
	}
	if _, ok := (policy.Attempts{Tries: 1}).Next(began, began, 1); ok {
		t.Error("one try is tried again")
	}
	for _, bad := range []policy.Attempts{{Tries: -1}, {First: -1}, {Longest: -1}, {Deadline: -1}, {First: time.Hour, Longest: time.Minute}} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if err := a.Check(); err != nil {
		t.Error(err)
	}
}
