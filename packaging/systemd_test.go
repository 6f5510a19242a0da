//go:build linux

package packaging_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/internal/testkit"
)

var update = flag.Bool("update", false, "write the transcripts anew")

// day is the life of the service on a host, from its installation to the last file of
// the package. "?" waits until a command succeeds; its output is not kept.
const day = `
# Install. Nothing runs yet.
$ dpkg --install /root/coffer_0.1.0_amd64.deb
$ systemctl is-enabled cofferd coffer.socket; systemctl is-active cofferd
$ stat --format '%A %U:%G %n' /usr/bin/coffer /usr/bin/cofferd /etc/coffer /etc/coffer/coffer.yaml /run/coffer
$ id coffer | sed 's/[0-9]*//g'
$ systemd-analyze verify --man=no cofferd.service coffer.socket
$ cofferd status

# Configure and start.
$ cp /root/coffer.yaml /etc/coffer/coffer.yaml
$ systemctl enable --now cofferd
$ cofferd status
$ coffer key create main >/dev/null && coffer vault create local >/root/recovery-sheet && coffer vault list
$ stat --format '%A %U:%G %n' /etc/coffer/kek.pem /run/coffer /run/coffer/coffer.sock /var/lib/coffer /var/lib/coffer/vault
$ systemctl show --property=Type,ActiveState,SubState,NotifyAccess,WatchdogUSec cofferd
$ runuser -u coffer -- coffer version | cut --delimiter=, --fields=1
$ systemd-analyze security --no-pager cofferd | tail -n 1

# It backs up by itself, every minute.
? coffer point list etc --json | grep --quiet id
$ coffer point list etc --json | grep --count '"item": "etc"' | sed 's/[1-9][0-9]*/some/'
$ journalctl --quiet --unit cofferd COFFER_ITEM=etc COFFER_STATE=done COFFER_MESSAGE='job ended' --output=json | head -n 1 | grep --only-matching --extended-regexp '"(COFFER_ITEM|COFFER_KIND|COFFER_STATE|PRIORITY)":"[^"]*"' | sort

# A new configuration, and one that is broken.
$ sed -i 's/etc:  /etc2: {vault: local, files: {paths: [\/etc\/coffer]}}\n  etc:  /' /etc/coffer/coffer.yaml && systemctl reload cofferd; echo $?
$ coffer item list --json | grep '"name"'
$ echo 'nonsense: yes' >>/etc/coffer/coffer.yaml; systemctl reload cofferd; echo $?
$ systemctl show --property=ActiveState,StatusText cofferd
$ journalctl --quiet --unit cofferd --priority err --output=cat | head -n 1
$ coffer item list --json | grep '"name"'
$ sed -i '/nonsense/d' /etc/coffer/coffer.yaml; kill -HUP $(systemctl show --property=MainPID --value cofferd)
? systemctl show --property=StatusText cofferd | grep --quiet 'All well'

# It dies, and is started again.
$ systemctl kill --signal=KILL cofferd
? coffer status >/dev/null && [ "$(systemctl show --property=NRestarts --value cofferd)" = 1 ]
$ coffer verify etc | tail -n 1

# It hangs, and is ended and started again by the watchdog.
$ mkdir -p /run/systemd/system/cofferd.service.d && printf '[Service]\nWatchdogSec=6\nTimeoutAbortSec=1\n' >/run/systemd/system/cofferd.service.d/watchdog.conf && systemctl daemon-reload && systemctl restart cofferd
$ systemctl kill --signal=STOP --kill-who=main cofferd
? journalctl --quiet --unit cofferd --output=cat | grep --quiet 'Watchdog timeout'
? coffer status >/dev/null
$ systemctl show --property=NRestarts cofferd
$ rm /run/systemd/system/cofferd.service.d/watchdog.conf && systemctl daemon-reload

# systemd holds the socket while the service is away.
$ systemctl stop cofferd && systemctl start coffer.socket && stat --format '%A %U:%G %n' /run/coffer/coffer.sock
$ coffer version | cut --delimiter=, --fields=1; systemctl is-active cofferd
$ systemctl stop coffer.socket cofferd 2>/dev/null; systemctl start cofferd; systemctl is-active cofferd

# A second agent on the same state is told so.
$ sed 's,^agent:,agent:\n  socket: /run/coffer/other.sock,' /etc/coffer/coffer.yaml >/root/other.yaml; cofferd run --config /root/other.yaml; echo $?

# The new version takes over what runs.
$ dpkg --install /root/coffer_0.1.1_amd64.deb
$ coffer version | cut --delimiter=, --fields=1; systemctl is-active cofferd
$ diff /root/coffer.yaml /etc/coffer/coffer.yaml; stat --format '%A %U:%G %n' /etc/coffer/coffer.yaml

# A host that backs up and never restores.
$ systemctl stop cofferd; install -Dm644 /usr/share/coffer/backup-only.conf /etc/systemd/system/cofferd.service.d/backup-only.conf && printf 'ReadWritePaths=/srv/backup\n' >>/etc/systemd/system/cofferd.service.d/backup-only.conf && systemctl daemon-reload
$ mv /var/lib/coffer/vault /srv/backup && chown -R coffer: /srv/backup && sed -i 's,/var/lib/coffer/vault,/srv/backup,' /etc/coffer/coffer.yaml && systemctl start cofferd
$ stat --format %U /proc/$(systemctl show --property=MainPID --value cofferd); grep --extended-regexp 'Cap(Bnd|Amb)' /proc/$(systemctl show --property=MainPID --value cofferd)/status; stat --format '%A %U:%G %n' /var/lib/coffer /run/coffer/coffer.sock
$ systemd-analyze security --no-pager cofferd | tail -n 1
$ echo secret >/etc/coffer/secret; chmod 600 /etc/coffer/secret; coffer backup etc >/dev/null; echo $?; coffer cat etc /etc/coffer/secret
$ coffer restore etc /srv/restored; echo $?
$ systemctl stop cofferd; rm -r /etc/systemd/system/cofferd.service.d; mv /srv/backup /var/lib/coffer/vault; chown -R root: /var/lib/coffer/vault; cp /root/coffer.yaml /etc/coffer; systemctl daemon-reload; systemctl start cofferd; systemctl is-active cofferd

# Remove, and purge: never a backup, never a key.
$ touch /var/lib/coffer/custody.json.damaged; dpkg --remove coffer
$ systemctl is-active cofferd; ls /run/coffer /usr/bin/coffer
$ dpkg --purge coffer
$ ls -A /etc/coffer /var/lib/coffer
$ mkdir /opt/coffer; dpkg-deb --fsys-tarfile /root/coffer_0.1.1_amd64.deb | tar --extract --directory=/opt/coffer --strip-components=3 ./usr/bin
$ /opt/coffer/cofferd rescue --store file:///var/lib/coffer/vault --vault-id $(grep --only-matching --extended-regexp --max-count=1 '\b[a-z2-7]{32}\b' /root/recovery-sheet) --key file:///etc/coffer/kek.pem restore etc /srv/restored >/dev/null; echo $?; find /srv/restored -name shadow -printf '%M %u:%g %p\n'

# Without a package: cofferd installs the service itself.
$ /opt/coffer/cofferd start
$ cp /root/coffer.yaml /etc/coffer/coffer.yaml; /opt/coffer/cofferd install --config /etc/coffer/coffer.yaml && /opt/coffer/cofferd start && /opt/coffer/cofferd status
$ systemctl show --property=Type,ActiveState,UnitFileState,FragmentPath cofferd; grep Exec /etc/systemd/system/cofferd.service
$ /opt/coffer/coffer item list --json | grep '"name"'; systemctl reload cofferd; echo $?
$ /opt/coffer/cofferd restart && /opt/coffer/cofferd stop; /opt/coffer/cofferd status
$ /opt/coffer/cofferd uninstall; /opt/coffer/cofferd status; ls /etc/systemd/system/cofferd.service
`

