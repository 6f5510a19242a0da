// Package fault says of errors what an operator is told: under which code one travels to
// him, and what he does next.
package fault

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/doctor"
	"github.com/cofferbackup/coffer/agent/keyring"
	"github.com/cofferbackup/coffer/agent/policy"
	"github.com/cofferbackup/coffer/agent/prune"
	"github.com/cofferbackup/coffer/backup/source"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/crypt"
	"github.com/cofferbackup/coffer/internal/durable"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/restore/target"
	"github.com/cofferbackup/coffer/store"
)

// faults says for every kind of fault what code it travels under and what an
// operator does next. The first one that an error is decides. ITEM, POINT, KEY and VAULT
// stand for Names.
var faults = [...]struct {
	is   error
	code control.Code
	next string
}{
	{keyring.ErrUnrecorded, control.CodeFailed, RecordNext},
	{durable.ErrDamaged, control.CodeFailed, "run it again: what is damaged is set aside and built anew from the vault. And look at the disk of the agent's state folder: dmesg"},
	{durable.ErrState, control.CodeFailed, stateNext},
	{keyring.ErrStale, control.CodeKeysInaccessible, "put that version back where it was; coffer key list shows what there is"},
	{kek.ErrUnreachable, control.CodeKeysInaccessible, "see that the token or key service is up, then try again: coffer key list shows each key"},
	{kek.ErrDenied, control.CodeKeysInaccessible, "check the key's PIN, permissions and state; coffer key list shows each key"},
	{kek.ErrMissing, control.CodeKeysInaccessible, "put the key back where its uri in the config says, or correct that; a new one opens nothing that is there: coffer key check KEY"},
	{kek.ErrNoKey, control.CodeKeysInaccessible, "add the key that the vault was made with to the config; its fingerprint is on the recovery sheet"},
	{custody.ErrMayNotWrap, control.CodeForbidden, "mend it as said, or put another key in its place in the config; then: coffer key check KEY"},
	{kek.ErrUnsuitable, control.CodeKeysInaccessible, "mend that, or use another RSA key of 2048 to 4096 bits: coffer key create KEY makes one"},
	{kek.ErrWrongKey, control.CodeKeysInaccessible, "the key does not open this vault; look for the one on the recovery sheet"},
	{store.ErrHidden, control.CodeDamaged, HiddenNext},
	{catalog.ErrRolledBack, control.CodeDamaged, "somebody put older key records back, or the store was restored from a copy: find out which; then, to accept what is there, stop the agent and remove its state's floors folder"},
	{catalog.ErrMode, control.CodeForbidden, "correct the config: the mode of vaults.NAME, and the keys that it names"},
	{catalog.ErrErased, control.CodeNotFound, "nothing opens it any more; a new backup begins it anew: coffer backup ITEM"},
	{crypt.ErrClosed, control.CodeKeysInaccessible, "the vault's secrets were zeroed while this ran: coffer status says why"},
	{catalog.ErrOtherVault, control.CodeStore, "the store's address or the pinned id is wrong; compare both with the recovery sheet"},
	{catalog.ErrNoVault, control.CodeNotFound, "check the store's address, or make the vault: coffer vault create VAULT"},
	{catalog.ErrVaultExists, control.CodeConflict, "use it by writing its id into the config, or choose an empty place"},
	{catalog.ErrNoItem, control.CodeNotFound, "make its first point: coffer backup ITEM"},
	{catalog.ErrPointGone, control.CodeDamaged, "find out who deleted it, and from where; backups go on meanwhile. To take note of it: coffer point forget ITEM@POINT"},
	{catalog.ErrVoided, control.CodeFailed, "run it again: what it has put is used"},
	{catalog.ErrNoHold, control.CodeNotFound, "see what holds there are: coffer point show ITEM@POINT"},
	{catalog.ErrNoPoint, control.CodeNotFound, "see what there is: coffer point list ITEM; a point is latest, an id, or a date like 2026-11-20"},
	{prune.ErrMayNotDelete, control.CodeForbidden, "prune from the host whose credentials may, and leave vaults.VAULT.prune out of this one's config; what was marked stays marked"},
	{prune.ErrHeld, control.CodeConflict, "ask who holds it, then: coffer point release ITEM@POINT"},
	{prune.ErrLeavesNone, control.CodeConflict, "keep one, or say that this is meant: --allow-empty"},
	{policy.ErrKeepsNothing, control.CodeConflict, "give the policy a rule in the config, or say that this is meant: coffer prune ITEM --allow-empty"},
	{restore.ErrNotInPoint, control.CodeNotFound, "see what there is: coffer point ls ITEM@POINT"},
	{restore.ErrNoMatch, control.CodeNotFound, "see what there is: coffer point ls ITEM@POINT"},
	{restore.ErrNotFile, control.CodeBadRequest, "see what is in it: coffer point ls ITEM@POINT; a folder comes back by: coffer restore ITEM@POINT TARGET --path PATH"},
	{crypt.ErrDamaged, control.CodeDamaged, damagedNext},
	{tree.ErrFormat, control.CodeDamaged, damagedNext},
	{chunk.ErrSize, control.CodeDamaged, damagedNext},
	{store.ErrShort, control.CodeDamaged, damagedNext},
	{store.ErrMissing, control.CodeStore, doctor.StoreNext},
	{store.ErrDenied, control.CodeStore, "check the store's credentials and permissions, and that it is not read-only"},
	{store.ErrFull, control.CodeStore, "make room in the store, then run the backup again: it goes on where it stopped"},
	{store.ErrUnavailable, control.CodeStore, "see that the store is up and can be reached from here, then try again"},
	{store.ErrNotExist, control.CodeDamaged, "an object is gone from the store; see what is affected: coffer verify"},
	{target.ErrFull, control.CodeFailed, "make room in the target and restore again: what is there already is not written twice"},
	{target.ErrFile, control.CodeBadRequest, "name a folder; one that is not there is made"},
	{target.ErrReadOnly, control.CodeFailed, "choose a target that can be written to"},
	{syscall.ENOSPC, control.CodeFailed, stateNext},
	{syscall.EROFS, control.CodeFailed, stateNext},
	{syscall.EIO, control.CodeFailed, stateNext},
	{source.ErrFailed, control.CodeFailed, "run the command by hand, as the user that the agent runs as; nothing was kept"},
	{source.ErrNothing, control.CodeFailed, "check the item's paths in the config, and that the agent may read them"},
}

