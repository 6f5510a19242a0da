package control

import (
	"context"
	"errors"
	"net/http"
)

// Code tells faults apart for programs. Codes are never renamed.
type Code string

// The codes that an agent answers with.
const (
	CodeBadRequest       Code = "bad_request"       // the request makes no sense
	CodeForbidden        Code = "forbidden"         // the caller may not do this
	CodeNotFound         Code = "not_found"         // no such item, point, path, job ...
	CodeConflict         Code = "conflict"          // it exists already, or it is busy
	CodeKeysInaccessible Code = "keys_inaccessible" // no key opens the vault
	CodeStore            Code = "store"             // object storage fails
	CodeDamaged          Code = "damaged"           // stored data does not verify
	CodeCancelled        Code = "cancelled"         // somebody asked for it to stop
	CodeFailed           Code = "failed"            // anything else that went wrong
	CodeBusy             Code = "busy"              // too much at once: ask again
	CodeInternal         Code = "internal"          // a bug in the agent
)

// The codes that a Client makes itself.
const (
	CodeNoSocket     Code = "agent_no_socket"     // nothing is at the socket's path
	CodeNotRunning   Code = "agent_not_running"   // nobody listens on the socket
	CodeNoPermission Code = "agent_no_permission" // the socket may not be opened
	CodeTorn         Code = "torn_stream"         // a stream ended before its end
	CodeProtocol     Code = "protocol"            // the answer is not understood
)

// Error is a fault as it travels. Backends return it, or an error that wraps it,
// to choose the code; any other error travels as CodeFailed.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"` // what, and why
	// Needs are the keys that stand in the way, one line each.
	Needs []string `json:"needs,omitempty"`
	Next  string   `json:"next,omitempty"` // what to do about it
}

func (e *Error) Error() string { return e.Message }

// CodeOf returns the code of err: "" for nil, CodeFailed if err has none.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return AsError(err).Code
}

// AsError returns err as it travels. The message is the whole chain's, so that
// what a caller wrapped around an *Error is kept. It returns nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok { //nolint:errorlint // the outermost error needs no copy
		return e
	}
	out := &Error{Code: CodeFailed, Message: err.Error()}
	var e *Error
	switch {
	case errors.As(err, &e):
		out.Code, out.Needs, out.Next = e.Code, e.Needs, e.Next
	case errors.Is(err, context.Canceled):
		out.Code = CodeCancelled
	}
	return out
}

// The exit codes of coffer and of cofferd rescue.
const (
	ExitDone    = 0 // done
	ExitFailed  = 1 // not done
	ExitUsage   = 2 // the command line is wrong; nothing was tried
	ExitSkipped = 3 // done, but some entries were skipped
	ExitKeys    = 4 // not done: the vault's keys are inaccessible
)

// ExitCode returns the exit code for err.
func ExitCode(err error) int {
	switch CodeOf(err) {
	case "":
		return ExitDone
	case CodeKeysInaccessible:
		return ExitKeys
	}
	return ExitFailed
}

// httpStatus returns the HTTP status that goes with a code. Clients read the
// code; the status is for logs and curl.
func (c Code) httpStatus() int {
	switch c {
	case CodeBadRequest:
		return http.StatusBadRequest
	case CodeForbidden:
		return http.StatusForbidden
	case CodeNotFound:
		return http.StatusNotFound
	case CodeConflict, CodeCancelled:
		return http.StatusConflict
	case CodeBusy:
		return http.StatusTooManyRequests
	case CodeKeysInaccessible, CodeStore:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
