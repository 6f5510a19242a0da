package audit_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/audit"
)

// FuzzDecode: what is read is either refused or the same when it is written and read
// again.
func FuzzDecode(f *testing.F) {
	zeros := strings.Repeat("0", 64)
	f.Add([]byte(`{"seq":1,"prev":"` + zeros + `","time":"2026-11-22T09:00:01Z","kind":"log.opened"}`))
	f.Add([]byte(`{"seq":7,"prev":"` + zeros + `","time":"2026-11-22T09:00:01.5+02:00","kind":"key.x","job":-1,"fields":{"a":"b"}}`))
	f.Add([]byte(`{"seq":0}`))
	f.Add([]byte(`{"seq":1e3,"prev":"` + zeros + `","time":"0001-01-01T00:00:00Z","kind":"key.x"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		line, err := audit.Decode(text)
		if err != nil {
			return
		}
		if line.Seq < 1 || len(line.Prev) != 64 || line.Kind == "" || line.Time.IsZero() {
			t.Fatalf("%+v was read", line)
		}
		again, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		back, err := audit.Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if !back.Time.Equal(line.Time) {
			t.Fatalf("%v became %v", line.Time, back.Time)
		}
		back.Time = line.Time
		if len(line.Fields) == 0 {
			line.Fields = nil
		}
		if !reflect.DeepEqual(line, back) {
			t.Fatalf("%+v became %+v", line, back)
		}
	})
}

// FuzzFile: whatever a file of the log holds, it is read without harm, the log goes on
// after it, and what was changed before its end stays to be seen.
func FuzzFile(f *testing.F) {
	dir := f.TempDir()
	made(f, audit.Config{Dir: dir}, 3)
	head, err := os.ReadFile(filepath.Join(dir, "head"))
	if err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, "000001.jsonl"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(good[:len(good):len(good)], "torn"...))
	f.Add(good[:len(good)-5])
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{"head": head, "000001.jsonl": text} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		intact := strings.HasPrefix(string(text), string(good))
		if faults := verify(t, dir).Faults; len(faults) == 0 && !intact {
			t.Fatalf("no fault in %q", text)
		}
		l, err := audit.OpenOn(quick{}, audit.Config{Dir: dir, Clock: clock()})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		record(t, l, 0, 1)
		if faults := verify(t, dir).Faults; (len(faults) == 0) != intact {
			t.Fatalf("after opening, faults are %v in %q", faults, text)
		}
	})
}