// settings of the host in day.
const settings = `agent:
  socket_group: coffer
keys:
  main: {uri: "file:///etc/coffer/kek.pem"}
vaults:
  local: {store: "file:///var/lib/coffer/vault", keys: [main]}
items:
  etc:  {vault: local, files: {paths: [/etc]}}
policies:
  often: {items: [etc], schedule: "* * * * *", retention: {last: 1000}}
`

// TestTranscriptSystemd is a day of the package in a real systemd.
func TestTranscriptSystemd(t *testing.T) {
	deb1, deb2 := build(t, "0.1.0", "deb"), build(t, "0.1.1", "deb")
	m := testkit.StartSystemd(t)
	take(t, m, deb1, "*.deb")
	take(t, m, deb2, "*.deb")
	must(t, os.WriteFile(m.Path("/root/coffer.yaml"), []byte(settings), 0o640))
	got := play(t, m, day)
	golden(t, "testdata/systemd.golden", got)
}

// extras are the packages of machines with more than a systemd. One set for all of
// them is one image to make.
var extras = []string{"softhsm2", "opencryptoki", "rpm"}

// take puts the package in a folder into root's home, named as on amd64.
func take(t *testing.T, m *testkit.Machine, dir, pattern string) {
	t.Helper()
	path := only(t, dir, pattern)
	copyTo(t, path, m.Path("/root/"+strings.Replace(filepath.Base(path), hostArch(t), "amd64", 1)))
}

