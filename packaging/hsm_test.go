//go:build linux

package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cofferbackup/coffer/internal/testkit"
)

// custody is a host whose keys are in an HSM, whose library the service loads, and in
// Key Vault, which it asks over TCP. Then it is another HSM: openCryptoki's library and
// SoftHSM's do not get on in one process. All is done by the unit as it is shipped.
const custody = `
$ dpkg --install /root/coffer_0.1.0_amd64.deb >/dev/null 2>&1; softhsm2-util --init-token --free --label backup --so-pin so-0815 --pin pin-4711 >/dev/null; echo $?
$ umask 077; echo pin-4711 >/etc/coffer/pin; cp /root/custody.yaml /etc/coffer/coffer.yaml
$ systemd-run --quiet --unit=cloud /root/kvserver --state /root/cloud
? journalctl --quiet --unit=cloud --output=cat | grep --quiet '^Then'
$ journalctl --quiet --unit=cloud --output=cat | sed -n '/^  cloud:/,/^[^ ]/{/^ /p}' >/root/cloud.yaml; sed -i '/^keys:/r /root/cloud.yaml' /etc/coffer/coffer.yaml; grep --count credential /etc/coffer/coffer.yaml

# The key is made in the token.
$ systemctl enable --now cofferd 2>/dev/null; systemctl is-active cofferd
$ coffer key create soft | sed 's/ (.*)//' | head -n 1
$ for key in soft cloud; do coffer key check $key | cut --characters=1-20 | grep --invert-match next; done
$ coffer vault create site >/root/recovery-sheet; echo $?

# A backup, a death, another backup, and everything back.
$ coffer backup etc >/dev/null; echo $?
$ systemctl kill --signal=KILL cofferd
? coffer status >/dev/null && [ "$(systemctl show --property=NRestarts --value cofferd)" = 1 ]
$ coffer backup etc >/dev/null; echo $?
$ coffer restore etc /srv/back >/dev/null; echo $?; diff --recursive --no-dereference /etc /srv/back/etc; echo $?
$ coffer key drill site >/dev/null 2>&1; echo $?

# The PIN is encrypted for this host.
$ systemd-creds encrypt --name=pin /etc/coffer/pin /etc/coffer/pin.cred 2>/dev/null && shred --remove /etc/coffer/pin; sed -i 's,file:/etc/coffer/pin,file:/run/credentials/cofferd.service/pin,' /etc/coffer/coffer.yaml
$ install -Dm644 /usr/share/coffer/hsm.conf /etc/systemd/system/cofferd.service.d/hsm.conf && sed -i 's/^# Load/Load/' /etc/systemd/system/cofferd.service.d/hsm.conf && systemctl daemon-reload && systemctl restart cofferd
$ coffer doctor | grep credentials; coffer key check soft | grep identity | cut --characters=1-20; coffer cat etc /etc/passwd | head -n 1; systemd-analyze security --no-pager cofferd | tail -n 1

# A host that backs up and never restores.
$ systemctl stop cofferd; install -Dm644 /usr/share/coffer/backup-only.conf /etc/systemd/system/cofferd.service.d/backup-only.conf; chown -R coffer: /var/lib/softhsm/tokens; systemctl daemon-reload; systemctl start cofferd
$ stat --format %U /proc/$(systemctl show --property=MainPID --value cofferd); for key in soft cloud; do coffer key check $key | cut --characters=1-20 | grep --invert-match next; done
$ coffer key rotate site --new-version >/dev/null 2>&1; echo $?
$ coffer backup etc >/dev/null; echo $?; coffer cat etc /etc/passwd | head -n 1
$ systemctl kill --signal=KILL cofferd
? coffer status >/dev/null && [ "$(systemctl show --property=NRestarts --value cofferd)" = 1 ]
$ coffer cat etc /etc/passwd | head -n 1; systemd-analyze security --no-pager cofferd | tail -n 1; journalctl --quiet --unit cofferd --output=cat --since='1 min ago' | grep 'Read-only\|Permission denied' | wc --lines

# openCryptoki, with a daemon of its own, as root and then not.
$ systemctl stop cofferd; rm -r /etc/systemd/system/cofferd.service.d /var/lib/coffer; systemctl daemon-reload; umask 077; echo pin-4711 >/etc/coffer/pin; sed "s,LIB,$(echo /usr/lib/*-linux-gnu)," /root/token.yaml >/etc/coffer/coffer.yaml
$ pkcsconf -c 3 -P -S 87654321 -n so-0815 && pkcsconf -c 3 -u -S so-0815 -n 12345678 && pkcsconf -c 3 -p -U 12345678 -n pin-4711; echo $?
$ systemctl start cofferd; coffer key create token | sed 's/ (.*)//' | head -n 1; coffer key check token | cut --characters=1-20 | grep --invert-match next
$ coffer vault create site >/dev/null; echo $?; coffer backup etc >/dev/null; echo $?
$ systemctl stop cofferd; for file in hsm backup-only; do install -Dm644 /usr/share/coffer/$file.conf /etc/systemd/system/cofferd.service.d/$file.conf; done; usermod --append --groups pkcs11 coffer; systemctl daemon-reload; systemctl start cofferd
$ stat --format %U /proc/$(systemctl show --property=MainPID --value cofferd); coffer key check token | cut --characters=1-20 | grep --invert-match next
$ coffer key rotate site --new-version >/dev/null 2>&1; echo $?; coffer backup etc >/dev/null; echo $?; coffer cat etc /etc/passwd | head -n 1
`

// custodySettings are the settings of the host in custody, where the key in Key Vault
// is added, and tokenSettings those of its end.
const (
	custodySettings = `agent:
  socket_group: coffer
keys:
  soft:  {uri: "pkcs11:token=backup;object=kek?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/coffer/pin"}
vaults:
  site: {store: "file:///var/lib/coffer/site", keys: [soft, cloud]}
items:
  etc:  {vault: site, files: {paths: [/etc]}}
`
	tokenSettings = `keys:
  token: {uri: "pkcs11:slot-id=3;object=kek?module-path=LIB/pkcs11/libopencryptoki.so&pin-source=file:/etc/coffer/pin"}
vaults:
  site: {store: "file:///var/lib/coffer/site", keys: [token]}
items:
  etc:  {vault: site, files: {paths: [/etc]}}
`
)

// TestTranscriptCustody has keys in two HSMs and in Key Vault opened by the hardened
// unit.
func TestTranscriptCustody(t *testing.T) {
	deb, kvserver := build(t, "0.1.0", "deb"), filepath.Join(t.TempDir(), "kvserver")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", kvserver, "../internal/kvserver")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build kvserver: %v\n%s", err, out)
	}
	m := testkit.StartSystemd(t, extras...)
	take(t, m, deb, "*.deb")
	copyTo(t, kvserver, m.Path("/root/kvserver"))
	must(t, os.Chmod(m.Path("/root/kvserver"), 0o755))
	must(t, os.WriteFile(m.Path("/root/custody.yaml"), []byte(custodySettings), 0o640))
	must(t, os.WriteFile(m.Path("/root/token.yaml"), []byte(tokenSettings), 0o640))
	golden(t, "testdata/custody.golden", play(t, m, custody))
}
