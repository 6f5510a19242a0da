package kvtest_test

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// arcChild marks the process that sees its own /var/opt.
const arcChild = "KVTEST_ARC_CHILD"

// TestArcCredential: the Azure client takes the machine's identity, and one that is
// named. It reads one folder only, so the test runs in a mount namespace where
// /var/opt is its own.
func TestArcCredential(t *testing.T) {
	if os.Getenv(arcChild) == "" {
		runApart(t)
		return
	}
	for _, err := range []error{
		syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("tmpfs", "/var/opt", "tmpfs", 0, ""),
		os.MkdirAll("/var/opt/azcmagent/tokens", 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := kvtest.Start(t, kvtest.Options{})
	s.CreateKey("corp", "backup", kvtest.KeyOptions{})
	s.AddArcIdentity(appID)
	t.Setenv("IDENTITY_ENDPOINT", s.ArcEndpoint("/var/opt/azcmagent/tokens"))
	t.Setenv("IMDS_ENDPOINT", "http://127.0.0.1")
	for want, id := range map[string]azidentity.ManagedIDKind{kvtest.ArcClient: nil, appID: azidentity.ClientID(appID)} {
		s.ForgetCalls()
		cred, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: transport(s), ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keysWith(t, s, cred).GetKey(t.Context(), "backup", "", nil); err != nil {
			t.Errorf("%v: %v", id, err)
		}
		for _, r := range s.Requests() {
			if r.Op == kvtest.OpGet && r.Status == http.StatusOK && r.Client != want {
				t.Errorf("%v: the vault saw %s, want %s", id, r.Client, want)
			}
		}
	}
	cred, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: transport(s), ID: azidentity.ClientID("unknown")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keysWith(t, s, cred).GetKey(t.Context(), "backup", "", nil); err == nil || !strings.Contains(err.Error(), "did not confirm") {
		t.Errorf("an identity that the machine does not have: %v", err)
	}
}

// runApart runs the test that calls it in a mount namespace.
func runApart(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), arcChild+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		testkit.Missing(t, "a mount namespace", "run as root, or allow user namespaces: "+err.Error())
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Errorf("%v: %s", err, &out)
	}
}