// play runs the commands of a transcript, and returns it with what they said.
func play(t *testing.T, m *testkit.Machine, script string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(strings.TrimSpace(script)) {
		line = strings.TrimSuffix(line, "\n")
		said := ""
		switch {
		case strings.HasPrefix(line, "$ "):
			out, code := m.Run(t.Context(), line[2:])
			if said = mask(out); code != 0 {
				said += fmt.Sprintf("[exit code %d]\n", code)
			}
		case strings.HasPrefix(line, "? "):
			await(t, m, line[2:])
		}
		t.Logf("%s\n%s", line, said)
		fmt.Fprintf(&b, "%s\n%s", line, said)
	}
	return b.String()
}

// await runs a command until it succeeds.
func await(t *testing.T, m *testkit.Machine, command string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		out, code := m.Run(t.Context(), command)
		if code == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := m.Run(t.Context(), "journalctl --no-pager --lines=60 --unit=cofferd")
			t.Fatalf("it never came that: %s\n%s\n%s", command, out, log)
		}
	}
}

// masks hide what differs from run to run.
var masks = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?Z?(-[a-z0-9]+)?`), "TIME"},
	{regexp.MustCompile(`\b\d\d:\d\d(:\d\d)?( today| yesterday)?`), "TIME"},
	{regexp.MustCompile(`\b[a-z2-7]{32}\b`), "ID"},
	{regexp.MustCompile(`\b\d[\d.,]* (B|KiB|MiB|GiB|s|ms|min|files?|dirs?|packs?|points?|objects?|chunks?|directories)\b`), "N $2"},
	{regexp.MustCompile(`\(Reading database .*`), "(Reading database)"},
}

func mask(s string) string {
	if i := strings.LastIndex(s, "\r"); i >= 0 { // progress of dpkg
		s = regexp.MustCompile(`(?m)^.*\r`).ReplaceAllString(s, "")
	}
	for _, m := range masks {
		s = m.what.ReplaceAllString(s, m.by)
	}
	return s
}

// golden compares with a file, or writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		must(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	must(t, err)
	w, g := strings.Split(string(want), "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			t.Fatalf("%s, line %d: it went otherwise; write it anew with -update if that is right\nwant %s\ngot  %s\n\n%s",
				path, i+1, strings.Join(w[min(i, len(w)):min(i+5, len(w))], "\n     "), strings.Join(g[min(i, len(g)):min(i+5, len(g))], "\n     "), got)
		}
	}
}

// build builds parts of a release and returns their folder.
func build(t *testing.T, version string, parts ...string) string {
	t.Helper()
	return buildIn(t, "..", version, parts...)
}

// buildIn is build in another copy of the tree.
func buildIn(t *testing.T, tree, version string, parts ...string) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		testkit.Missing(t, "gcc", "apt-get install gcc libc6-dev")
	}
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), filepath.Join(tree, "packaging/build.sh"), append([]string{out}, parts...)...)
	cmd.Env = append(os.Environ(), "VERSION="+version, "SOURCE_DATE_EPOCH=1767225600", "TOOLS="+filepath.Dir(testkit.Tool(t, "nfpm")))
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", version, err, said)
	}
	return out
}

func hostArch(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOARCH").Output()
	must(t, err)
	return string(bytes.TrimSpace(out))
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o644))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
