package quota_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/agent/control/quota"
)

var (
	root     = quota.Caller{Class: quota.Owner}
	alice    = quota.Caller{Class: quota.Member, UID: 1001}
	bob      = quota.Caller{Class: quota.Member, UID: 1002}
	stranger = quota.Caller{UID: 65534}
)

// fill enters as c until it is full, and returns how often that went.
func fill(t *testing.T, q *quota.Quota, c quota.Caller) (n int, leave func()) {
	t.Helper()
	for {
		one, ok := q.Enter(c)
		if !ok {
			return n, leave
		}
		n, leave = n+1, one
		if n > 10000 {
			t.Fatal("there is no limit")
		}
	}
}

// TestShares: whoever takes all that he can get, the others still get theirs.
func TestShares(t *testing.T) {
	q := quota.New(quota.Limits{Owner: 5, Member: 20, Stranger: 3, Share: 16}, time.Now)
	for _, tt := range []struct {
		who  quota.Caller
		want int
	}{
		{stranger, 2}, {quota.Caller{UID: 5}, 1}, {quota.Caller{UID: 6}, 0}, // together 3
		{alice, 16}, {bob, 4}, // together 20
		{root, 5},
	} {
		n, leave := fill(t, q, tt.who)
		if n != tt.want {
			t.Errorf("%+v has %d connections, want %d", tt.who, n, tt.want)
		}
		if n == 0 {
			continue
		}
		leave()
		if again, _ := fill(t, q, tt.who); again != 1 {
			t.Errorf("%+v left once and entered %d times", tt.who, again)
		}
	}
}

// TestRate: who asks too often waits, and only he.
func TestRate(t *testing.T) {
	now := time.Unix(1000, 0)
	q := quota.New(quota.Limits{Rate: 2, Burst: 3}, func() time.Time { return now })
	for i := range 3 {
		if wait := q.Ask(alice); wait != 0 {
			t.Errorf("request %d waits %s", i, wait)
		}
	}
	for range 2 { // a request that is refused costs nothing
		if wait := q.Ask(alice); wait != 500*time.Millisecond {
			t.Errorf("the fourth waits %s", wait)
		}
	}
	if wait := q.Ask(bob); wait != 0 {
		t.Errorf("another waits %s", wait)
	}
	now = now.Add(500 * time.Millisecond)
	if first, second := q.Ask(alice), q.Ask(alice); first != 0 || second == 0 {
		t.Errorf("half a second later: %s, %s", first, second)
	}
}

// TestStrangers: those who may do nothing share a little, however many they are, and
// take nothing from others.
func TestStrangers(t *testing.T) {
	now := time.Unix(1000, 0)
	q := quota.New(quota.Limits{Rate: 20, Burst: 60}, func() time.Time { return now })
	answered := 0
	for uid := range uint32(1000) {
		if q.Ask(quota.Caller{UID: uid}) == 0 {
			answered++
		}
	}
	if answered != 3 {
		t.Errorf("%d strangers are answered", answered)
	}
	if wait := q.Ask(stranger); wait != time.Second {
		t.Errorf("a stranger waits %s", wait)
	}
	if wait := q.Ask(alice); wait != 0 {
		t.Errorf("a member waits %s", wait)
	}
}

// TestManyCallers: callers that come once do not fill memory, and do not make a quota
// forget who is connected.
func TestManyCallers(t *testing.T) {
	now := time.Unix(1000, 0)
	q := quota.New(quota.Limits{Share: 1}, func() time.Time { return now })
	if _, ok := q.Enter(alice); !ok {
		t.Fatal("alice is refused")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for uid := range uint32(200_000) {
		q.Ask(quota.Caller{Class: quota.Member, UID: 10_000 + uid})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("200,000 callers hold %d bytes", grown)
	}
	if _, ok := q.Enter(alice); ok {
		t.Error("alice has more than her share")
	}
}

// TestDefaults: the zero value is a limit too.
func TestDefaults(t *testing.T) {
	q := quota.New(quota.Limits{}, time.Now)
	for who, want := range map[quota.Caller]int{root: 256, alice: 64, stranger: 8} {
		if n, _ := fill(t, q, who); n != want {
			t.Errorf("%+v has %d connections, want %d", who, n, want)
		}
	}
}
