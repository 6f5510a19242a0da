//go:build linux

package packaging_test

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestReproducible builds the same version in two folders, under two umasks, and
// compares every byte.
func TestReproducible(t *testing.T) {
	t.Parallel()
	one, other := filepath.Join(t.TempDir(), "tree"), filepath.Join(t.TempDir(), "the same tree elsewhere")
	copyTree(t, "..", one, "022")
	copyTree(t, one, other, "077")
	first := buildIn(t, one, "1.2.3", "deb", "rpm", "tar")
	second := buildIn(t, other, "1.2.3", "deb", "rpm", "tar")
	want, err := os.ReadFile(filepath.Join(first, "SHA256SUMS"))
	must(t, err)
	got, err := os.ReadFile(filepath.Join(second, "SHA256SUMS"))
	must(t, err)
	if !bytes.Equal(want, got) {
		t.Errorf("two builds of one source differ:\n%s\n%s", want, got)
	}
	if lines := bytes.Count(want, []byte("\n")); lines != 4 {
		t.Errorf("%d files were made, want 4:\n%s", lines, want)
	}
	sums := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
	sums.Dir = first
	if out, err := sums.CombinedOutput(); err != nil {
		t.Errorf("the checksums are wrong: %v\n%s", err, out)
	}
	t.Run("rpm", func(t *testing.T) { lookAtRPM(t, only(t, first, "*.rpm")) })
	t.Run("libraries", func(t *testing.T) { lookAtLibraries(t, only(t, first, "*.deb"), only(t, first, "*.rpm")) })
	t.Run("sbom", func(t *testing.T) { lookAtSBOM(t, only(t, first, "*.cdx.json")) })
	t.Run("manual", func(t *testing.T) { lookAtManual(t, only(t, first, "*.tar.gz")) })
}

// copyTree copies the source as somebody with a umask would.
func copyTree(t *testing.T, from, to, umask string) {
	t.Helper()
	const script = `umask "$2"; mkdir "$1"; tar --create --directory="$0" --exclude=./.git --exclude=./bin --exclude=./dist . |
		tar --extract --no-same-permissions --directory="$1"`
	say(t, "sh", "-ec", script, from, to, umask)
}

func only(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s in %s: %q, %v", pattern, dir, found, err)
	}
	return found[0]
}

func say(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// lookAtRPM requires what the deb is seen to do in a real system of the rpm's content.
func lookAtRPM(t *testing.T, path string) {
	for query, words := range map[string][]string{
		"--list":        {"/usr/bin/cofferd\n", "/usr/lib/systemd/system/cofferd.service\n", "/usr/share/man/man1/coffer-key-rotate.1.gz\n"},
		"--configfiles": {"/etc/coffer/coffer.yaml"},
		"--scripts":     {"systemctl try-restart cofferd.service", "systemd-sysusers coffer.conf"},
		"--info":        {"Version     : 1.2.3", "Build Host  : coffer"},
	} {
		got := say(t, "rpm", "--query", "--package", query, path)
		for _, w := range words {
			if !strings.Contains(got, w) {
				t.Errorf("rpm %s does not say %q:\n%s", query, w, got)
			}
		}
	}
}

// lookAtLibraries requires that the packages ask for the C library that the service
// needs, no older and no newer: its symbols have versions.
func lookAtLibraries(t *testing.T, deb, rpm string) {
	dir := t.TempDir()
	say(t, "dpkg-deb", "--extract", deb, dir)
	program, err := elf.Open(filepath.Join(dir, "usr/bin/cofferd"))
	must(t, err)
	defer program.Close()
	symbols, err := program.ImportedSymbols()
	must(t, err)
	newest := 0
	for _, s := range symbols {
		if minor, ok := strings.CutPrefix(s.Version, "GLIBC_2."); ok {
			minor, _, _ = strings.Cut(minor, ".")
			n, err := strconv.Atoi(minor)
			must(t, err)
			newest = max(newest, n)
		}
	}
	want := fmt.Sprintf("2.%d", newest)
	if got := say(t, "dpkg-deb", "--field", deb, "Depends"); got != "libc6 (>= "+want+")\n" {
		t.Errorf("the service needs glibc %s, and the deb depends on %s", want, got)
	}
	if got := say(t, "rpm", "--query", "--package", "--requires", rpm); !strings.Contains(got, "glibc >= "+want+"\n") {
		t.Errorf("the service needs glibc %s, and the rpm requires\n%s", want, got)
	}
}

// lookAtSBOM requires that every module that go says is in the programs is in the
// bill.
func lookAtSBOM(t *testing.T, path string) {
	raw, err := os.ReadFile(path)
	must(t, err)
	var bill struct {
		Format     string `json:"bomFormat"`
		Components []struct {
			Name, Version, PURL string
		}
		Dependencies []struct {
			Ref string
			On  []string `json:"dependsOn"`
		}
	}
	must(t, json.Unmarshal(raw, &bill))
	if bill.Format != "CycloneDX" || bytes.Contains(raw, []byte("(devel)")) {
		t.Errorf("the bill is %q, or has a module without a version", bill.Format)
	}
	have := make(map[string]string)
	for _, c := range bill.Components {
		have[c.Name] = c.Version
	}
	mods := strings.Fields(say(t, "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}{{end}}{{end}}", "../cmd/coffer", "../cmd/cofferd"))
	for _, m := range mods {
		if name, version, _ := strings.Cut(m, "@"); have[name] != version {
			t.Errorf("the bill has %s at %q, and it is built from %s", name, have[name], version)
		}
	}
	if len(mods) < 10 || have["coffer"] != "1.2.3" || have["std"] == "" {
		t.Errorf("%d modules, coffer %q, Go %q", len(mods), have["coffer"], have["std"])
	}
}

// lookAtManual has man(1) find no fault with the pages, and each verb a page.
func lookAtManual(t *testing.T, path string) {
	dir := t.TempDir()
	say(t, "tar", "--extract", "--gzip", "--file", path, "--directory", dir, "--strip-components=1")
	pages, err := filepath.Glob(filepath.Join(dir, "man", "*.1.gz"))
	must(t, err)
	if len(pages) < 40 {
		t.Errorf("only %d man pages", len(pages))
	}
	for _, p := range pages {
		cmd := exec.CommandContext(t.Context(), "man", "--warnings=w", "--local-file", p)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=100", "MANROFFSEQ=")
		var out, complaint bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &complaint
		if err := cmd.Run(); err != nil || complaint.Len() > 0 {
			t.Errorf("man %s: %v\n%s", filepath.Base(p), err, &complaint)
		}
		name, text := strings.TrimSuffix(filepath.Base(p), ".1.gz"), strings.Join(strings.Fields(out.String()), " ")
		for _, w := range []string{"NAME", name + " - ", "SYNOPSIS"} {
			if !strings.Contains(text, w) {
				t.Errorf("the page of %s does not say %q:\n%s", name, w, out.String())
			}
		}
	}
}
