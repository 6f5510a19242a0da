package fault_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/agent/control"
	"github.com/cofferbackup/coffer/agent/custody"
	"github.com/cofferbackup/coffer/agent/fault"
	"github.com/cofferbackup/coffer/agent/prune"
	"github.com/cofferbackup/coffer/catalog"
	"github.com/cofferbackup/coffer/catalog/tree"
	"github.com/cofferbackup/coffer/chunk"
	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/restore"
	"github.com/cofferbackup/coffer/store"
)

func TestOf(t *testing.T) {
	for _, test := range []struct {
		cause error
		code  control.Code
	}{
		{kek.ErrDenied, control.CodeKeysInaccessible},
		{kek.ErrUnreachable, control.CodeKeysInaccessible},
		{custody.ErrMayNotWrap, control.CodeForbidden}, // which is a kek.ErrUnsuitable too
		{catalog.ErrMode, control.CodeForbidden},
		{catalog.ErrRolledBack, control.CodeDamaged},
		{store.ErrFull, control.CodeStore},
		{store.ErrShort, control.CodeDamaged},
		{tree.ErrFormat, control.CodeDamaged},
		{chunk.ErrSize, control.CodeDamaged},
	} {
		err := fault.Of(fmt.Errorf("back up docs: %w", test.cause))
		wire := control.AsError(err)
		if wire.Code != test.code || wire.Next == "" || wire.Message != "back up docs: "+test.cause.Error() {
			t.Errorf("%v travels as %+v, want code %s", test.cause, wire, test.code)
		}
		if !errors.Is(err, test.cause) {
			t.Errorf("%v is not its cause any more", test.cause)
		}
		if again := fault.Of(fmt.Errorf("job 7: %w", err)); control.CodeOf(again) != test.code {
			t.Errorf("%v is of code %s when it has gone on, want %s", test.cause, control.CodeOf(again), test.code)
		}
	}
	if fault.Of(nil) != nil {
		t.Error("no error is a fault")
	}
	if odd := errors.New("odd"); fault.Of(odd) != odd {
		t.Error("an error of no known kind was changed")
	}
}

func TestNames(t *testing.T) {
	about := fault.Names{Item: "docs", Point: "2026-11-22T12:13:34Z-dxwv", Key: "main"}
	for cause, says := range map[error]string{
		catalog.ErrNoHold:    "coffer point show docs@2026-11-22T12:13:34Z-dxwv",
		catalog.ErrPointGone: "coffer point forget docs@2026-11-22T12:13:34Z-dxwv",
		prune.ErrHeld:        "coffer point release docs@2026-11-22T12:13:34Z-dxwv",
		catalog.ErrNoItem:    "coffer backup docs",
		restore.ErrNoMatch:   "coffer point ls docs@2026-11-22T12:13:34Z-dxwv",
		kek.ErrMissing:       "coffer key check main",
		catalog.ErrNoVault:   "coffer vault create VAULT", // its name is not known
	} {
		if next := control.AsError(about.Of(cause)).Next; !strings.HasSuffix(next, says) {
			t.Errorf("%v: next is %q, want it to end in %q", cause, next, says)
		}
	}
}

func TestNotFound(t *testing.T) {
	err := control.AsError(fault.NotFound("vault", "site", "coffer vault list"))
	if err.Code != control.CodeNotFound || err.Message != `the config has no vault "site"` || err.Next != "see what there is: coffer vault list" {
		t.Errorf("got %+v", err)
	}
}
