package software

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/internal/calls"
)

// Check goes through everything that the key of uri needs, and says what is wrong
// and what to do. It returns every stage, in the order of kek.Stages.
func Check(ctx context.Context, uri string) []kek.Step {
	f, err := parseURI(uri)
	if err != nil {
		return kek.Fill([]kek.Step{kek.Fail(kek.StageIdentity, err, "correct the key's uri in the configuration: file:///path/kek.pem")})
	}
	var steps []kek.Step
	_, err = calls.New(1).Do(ctx, "read "+f.path, func() ([]byte, error) {
		steps = f.examine()
		return nil, nil
	})
	if err != nil { // steps may still be written
		return kek.Fill([]kek.Step{kek.Fail(kek.StageIdentity, err, "look at the file system of "+f.path+", then check again")})
	}
	if last := steps[len(steps)-1]; last.Verdict != kek.Failed {
		steps = append(steps, f.selfTest(ctx, uri))
	}
	return kek.Fill(steps)
}

// examine takes every stage but the last, up to the first that fails.
func (f file) examine() []kek.Step {
	text, err := f.read()
	if err != nil {
		return []kek.Step{kek.Fail(kek.StageIdentity, err, f.nextToRead(err))}
	}
	defer clear(text)
	priv, err := f.decode(text)
	if errors.Is(err, kek.ErrDenied) {
		return []kek.Step{kek.Fail(kek.StageIdentity, err, "put the right passphrase where passphrase-source says; it is read anew each time")}
	}
	says := f.path + " can be read by this service and nobody else"
	if priv.encrypted {
		says += ", and the passphrase in " + f.passphrase.String() + " opens it"
	}
	steps := []kek.Step{{Stage: kek.StageIdentity, Verdict: kek.Passed, Says: says}}
	if err != nil {
		return append(steps, kek.Fail(kek.StagePermissions, err, "put a PKCS#8 RSA private key there: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072"))
	}
	defer priv.forget()
	holds := "an RSA private key"
	if priv.mlkem != nil {
		holds = "an RSA and an ML-KEM-768 private key"
	}
	steps = append(steps,
		kek.Step{Stage: kek.StagePermissions, Verdict: kek.Passed, Says: "it holds " + holds + ", which unwraps for whoever reads it"},
		f.protection(priv.encrypted))
	if err := kek.CheckRSA(&priv.rsa.PublicKey); err != nil {
		return append(steps, kek.Fail(kek.StageKey, err, "make a new key; this one may stay as a key that only opens, if it ever wrapped anything"))
	}
	says = fmt.Sprintf("RSA, %d bits, exponent %d", priv.rsa.N.BitLen(), priv.rsa.E)
	if priv.mlkem != nil {
		says += ", and ML-KEM-768"
	}
	return append(steps, kek.Step{Stage: kek.StageKey, Verdict: kek.Passed, Says: says})
}

// protection is never more than a warning: the key is a file.
func (f file) protection(encrypted bool) kek.Step {
	step := kek.Step{Stage: kek.StageProtection, Verdict: kek.Warned,
		Says: "a software key: whoever reads this file opens every backup",
		Next: "keep the key in an HSM or Key Vault, or at least give the file a passphrase: " +
			strings.ReplaceAll(encryptCommand, "KEK", f.path) + ", and name where it is in the key's uri: ?passphrase-source=file:/path"}
	switch {
	case encrypted:
		step.Says = "a software key: whoever reads this file and its passphrase opens every backup"
		step.Next = "keep the key in an HSM or Key Vault, or at least the passphrase out of this host's backups"
	case !f.passphrase.IsZero():
		step.Says += "; it is not encrypted, although its uri names a passphrase"
	}
	return step
}

func (f file) selfTest(ctx context.Context, uri string) kek.Step {
	key, err := Open(ctx, "check", uri)
	if err == nil {
		err = key.Check(ctx)
	}
	if err != nil {
		return kek.Fail(kek.StageSelfTest, err, "check again; if it stays so, put the key's file back from your copy")
	}
	return kek.Step{Stage: kek.StageSelfTest, Verdict: kek.Passed,
		Says: fmt.Sprintf("it opened what it wrapped, with %v", key.ref.Algorithm)}
}

// nextToRead says what to do about a file that is not read.
func (f file) nextToRead(err error) string {
	switch {
	case errors.Is(err, kek.ErrMissing):
		return "put the file back, or correct the key's uri: without it, nothing that only this key wrapped opens"
	case errors.Is(err, kek.ErrDenied):
		return "let the user of the service read it: chown it to that user, chmod 600"
	case errors.Is(err, kek.ErrUnsuitable):
		return "let the user of the service alone reach it, chown and chmod 600, and think of the key as seen by others"
	}
	return "look at the file and its file system, then check again"
}
