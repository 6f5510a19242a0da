package control_test

import (
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
)

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1229: "1.2 KiB", 10 << 20: "10 MiB", 852 << 20: "852 MiB",
		1023 << 20: "1 GiB", 40 << 30: "40 GiB", 1<<63 - 1: "8 EiB", 9 << 40: "9 TiB",
	} {
		if got := control.Size(n); got != want {
			t.Errorf("control.Size(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 18204: "18,204", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := control.Count(n); got != want {
			t.Errorf("control.Count(%d) = %q, want %q", n, got, want)
		}
	}
	if got := control.Counted(1, "entry") + control.Counted(2, "entry") + control.Counted(2, "file"); got != "1 entry2 entries2 files" {
		t.Error(got)
	}
}
