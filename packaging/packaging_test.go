package packaging_test

import (
	"os"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/packaging"
)

// TestUnit has the programs where the packages put them, and elsewhere.
func TestUnit(t *testing.T) {
	packaged, err := os.ReadFile("systemd/cofferd.service")
	if err != nil {
		t.Fatal(err)
	}
	if got := packaging.Unit("/usr/bin/cofferd", "/usr/bin/coffer", "/etc/coffer/coffer.yaml"); got != string(packaged) {
		t.Errorf("with the paths of the packages it is another unit:\n%s", got)
	}
	got := packaging.Unit("/opt/my coffer/cofferd", "/opt/my coffer/coffer", "/etc/100%.yaml")
	for _, want := range []string{
		"\nExecStart=\"/opt/my coffer/cofferd\" run --config /etc/100%%.yaml\n",
		"\nExecReload=\"/opt/my coffer/coffer\" config reload\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the unit does not have %q:\n%s", want, got)
		}
	}
}

// TestScript has the program where somebody put it.
func TestScript(t *testing.T) {
	got := packaging.Script("/opt/it's here/cofferd", "/etc/coffer.yaml")
	for _, want := range []string{"\nprogram='/opt/it'\\''s here/cofferd'\n", "\nconfig='/etc/coffer.yaml'\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("the script does not have %q:\n%s", want, got)
		}
	}
}
