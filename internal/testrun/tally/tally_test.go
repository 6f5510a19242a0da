package tally_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/internal/testrun/tally"
)

// stream is what go test -json prints for a package with subtests, a skip and a
// failure, one that does not build, and one that dies.
const stream = `{"Action":"start","Package":"m/hsm"}
{"Action":"run","Package":"m/hsm","Test":"TestToken"}
{"Action":"run","Package":"m/hsm","Test":"TestToken/login"}
{"Action":"pass","Package":"m/hsm","Test":"TestToken/login","Elapsed":0.1}
{"Action":"run","Package":"m/hsm","Test":"TestToken/wrap"}
{"Action":"output","Package":"m/hsm","Test":"TestToken/wrap","Output":"    t.go:9: no session\n"}
{"Action":"fail","Package":"m/hsm","Test":"TestToken/wrap","Elapsed":0.1}
{"Action":"fail","Package":"m/hsm","Test":"TestToken","Elapsed":0.2}
{"Action":"run","Package":"m/hsm","Test":"TestOther"}
{"Action":"output","Package":"m/hsm","Test":"TestOther","Output":"=== RUN   TestOther\n"}
{"Action":"output","Package":"m/hsm","Test":"TestOther","Output":"    t.go:7: token is missing: install it\n"}
{"Action":"output","Package":"m/hsm","Test":"TestOther","Output":"--- SKIP: TestOther (0.00s)\n"}
{"Action":"skip","Package":"m/hsm","Test":"TestOther","Elapsed":0}
{"Action":"fail","Package":"m/hsm","Elapsed":0.3}
not an event
{"ImportPath":"m/bad [m/bad.test]","Action":"build-output","Output":"x.go:1:1: syntax error\n"}
{"ImportPath":"m/bad [m/bad.test]","Action":"build-fail"}
{"Action":"fail","Package":"m/bad","Elapsed":0,"FailedBuild":"m/bad [m/bad.test]"}
{"Action":"run","Package":"m/dies","Test":"TestCrashAtWrite"}
{"Action":"output","Package":"m/dies","Test":"TestCrashAtWrite","Output":"panic: here\n"}
{"Action":"fail","Package":"m/dies","Elapsed":1}
{"Action":"run","Package":"m/good","Test":"TestSum"}
{"Action":"run","Package":"m/good","Test":"TestBucket"}
{"Action":"attr","Package":"m/good","Test":"TestBucket","Key":"part","Value":"MinIO"}
{"Action":"run","Package":"m/good","Test":"TestBucket/put"}
{"Action":"pass","Package":"m/good","Test":"TestBucket/put","Elapsed":0}
{"Action":"pass","Package":"m/good","Test":"TestBucket","Elapsed":0}
{"Action":"pass","Package":"m/good","Test":"TestSum","Elapsed":0}
{"Action":"pass","Package":"m/good","Elapsed":0.01}
`

func groups() []tally.Group {
	return []tally.Group{
		{Name: "crash", Match: func(_, test string) bool { return strings.Contains(test, "Crash") }},
		{Name: "HSM", Match: func(pkg, _ string) bool { return strings.HasSuffix(pkg, "/hsm") }},
		{Name: "MinIO", Match: func(pkg, _ string) bool { return strings.HasSuffix(pkg, "/s3") }},
	}
}

func TestCountsByGroup(t *testing.T) {
	y := tally.New(groups())
	var progress bytes.Buffer
	if err := y.Read(strings.NewReader(stream), &progress, ""); err != nil {
		t.Fatal(err)
	}
	want := []tally.Count{
		{Group: "crash", Failed: 1},
		{Group: "HSM", Passed: 1, Failed: 1, Skipped: 1},
		{Group: "MinIO", Passed: 1},
		{Group: "unit", Passed: 1, Failed: 1},
	}
	got := y.Counts()
	if len(got) != len(want) {
		t.Fatalf("groups %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("group %d is %+v, want %+v", i, got[i], want[i])
		}
	}
	if !strings.Contains(progress.String(), "not an event") || !strings.Contains(progress.String(), "m/good") {
		t.Errorf("progress lacks the stray line or a package:\n%s", &progress)
	}
}

func TestFailuresSayWhatWasPrinted(t *testing.T) {
	y := tally.New(groups())
	if err := y.Read(strings.NewReader(stream), new(bytes.Buffer), ""); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(y.Failures(), "\n")
	for _, want := range []string{"TestToken/wrap\n    t.go:9: no session", "x.go:1:1: syntax error", "panic: here"} {
		if !strings.Contains(all, want) {
			t.Errorf("failures lack %q:\n%s", want, all)
		}
	}
	if n := len(y.Failures()); n != 3 {
		t.Errorf("%d failures, want 3 (a parent of a failed subtest is none)", n)
	}
	if skips := y.Skips(); len(skips) != 1 || skips[0] != "m/hsm TestOther: t.go:7: token is missing: install it" {
		t.Errorf("skips are %q", skips)
	}
}

func TestOneGroupForARun(t *testing.T) {
	y := tally.New(groups())
	if err := y.Read(strings.NewReader(stream), new(bytes.Buffer), "again"); err != nil {
		t.Fatal(err)
	}
	got := y.Counts()
	if last := got[len(got)-1]; last != (tally.Count{Group: "again", Passed: 3, Failed: 3, Skipped: 1}) {
		t.Errorf("got %+v", last)
	}
}
