package main

import (
	"errors"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store"
)

// What there is to look at where there is no agent: the command line, and the sheet.
const (
	lookAtList  = "see what there is: the same command with ls; a point is latest, an id, or a date like 2026-11-20"
	lookAtKey   = "look at --key: any one of the keys on the recovery sheet is enough, by its URI as this machine has it"
	lookAtStore = "look at --store: it is the URL on the recovery sheet, or where this machine has mounted that"
)

// rescueFaults says what is done about a fault on a bare machine, where no agent can be
// asked and no config mended. The first one that an error is decides; about all others
// is said what the agent says.
var rescueFaults = [...]struct {
	is   error
	code control.Code
	next string
}{
	{kek.ErrMissing, control.CodeKeysInaccessible, lookAtKey},
	{kek.ErrDenied, control.CodeKeysInaccessible, "see that this user may read the key, and that its PIN, passphrase or credential is right: it is in --key, or in the flags for Key Vault"},
	{kek.ErrUnreachable, control.CodeKeysInaccessible, "see that the token or key service is up and can be reached from this machine, or take another key of the recovery sheet: --key"},
	{kek.ErrUnsuitable, control.CodeKeysInaccessible, "mend that, or take another key of the recovery sheet: --key"},
	{kek.ErrNoKey, control.CodeKeysInaccessible, "this key is none of the vault's. Compare its fingerprint with the recovery sheet, and " + lookAtKey},
	{kek.ErrWrongKey, control.CodeKeysInaccessible, "this key is none of the vault's. Compare its fingerprint with the recovery sheet, and " + lookAtKey},
	{catalog.ErrOtherVault, control.CodeStore, "compare --store and --vault-id with the recovery sheet"},
	{catalog.ErrNoVault, control.CodeNotFound, lookAtStore},
	{catalog.ErrNoItem, control.CodeNotFound, lookAtList},
	{catalog.ErrNoPoint, control.CodeNotFound, lookAtList},
	{restore.ErrNotInPoint, control.CodeNotFound, "look at --path; without it all of the point is restored"},
	{restore.ErrNoMatch, control.CodeNotFound, "look at --path; without it all of the point is restored"},
	{crypt.ErrDamaged, control.CodeDamaged, "take another point: the same command with ls shows them; cofferd scrub --store URL says how far the damage goes"},
	{store.ErrMissing, control.CodeStore, "mount it, or " + lookAtStore},
	{store.ErrDenied, control.CodeStore, "see that this user may read the store, and at its credentials: " + lookAtStore},
	{store.ErrNotExist, control.CodeDamaged, "an object is gone from the store; take another point: the same command with ls shows them"},
}

// rescueFault gives an error the code and the next step that it has on a bare machine.
func rescueFault(err error) error {
	if err == nil {
		return nil
	}
	wire := control.AsError(err)
	for _, f := range rescueFaults {
		if errors.Is(err, f.is) {
			return fault.New(control.Error{Code: f.code, Message: wire.Message, Needs: wire.Needs, Next: f.next}, err)
		}
	}
	if wire.Code == control.CodeBadRequest { // a point that cannot be meant
		return fault.New(control.Error{Code: wire.Code, Message: wire.Message, Next: lookAtList}, err)
	}
	return fault.Of(err)
}
