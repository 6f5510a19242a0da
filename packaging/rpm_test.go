//go:build linux

package packaging_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferbackup/coffer/internal/testkit"
)

// rpmDay is the life of the rpm on a host: rpm itself with a database of its own, and
// the package's scripts under a real systemd. The host is a Debian, so rpm is told not
// to look for what other packages provide.
const rpmDay = `
# Install. Nothing runs yet.
$ echo '%_dbpath /var/lib/rpm' >/root/.rpmmacros; rpm --initdb
$ rpm --force-debian --nodeps --install /root/coffer-0.1.0.amd64.rpm
$ systemctl is-enabled cofferd coffer.socket; systemctl is-active cofferd
$ rpm --query --all; rpm --verify --nodeps coffer; echo $?
$ stat --format '%A %U:%G %n' /usr/bin/coffer /usr/bin/cofferd /etc/coffer /etc/coffer/coffer.yaml /run/coffer
$ rpm --query --list coffer | grep --extended-regexp 'systemd|sysusers|tmpfiles|zsh|share/coffer'; rpm --query --configfiles coffer
$ id coffer | sed 's/[0-9]*//g'; systemd-analyze verify --man=no cofferd.service coffer.socket

# Configure, start, back up.
$ cp /root/coffer.yaml /etc/coffer/coffer.yaml && systemctl enable --now cofferd 2>/dev/null; systemctl is-active cofferd
$ coffer key create main >/dev/null && coffer vault create local >/root/recovery-sheet && coffer backup etc >/dev/null; echo $?
$ cofferd install --config /etc/coffer/coffer.yaml

# The new version takes over what runs, and leaves the configuration alone.
$ rpm --force-debian --nodeps --upgrade /root/coffer-0.1.1.amd64.rpm
$ coffer version | cut --delimiter=, --fields=1; systemctl is-active cofferd; systemctl is-enabled cofferd
$ diff /root/coffer.yaml /etc/coffer/coffer.yaml; tail -n 1 /etc/coffer/coffer.yaml.rpmnew; stat --format '%A %U:%G %n' /etc/coffer/*
$ coffer backup etc >/dev/null; echo $?

# Remove: never a backup, never a key, never the state.
$ find /var/lib/coffer -type f -path '*/vault/*' -exec sha256sum {} + | sort >/root/before; rpm --force-debian --erase coffer
$ systemctl is-active cofferd; ls /run/coffer /usr/bin/coffer /usr/share/coffer /etc/systemd/system/multi-user.target.wants/cofferd.service
$ ls /etc/coffer /var/lib/coffer; sha256sum --check --quiet /root/before; echo $?

# And again: what was there goes on.
$ rpm --force-debian --nodeps --install /root/coffer-0.1.1.amd64.rpm && mv /etc/coffer/coffer.yaml.rpmsave /etc/coffer/coffer.yaml && systemctl enable --now cofferd 2>/dev/null; coffer cat etc /etc/passwd | head -n 1
`

// TestTranscriptRPM is the life of the rpm in a real systemd.
func TestTranscriptRPM(t *testing.T) {
	first := build(t, "0.1.0", "rpm")
	tree := filepath.Join(t.TempDir(), "tree")
	copyTree(t, "..", tree, "022")
	example, err := os.OpenFile(filepath.Join(tree, "packaging/coffer.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = example.WriteString("# what a newer example has besides\n")
	must(t, err)
	must(t, example.Close())
	second := buildIn(t, tree, "0.1.1", "rpm")
	m := testkit.StartSystemd(t, extras...)
	take(t, m, first, "*.rpm")
	take(t, m, second, "*.rpm")
	must(t, os.WriteFile(m.Path("/root/coffer.yaml"), []byte(settings), 0o640))
	golden(t, "testdata/rpm.golden", play(t, m, rpmDay))
}
