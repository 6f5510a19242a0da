//go:build unix

package secret_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cofferbackup/coffer/kek/secret"
)

func TestParse(t *testing.T) {
	for ref, want := range map[string]string{
		"file:/etc/pin": "file:/etc/pin", "file:///etc/pin": "file:/etc/pin", "env:PIN": "env:PIN",
	} {
		if s, err := secret.Parse(ref); err != nil || s.String() != want || s.IsZero() {
			t.Errorf("Parse(%q) = %v, %v", ref, s, err)
		}
	}
	for _, ref := range []string{"", "hunter2", "pin:hunter2", "file:hunter2", "env:", "env:hunter2=x", "|hunter2"} {
		if _, err := secret.Parse(ref); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Parse(%q) = %v", ref, err)
		}
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	for text, want := range map[string]string{
		"1234": "1234", "1234\n": "1234", "1234\r\n": "1234", " 12 34 \n": " 12 34 ", "1234\n\n": "1234\n",
		"": "", "\n": "", strings.Repeat("x", secret.MaxSize+1): "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := parse(t, "file:"+path).Read()
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("Read of %.20q = %.20q, %v", text, got, err)
		}
	}
	t.Setenv("COFFER_TEST_SECRET", "1234")
	if got, err := parse(t, "env:COFFER_TEST_SECRET").Read(); err != nil || string(got) != "1234" {
		t.Errorf("Read of the environment = %q, %v", got, err)
	}
	for _, ref := range []string{"env:COFFER_NO_SUCH", "file:" + path + ".none"} {
		if _, err := parse(t, ref).Read(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Read of %s = %v, want %v", ref, err, fs.ErrNotExist)
		}
	}
	if _, err := (secret.Source{}).Read(); err == nil {
		t.Error("Read of no reference worked")
	}
}

func TestExposed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, ok := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o610: false, 0o602: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := parse(t, "file:"+path).Read()
		var exposed *secret.ExposedError
		if (err == nil) != ok || errors.As(err, &exposed) == ok {
			t.Errorf("Read of a file of mode %v = %v", mode, err)
		} else if !ok && !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("error does not say what to do: %v", err)
		}
	}
}

// TestCredential reads what systemd gives to a service that is not root: by an access
// control list, so that the mode looks as if a group could read it.
func TestCredential(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for path, modes := range map[string]map[fs.FileMode]bool{
		filepath.Join(dir, "pin"):          {0o400: true, 0o440: true, 0o460: false, 0o450: false, 0o444: false},
		filepath.Join(dir, "below", "pin"): {0o400: true, 0o440: false},
		filepath.Join(t.TempDir(), "pin"):  {0o400: true, 0o440: false},
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("1234"), 0o600); err != nil {
			t.Fatal(err)
		}
		for mode, ok := range modes {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			_, err := parse(t, "file:"+path).Read()
			var exposed *secret.ExposedError
			if (err == nil) != ok || errors.As(err, &exposed) == ok {
				t.Errorf("Read of %s of mode %v = %v", path, mode, err)
			}
		}
	}
}

func TestForeignOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if _, err := parse(t, "file:"+path).Read(); err == nil || !strings.Contains(err.Error(), "uid 4711") {
		t.Errorf("Read of another's file = %v", err)
	}
}

// TestFIFO: a reader must not wait for someone to write.
func TestFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := parse(t, "file:"+path).Read(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("Read of a FIFO = %v", err)
	}
}

func parse(t *testing.T, ref string) secret.Source {
	t.Helper()
	s, err := secret.Parse(ref)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
