//go:build linux

package packaging_test

import (
	"os"
	"testing"

	"github.com/cofferbackup/coffer/internal/testkit"
)

// sysvDay is the life of the service where System V's init starts what runs.
const sysvDay = `
$ groupadd --system coffer; mkdir -p /opt/coffer /etc/coffer /root/x && tar --extract --gzip --file /root/coffer-0.1.0-linux-amd64.tar.gz --directory /root/x --strip-components=1 && mv /root/x/bin/* /opt/coffer && cp /root/coffer.yaml /etc/coffer
? [ "$(runlevel)" = 'N 2' ]
$ /opt/coffer/cofferd status
$ /opt/coffer/cofferd start
$ /opt/coffer/cofferd uninstall

# Install and start.
$ /opt/coffer/cofferd install --config /etc/coffer/coffer.yaml
$ ls /etc/rc?.d/*cofferd; /opt/coffer/cofferd status
$ /opt/coffer/cofferd start && /opt/coffer/cofferd status; service cofferd status; setpriv --reuid 1000 --clear-groups /opt/coffer/cofferd status
$ /opt/coffer/coffer key create main >/dev/null && /opt/coffer/coffer vault create local >/dev/null && /opt/coffer/coffer backup etc >/dev/null; echo $?
$ stat --format '%A %U:%G %n' /var/log/cofferd.log /run/cofferd.pid; grep --count 'agent started' /var/log/cofferd.log
$ service cofferd start; cat /run/cofferd.pid >/root/pid; /opt/coffer/cofferd restart; diff --brief /root/pid /run/cofferd.pid; /opt/coffer/coffer cat etc /etc/passwd | head -n 1

# Reload, and a configuration that is broken.
$ sed -i 's/etc:  /etc2: {vault: local, files: {paths: [\/etc\/coffer]}}\n  etc:  /' /etc/coffer/coffer.yaml && service cofferd reload; echo $?
? /opt/coffer/coffer item list --json | grep --quiet etc2
$ echo 'nonsense: yes' >>/etc/coffer/coffer.yaml; /opt/coffer/cofferd restart; /opt/coffer/cofferd status
$ service cofferd start
$ sed -i '/nonsense/d' /etc/coffer/coffer.yaml; /opt/coffer/cofferd start; /opt/coffer/cofferd status

# It dies: nobody starts it again.
$ kill -KILL $(cat /run/cofferd.pid)
? ! /opt/coffer/cofferd status >/dev/null
$ /opt/coffer/cofferd start; /opt/coffer/cofferd status

# What init does when the host comes up.
$ /opt/coffer/cofferd stop; PREVLEVEL=N RUNLEVEL=2 /etc/init.d/rc 2 >/dev/null 2>&1; /opt/coffer/cofferd status

# And away.
$ /opt/coffer/cofferd uninstall; /opt/coffer/cofferd status; ls /etc/rc?.d/*cofferd /etc/init.d/cofferd /run/cofferd.pid; ls /var/lib/coffer/vault | head -n 1
`

// TestTranscriptSysV is the life of the service under System V's init.
func TestTranscriptSysV(t *testing.T) {
	dir := build(t, "0.1.0", "tar")
	m := testkit.StartSysV(t)
	take(t, m, dir, "*.tar.gz")
	must(t, os.WriteFile(m.Path("/root/coffer.yaml"), []byte(settings), 0o640))
	golden(t, "testdata/sysv.golden", play(t, m, sysvDay))
}
