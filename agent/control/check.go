package control

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// checkRestore refuses what cannot be meant, before anything is read.
func checkRestore(q RestoreRequest) error {
	if !filepath.IsAbs(q.Target) {
		return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("target %q is not an absolute path", q.Target)}
	}
	switch q.Overwrite {
	case "", OverwriteIfDifferent, OverwriteNever, OverwriteAlways:
		return nil
	}
	return &Error{
		Code: CodeBadRequest, Message: fmt.Sprintf("overwrite %q is not known", string(q.Overwrite)),
		Next: "use if-different, never or always",
	}
}

// checkVerify refuses a level that does not exist, and what cannot go together.
func checkVerify(q VerifyRequest) error {
	bad := func(message, next string) error { return &Error{Code: CodeBadRequest, Message: message, Next: next} }
	switch structure := q.Level == VerifyStructure; {
	case !structure && q.Level != "" && q.Level != VerifyData:
		return bad(fmt.Sprintf("level %q is not known", string(q.Level)), "use structure or data")
	case q.Part < 0 || q.Part > 100:
		return bad(fmt.Sprintf("part %d is not a percentage", q.Part), "use 1 to 100, or leave it out to read everything")
	case structure && q.Part > 0:
		return bad("a part is of the data, and the level structure reads none", "leave out one of the two")
	case q.Restore && (q.Repair || q.Part > 0 || q.Level != "" || q.Point != ""):
		return bad("a proof restore takes the newest point as a whole, and repairs nothing", "ask for it alone")
	}
	return nil
}

// checkLink refuses to link a key that would also wrap.
func checkLink(q KeyLink) error {
	switch {
	case q.URI == "":
		return &Error{Code: CodeBadRequest, Message: "the key's uri is missing"}
	case q.RestoreOnly || q.Unlink:
		return nil
	}
	return &Error{
		Code: CodeBadRequest, Message: "a key is linked to open what is there, and never to wrap",
		Next: "set restore_only; a key that also wraps belongs into the configuration",
	}
}

// checkMode refuses every mode that a vault cannot be raised to.
func checkMode(q VaultMode) error {
	if q.Mode == ModeCustomerManaged {
		return nil
	}
	return &Error{
		Code: CodeBadRequest, Message: fmt.Sprintf("a vault's mode is raised to %s and never lowered, and this asks for %q", ModeCustomerManaged, q.Mode),
		Next: "for keys in files, make another vault",
	}
}

// checkErase refuses an erasure that does not name its item twice.
func checkErase(q ItemErase) error {
	if q.Item != "" && q.Confirm == q.Item {
		return nil
	}
	return &Error{
		Code: CodeBadRequest, Message: fmt.Sprintf("erasing item %q is confirmed with %q", q.Item, q.Confirm),
		Next: "confirm with the item's own name",
	}
}

// checkHold refuses a hold that nobody answers for.
func checkHold(q PointHold) error {
	if strings.TrimSpace(q.Owner) != "" && strings.TrimSpace(q.Reason) != "" {
		return nil
	}
	return &Error{
		Code: CodeBadRequest, Message: "a hold needs an owner and a reason: whoever finds it in years must know whom to ask",
		Next: "say both",
	}
}

// checkForget refuses to forget nothing in particular.
func checkForget(q PointForget) error {
	if q.Item != "" && len(q.Points) > 0 && !slices.Contains(q.Points, "") {
		return nil
	}
	return &Error{
		Code: CodeBadRequest, Message: "points to forget are named one by one, with their item",
		Next: "see what there is: coffer point list",
	}
}
