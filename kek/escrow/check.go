package escrow

import (
	"context"
	"errors"
	"fmt"

	"github.com/cofferbackup/coffer/kek"
)

// Check goes through what can be checked of an escrow key without its private half,
// and says what is wrong and what to do. It returns every stage, in the order of
// kek.Stages. That it opens anything, only its owner can try: the last stage is a
// warning that says how.
func Check(ctx context.Context, path string) []kek.Step {
	key, err := Open(ctx, "check", path)
	steps := []kek.Step{
		{Stage: kek.StageIdentity, Verdict: kek.Passed, Says: path + " can be read"},
		{Stage: kek.StagePermissions, Verdict: kek.Passed, Says: "reading is all it takes: nothing is opened with it here"},
	}
	switch {
	case errors.Is(err, errPrivate):
		return kek.Fill(append(steps, kek.Fail(kek.StageProtection, err, "move the private key to a safe, overwrite it here, and put its public half in its place: openssl pkey -in PRIVATE.pem -pubout")))
	case errors.Is(err, errExposed):
		return kek.Fill(append(steps, kek.Fail(kek.StageProtection, err, "chown it to root and chmod 644, then compare its fingerprint with that of the key in the safe")))
	case errors.Is(err, kek.ErrMissing):
		return kek.Fill([]kek.Step{kek.Fail(kek.StageIdentity, err, "put the public half of the key there, or correct the configuration")})
	case errors.Is(err, kek.ErrDenied):
		return kek.Fill([]kek.Step{kek.Fail(kek.StageIdentity, err, "let the user of the service read it: chmod 644")})
	case err != nil && !errors.Is(err, kek.ErrUnsuitable):
		return kek.Fill([]kek.Step{kek.Fail(kek.StageIdentity, err, "look at the file and its file system, then check again")})
	}
	steps = append(steps, kek.Step{Stage: kek.StageProtection, Verdict: kek.Passed, Says: "only its owner can write it, and no private key is in it"})
	if err != nil {
		return kek.Fill(append(steps, kek.Fail(kek.StageKey, err, "put the public half of an RSA key of 2048 to 4096 bits there: openssl pkey -in PRIVATE.pem -pubout")))
	}
	return append(steps, key.sizes(), key.selfTest())
}

func (k *Key) sizes() kek.Step {
	says := fmt.Sprintf("RSA, %d bits, exponent %d", k.ref.Bits, k.pub.RSA.E)
	if k.pub.MLKEM != nil {
		says += ", and ML-KEM-768"
	}
	return kek.Step{Stage: kek.StageKey, Verdict: kek.Passed, Says: fmt.Sprintf("%s; fingerprint %v", says, k.ref.Fingerprint)}
}

func (k *Key) selfTest() kek.Step {
	if _, err := k.Wrap([]byte("self-test")); err != nil {
		return kek.Fail(kek.StageSelfTest, err, "make a new key")
	}
	return kek.Step{Stage: kek.StageSelfTest, Verdict: kek.Warned,
		Says: fmt.Sprintf("it wraps with %v; whether the key in the safe opens that cannot be tried here", k.ref.Algorithm),
		Next: "once a year, take the private half to a machine of its own and restore a file there: cofferd rescue --key file:///PRIVATE.pem"}
}