// HiddenNext is what an operator does about what a delete marker hides.
const HiddenNext = "find out who deleted it, and from where; to have it back, take the delete marker away with the store's own tools before the lock of what it hides ends: the runbook shows how"

// damagedNext is what to do about something that is there and cannot be read as it is.
const damagedNext = "see how far the damage goes: coffer verify; what is not named there is good"

// stateNext is what to do about a fault of a disk that is neither a store's nor a target's.
const stateNext = "make room on the disk of the agent's state folder, or mend it: coffer doctor looks at it"

// RecordNext is what an operator does when the audit log cannot be written.
const RecordNext = "make room in, or mend, the agent's state folder; then check it: coffer audit verify. What cannot wait is restored without the agent: cofferd rescue"

// Names are what an error is about. What is not known is "": then the next step names it
// as commands do, ITEM or POINT.
type Names struct{ Item, Point, Key, Vault string }

// Of gives an error the code and the next step with which it travels. One that has them
// stays as it is, and one of no known kind too.
func Of(err error) error { return Names{}.Of(err) }

// Of is the function Of, for who knows the names that the next step has in it.
func (n Names) Of(err error) error {
	var known *control.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	for _, f := range faults {
		if errors.Is(err, f.is) {
			return New(control.Error{Code: f.code, Message: err.Error(), Next: n.in(f.next)}, err)
		}
	}
	return err
}

// in fills the names that are known into a next step.
func (n Names) in(next string) string {
	for _, name := range [...]struct{ mark, is string }{{"ITEM", n.Item}, {"POINT", n.Point}, {"KEY", n.Key}, {"VAULT", n.Vault}} {
		if name.is != "" {
			next = strings.ReplaceAll(next, name.mark, name.is)
		}
	}
	return next
}

// MakeNext is what is added to the next step about a key that is not found, where no
// vault needs it yet.
func MakeNext(key string) string { return "if it was never made: coffer key create " + key }

// New returns an error that travels as wire, and still is its cause (errors.Is).
func New(wire control.Error, cause error) error { return &fault{wire, cause} }

type fault struct {
	wire  control.Error
	cause error
}

func (f *fault) Error() string   { return f.wire.Message }
func (f *fault) Unwrap() []error { return []error{&f.wire, f.cause} }

// NotFound says that the configuration has no such thing; list is the command that shows
// what it has.
func NotFound(kind, name, list string) error {
	next := "see what there is: " + list
	if kind == "item" {
		next += "; one that was taken out of the config, or renamed, has its points still: put it back under its name"
	}
	return &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("the config has no %s %q", kind, name), Next: next}
}
