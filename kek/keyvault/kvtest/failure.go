package kvtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// failure is an answer that is an error.
type failure struct {
	status  int
	code    string
	inner   string // code of the inner error, if there is one
	message string
	header  http.Header
}

func (f *failure) Error() string { return fmt.Sprintf("%d %s: %s", f.status, f.code, f.message) }

// last is the code that says most.
func (f *failure) last() string {
	if f.inner != "" {
		return f.inner
	}
	return f.code
}

// body is the error as the vault writes it.
func (f *failure) body() any {
	type inner struct {
		Code string `json:"code"`
	}
	var out struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Inner   *inner `json:"innererror,omitempty"`
		} `json:"error"`
	}
	out.Error.Code, out.Error.Message = f.code, f.message
	if f.inner != "" {
		out.Error.Inner = &inner{f.inner}
	}
	return out
}

func badParameter(format string, args ...any) *failure {
	return &failure{status: http.StatusBadRequest, code: "BadParameter", message: fmt.Sprintf(format, args...)}
}

func forbidden(inner, format string, args ...any) *failure {
	return &failure{status: http.StatusForbidden, code: "Forbidden", inner: inner, message: fmt.Sprintf(format, args...)}
}

func keyNotFound(kind, name string) *failure {
	return &failure{status: http.StatusNotFound, code: "KeyNotFound", message: fmt.Sprintf(
		"A %s with (name/id) %s was not found in this key vault. If you recently deleted this key you may be able to recover it using the correct recovery command. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182", kind, name)}
}

func conflict(inner, format string, args ...any) *failure {
	return &failure{status: http.StatusConflict, code: "Conflict", inner: inner, message: fmt.Sprintf(format, args...)}
}

// inTheWay is the refusal to make a key while a deleted one has its name.
func (v *vault) inTheWay(k *key) *failure {
	if k.recovering {
		return conflict("ObjectIsBeingRecovered", "Key %s is currently being recovered.", k.name)
	}
	return conflict("ObjectIsDeletedButRecoverable",
		"Key %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the key can only be recovered or purged.", k.name)
}

// failure is the answer that the fault stands for.
func (f *fault) failure() *failure {
	out := &failure{status: f.Status, code: f.Code, message: "Injected by the test."}
	switch {
	case f.Status == http.StatusTooManyRequests:
		out.message = "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"
	case f.Status == http.StatusServiceUnavailable:
		out.message = "The service is unavailable."
	}
	if out.code == "" {
		out.code = http.StatusText(f.Status)
	}
	if f.RetryAfter > 0 {
		seconds := (f.RetryAfter + time.Second - 1) / time.Second
		out.header = http.Header{"Retry-After": {strconv.FormatInt(int64(seconds), 10)}}
	}
	return out
}

// write sends an answer in JSON, or none if it is nil.
func write(w http.ResponseWriter, status int, answer any) {
	if answer == nil {
		w.WriteHeader(status)
		return
	}
	text, err := json.Marshal(answer)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text) // the client may have gone
}
